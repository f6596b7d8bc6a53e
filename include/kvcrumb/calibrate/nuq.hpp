// SPDX-License-Identifier: Apache-2.0
//! @file Offline calibration: ranges per channel, levels by weighted 1-D k-means, Q-Norm.
//!
//! Host only, allocates, works in double. Run it once and save the result (calibrate/parameters.hpp): unlike
//! encode, its last bit may depend on compiler flags.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/status.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! Linearly interpolated quantile of ascending values, t in [0, 1] (NumPy's and PyTorch's default).
inline double quantile(std::span<float const> ascending, double t) {
  double const at = t * static_cast<double>(ascending.size() - 1);
  auto const i = static_cast<std::size_t>(at);
  double const low = static_cast<double>(ascending[i]);
  if (i + 1 >= ascending.size()) return low;
  return low + (at - static_cast<double>(i)) * (static_cast<double>(ascending[i + 1]) - low);
}

//! Shift (high + low) / 2 and scale (high - low) / 2 of every channel, [heads][head_dim] each, where low and
//! high are the quantiles (1 - kept) / 2 and (1 + kept) / 2 over the tokens: kept = 0.99 leaves 1 % of the
//! values outside, 1 takes minimum and maximum. Scales are at least 1/4096 of the channel's |shift| and of
//! the largest scale (1 if all are 0), so that a channel that was constant while calibrating cannot throw
//! later values out of the range of fp16. bad_shape: no tokens, or arrays of another size; out_of_range: kept
//! not in (0, 1]; not_finite.
inline status channel_ranges(rows_view<float const> rows, int heads, std::int64_t tokens, int head_dim,
                             double kept, std::span<float> shift, std::span<float> scale) {
  if (heads < 1 || tokens < 1 || head_dim < 1) return status::bad_shape;
  std::size_t const channels = static_cast<std::size_t>(heads) * static_cast<std::size_t>(head_dim);
  if (shift.size() != channels || scale.size() != channels) return status::bad_shape;
  if (!(kept > 0.0 && kept <= 1.0)) return status::out_of_range;
  if (status const s = check_rows(rows, heads, tokens, head_dim); s != status::ok) return s;
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (int d = 0; d < head_dim; ++d) {
        if (!is_finite_bits(rows.row(h, t)[d])) return status::not_finite;
      }
    }
  }
  std::vector<float> column(static_cast<std::size_t>(tokens));
  double largest = 0.0;
  for (std::size_t c = 0; c < channels; ++c) {
    int const head = static_cast<int>(c) / head_dim, dim = static_cast<int>(c) % head_dim;
    for (std::size_t t = 0; t < column.size(); ++t)
      column[t] = rows.row(head, static_cast<std::int64_t>(t))[dim];
    std::sort(column.begin(), column.end());
    double const high = quantile(column, 0.5 + 0.5 * kept), low = quantile(column, 0.5 - 0.5 * kept);
    shift[c] = static_cast<float>(0.5 * high + 0.5 * low);
    scale[c] = static_cast<float>(0.5 * high - 0.5 * low);
    largest = std::max(largest, static_cast<double>(scale[c]));
  }
  for (std::size_t c = 0; c < channels; ++c) {
    double const least = std::max(std::fabs(static_cast<double>(shift[c])), largest) / 4096.0;
    if (static_cast<double>(scale[c]) < least) scale[c] = static_cast<float>(least);
    if (!is_positive_bits(scale[c])) scale[c] = 1.0f;
  }
  return status::ok;
}

//! Levels by weighted k-means in one dimension (Lloyd): ascending, each the weighted mean of the values
//! nearest to it. Starts from the middles of equal shares of the weight, so it is deterministic; stops when
//! nothing moves or after `iterations`. A level without values stays where it was; levels that would coincide
//! are set one float apart. Weights: null (all 1) or one per value, not negative, in sum positive (KVQuant:
//! squared gradients).
//! bad_shape: no values, no levels or another number of weights; not_finite; out_of_range: bad weights.
//! Cost: a sort, then levels * log(values) per iteration.
inline status fit_levels(std::span<float const> values, std::span<float const> weights,
                         std::span<float> levels, int iterations = 50) {
  std::size_t const n = values.size(), k = levels.size();
  if (n == 0 || k == 0 || (!weights.empty() && weights.size() != n)) return status::bad_shape;
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (float const x : values) {
    if (!is_finite_bits(x)) return status::not_finite;
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> x(n), mass(n + 1, 0.0), moment(n + 1, 0.0);  // sums over the first i values
  for (std::size_t i = 0; i < n; ++i) {
    double const w = weights.empty() ? 1.0 : static_cast<double>(weights[order[i]]);
    if (!(w >= 0.0) || std::isinf(w)) return status::out_of_range;
    x[i] = static_cast<double>(values[order[i]]);
    mass[i + 1] = mass[i] + w;
    moment[i + 1] = moment[i] + w * x[i];
  }
  if (!(mass[n] > 0.0)) return status::out_of_range;
  std::vector<double> at(k);
  for (std::size_t i = 0; i < k; ++i) {
    double const share = mass[n] * (static_cast<double>(i) + 0.5) / static_cast<double>(k);
    auto const upper = std::lower_bound(mass.begin() + 1, mass.end(), share);
    at[i] = x[std::min(static_cast<std::size_t>(upper - mass.begin()), n) - 1];
  }
  bool moved = true;
  for (int round = 0; round < iterations && moved; ++round) {
    moved = false;
    std::size_t begin = 0;
    std::vector<double> const old = at;
    for (std::size_t i = 0; i < k; ++i) {
      std::size_t end = n;
      if (i + 1 < k) {  // a value halfway belongs to the lower level
        auto const bound = std::upper_bound(x.begin(), x.end(), 0.5 * (old[i] + old[i + 1]));
        end = std::max(begin, static_cast<std::size_t>(bound - x.begin()));
      }
      if (mass[end] > mass[begin]) at[i] = (moment[end] - moment[begin]) / (mass[end] - mass[begin]);
      begin = end;
    }
    moved = at != old;
  }
  for (std::size_t i = 0; i < k; ++i) {
    levels[i] = static_cast<float>(at[i]);
    if (i > 0 && levels[i] <= levels[i - 1]) levels[i] = std::nextafter(levels[i - 1], INFINITY);
  }
  return status::ok;
}

//! Mean and standard deviation (of the population).
struct mean_deviation {
  double mean = 0.0;
  double deviation = 0.0;
};
template <class F>
mean_deviation moments(std::size_t n, F&& value) {
  double sum = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < n; ++i)
    sum += value(i);
  double const mean = sum / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i)
    squares += (value(i) - mean) * (value(i) - mean);
  return {mean, std::sqrt(squares / static_cast<double>(n))};
}

//! Q-Norm (arXiv 2401.18079, section 3.5): decoded levels a * level + b such that the decoded `values` have
//! the mean and the standard deviation that they had before. Table: codec/nuq.hpp's. If all values have one
//! code, only the mean is restored. `values` must be finite and not empty.
template <class Table>
void q_norm(std::span<float const> values, Table& table) {
  auto const before = moments(values.size(), [&](std::size_t i) { return static_cast<double>(values[i]); });
  auto const after = moments(values.size(), [&](std::size_t i) {
    return static_cast<double>(table.levels[table.nearest(values[i])]);
  });
  double const gain = after.deviation > 0.0 ? before.deviation / after.deviation : 1.0;
  for (std::size_t i = 0; i < std::size(table.levels); ++i) {
    double const level = static_cast<double>(table.levels[i]);
    table.decoded[i] = static_cast<float>(gain * level + before.mean - gain * after.mean);
  }
}

namespace detail {

//! The `count` channels of a row that lie nearest to its lower median, ascending; of equal ones the last,
//! because sparse_values takes out the first.
inline std::vector<int> nearest_to_median(std::span<float const> row, int count) {
  std::vector<float> sorted(row.begin(), row.end());
  std::sort(sorted.begin(), sorted.end());
  float const median = sorted[(sorted.size() - 1) / 2];
  std::vector<int> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::fabs(row[static_cast<std::size_t>(a)] - median) >
           std::fabs(row[static_cast<std::size_t>(b)] - median);
  });
  order.erase(order.begin(), order.end() - count);
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace detail

}  // namespace kvcrumb::inline v0
