// SPDX-License-Identifier: Apache-2.0
//! @file Scalar codebooks for normal data, computed from their definitions: Lloyd-Max and NormalFloat.
//!
//! Sources: Max (1960) and Lloyd (1982) for the fixed point; QLoRA (arXiv 2305.14314), section 3, for
//! NormalFloat.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <vector>

namespace kvcrumb::inline v0::reference {

//! Density of the standard normal distribution; 0 at +-infinity.
[[nodiscard]] inline double normal_density(double x) {
  return std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
}

//! P(X > x) of the standard normal distribution.
[[nodiscard]] inline double normal_upper_tail(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }

//! The x with P(X <= x) = p, by bisection to the last bit of double. Requires 0 < p < 1.
[[nodiscard]] inline double normal_quantile(double p) {
  assert(p > 0.0 && p < 1.0);
  double low = -40.0;
  double high = 40.0;
  for (int step = 0; step < 200; ++step) {
    double const middle = 0.5 * (low + high);
    if (normal_upper_tail(-middle) < p) {  // P(X <= middle) = P(X > -middle)
      low = middle;
    } else {
      high = middle;
    }
  }
  return 0.5 * (low + high);
}

//! A scalar quantizer of N(0, 1).
struct scalar_codebook {
  std::vector<double> levels;  //!< [2^bits], ascending
  std::vector<double> bounds;  //!< [2^bits - 1], ascending; between levels i and i + 1
  double mean_squared_error = 0.0;
  double index_entropy = 0.0;  //!< bits per index
};

//! The quantizer of N(0, 1) with 2^bits levels and the least mean squared error.
//!
//! Requires 1 <= bits <= 4 (the iteration slows down with every bit). Fixed point of two rules: a bound is
//! the middle of its two levels; a level is the mean of X between its two bounds, (density(a) - density(b)) /
//! P(a < X < b). Symmetric, so only the positive half is kept: its lowest bound is 0. Stops when no level
//! moves by 1e-14. The error is 1 - sum of P_i * level_i^2, which holds for levels that are means of their
//! cells.
[[nodiscard]] inline scalar_codebook lloyd_max_normal(int bits) {
  assert(bits >= 1 && bits <= 4);
  std::size_t const half = std::size_t{1} << (bits - 1);
  double const infinity = std::numeric_limits<double>::infinity();

  std::vector<double> level(half);  // start: quantiles of equally likely cells
  for (std::size_t i = 0; i < half; ++i) {
    level[i] = normal_quantile(0.5 + (static_cast<double>(i) + 0.5) / (2.0 * static_cast<double>(half)));
  }
  std::vector<double> bound(half + 1, 0.0);
  std::vector<double> probability(half, 0.0);
  bound[half] = infinity;
  double moved = 1.0;
  for (int round = 0; round < 1000000 && moved > 1e-14; ++round) {
    for (std::size_t i = 1; i < half; ++i) { bound[i] = 0.5 * (level[i - 1] + level[i]); }
    moved = 0.0;
    for (std::size_t i = 0; i < half; ++i) {
      probability[i] = normal_upper_tail(bound[i]) - normal_upper_tail(bound[i + 1]);
      double const mean = (normal_density(bound[i]) - normal_density(bound[i + 1])) / probability[i];
      moved = std::max(moved, std::fabs(mean - level[i]));
      level[i] = mean;
    }
  }

  scalar_codebook book;
  book.mean_squared_error = 1.0;
  for (std::size_t i = half; i-- > 0;) { book.levels.push_back(-level[i]); }
  for (std::size_t i = half; i-- > 1;) { book.bounds.push_back(-bound[i]); }
  book.bounds.push_back(0.0);
  for (std::size_t i = 0; i < half; ++i) {
    book.levels.push_back(level[i]);
    if (i > 0) { book.bounds.push_back(bound[i]); }
    book.mean_squared_error -= 2.0 * probability[i] * level[i] * level[i];
    book.index_entropy -= 2.0 * probability[i] * std::log2(probability[i]);
  }
  return book;
}

//! NormalFloat levels for 2, 3 or 4 bits, ascending, from -1 to 1, with an exact 0.
//!
//! QLoRA's construction. With h = 2^(bits - 1): the positive levels are the normal quantiles of h
//! probabilities that start at the offset and go down evenly towards 1/2, which is left out; the negative
//! levels are the mirrored quantiles of h - 1 such probabilities; then 0; everything divided by the largest.
//! The offset is the published 0.9677083, close to the mean of 1 - 1/32 and 1 - 1/30 taken for 4 bits, and
//! kept for fewer bits.
[[nodiscard]] inline std::vector<double> normal_float_levels(int bits) {
  assert(bits >= 2 && bits <= 4);
  double const offset = 0.9677083;
  int const half = 1 << (bits - 1);
  auto const quantiles = [&](int count) {  // count quantiles, from the offset down; 1/2 itself is left out
    std::vector<double> values;
    for (int i = 0; i < count; ++i) {
      double const fraction = static_cast<double>(i) / static_cast<double>(count);
      values.push_back(normal_quantile(offset + fraction * (0.5 - offset)));
    }
    return values;
  };

  std::vector<double> levels = quantiles(half);
  for (double const value : quantiles(half - 1)) { levels.push_back(-value); }
  levels.push_back(0.0);
  std::sort(levels.begin(), levels.end());
  double const largest = levels.back();
  for (double& level : levels) { level /= largest; }
  return levels;
}

}  // namespace kvcrumb::inline v0::reference
