// SPDX-License-Identifier: Apache-2.0
//! @file Measures of how far one result is from another.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvcrumb::inline v0::reference {

//! |actual - expected| / |expected| with Euclidean norms over all elements. Not symmetric: `expected` is the
//! exact one. An all-zero `expected` gives 0 where `actual` is zero too, else +infinity. Requires equal
//! sizes.
[[nodiscard]] inline double relative_l2(std::span<double const> actual, std::span<double const> expected) {
  assert(actual.size() == expected.size());
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  if (norm == 0.0 && difference == 0.0) { return 0.0; }
  if (norm == 0.0) { return std::numeric_limits<double>::infinity(); }
  return std::sqrt(difference / norm);
}

//! Kullback-Leibler divergence KL(p || q) = sum of p * ln(p / q), in nats; `p` is the exact distribution. A
//! term with p = 0 is 0. A term with p > 0 and q = 0 makes the result +infinity. Both should sum to 1;
//! nothing is normalized here. Requires equal sizes.
[[nodiscard]] inline double kl_divergence(std::span<double const> p, std::span<double const> q) {
  assert(p.size() == q.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0) { continue; }
    if (q[i] == 0.0) { return std::numeric_limits<double>::infinity(); }
    sum += p[i] * std::log(p[i] / q[i]);
  }
  return sum;
}

//! Index of the largest element, the first one of equals. Requires one element at least.
[[nodiscard]] inline std::size_t index_of_largest(std::span<double const> row) {
  assert(!row.empty());
  return static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

//! Fraction of the rows in which the largest element is at the same place, for arrays [row][row_length]. Of
//! equal largest elements the first one counts. NaN where there is no row. Requires equal sizes.
[[nodiscard]] inline double top1_agreement(std::span<double const> actual, std::span<double const> expected,
                                           std::size_t row_length) {
  assert(actual.size() == expected.size() && row_length > 0 && actual.size() % row_length == 0);
  std::size_t const rows = actual.size() / row_length;
  std::size_t same = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    auto const a = actual.subspan(r * row_length, row_length);
    auto const e = expected.subspan(r * row_length, row_length);
    if (index_of_largest(a) == index_of_largest(e)) { ++same; }
  }
  if (rows == 0) { return std::numeric_limits<double>::quiet_NaN(); }
  return static_cast<double>(same) / static_cast<double>(rows);
}

//! The `percent`-th percentile with linear interpolation, the default of numpy.percentile: of n sorted
//! numbers, the one at index (n - 1) * percent / 100, between two of them the straight line. NaN where there
//! is no number. Requires 0 <= percent <= 100 and no NaN in `values`.
[[nodiscard]] inline double percentile(std::span<double const> values, double percent) {
  assert(percent >= 0.0 && percent <= 100.0);
  if (values.empty()) { return std::numeric_limits<double>::quiet_NaN(); }
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  double const index = static_cast<double>(sorted.size() - 1) * percent / 100.0;
  double const below = std::floor(index);
  std::size_t const lower = static_cast<std::size_t>(below);
  std::size_t const upper = std::min(lower + 1, sorted.size() - 1);
  return sorted[lower] + (index - below) * (sorted[upper] - sorted[lower]);
}

}  // namespace kvcrumb::inline v0::reference
