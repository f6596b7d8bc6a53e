// SPDX-License-Identifier: Apache-2.0
//! @file The tracers that ship: error sums, channel maxima, row norms.
#pragma once

#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/trace/concept.hpp"

namespace kvcrumb::inline v0 {

//! Sums of squares of values and of encoding errors, per side, in double. Cost: two multiply-adds per value.
struct error_tracer {
  double value_squares[2] = {0.0, 0.0};
  double error_squares[2] = {0.0, 0.0};
  std::int64_t count[2] = {0, 0};

  void on_element(element_coordinate c, float x, float x_hat) noexcept {
    int const i = c.which == side::key ? 0 : 1;
    double const e = static_cast<double>(x) - static_cast<double>(x_hat);
    value_squares[i] += static_cast<double>(x) * static_cast<double>(x);
    error_squares[i] += e * e;
    ++count[i];
  }
  //! Relative squared error of one side; 0 where nothing was seen.
  double relative(side s) const noexcept {
    int const i = s == side::key ? 0 : 1;
    return value_squares[i] > 0.0 ? error_squares[i] / value_squares[i] : 0.0;
  }
};

//! Largest magnitude per (kv head, channel) of one side: shows outlier channels.
//! `maxima` is the caller's [kv_heads][head_dim], zeroed before the first use.
struct channel_absmax_tracer {
  side which = side::key;
  float* maxima = nullptr;

  void on_row(side s, int head, std::int64_t /*token*/, float const* row, int head_dim) noexcept {
    if (s != which) return;
    float* m = maxima + static_cast<std::int64_t>(head) * head_dim;
    for (int i = 0; i < head_dim; ++i) {
      float const a = absolute(row[i]);
      if (a > m[i]) m[i] = a;
    }
  }
};

//! L1 norm of every encoded row of one side at norms[head * tokens + position]: shows outlier tokens.
//! Rows at or beyond `tokens` are ignored.
struct row_norm_tracer {
  side which = side::key;
  float* norms = nullptr;  //!< the caller's [kv_heads][tokens]
  std::int64_t tokens = 0;

  void on_row(side s, int head, std::int64_t token, float const* row, int head_dim) noexcept {
    if (s != which || token >= tokens) return;
    float sum = 0.0f;
    for (int i = 0; i < head_dim; ++i)
      sum += absolute(row[i]);
    norms[head * tokens + token] = sum;
  }
};

}  // namespace kvcrumb::inline v0
