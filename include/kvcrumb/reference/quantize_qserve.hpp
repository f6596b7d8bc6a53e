// SPDX-License-Identifier: Apache-2.0
//! @file QServe KV4: 4-bit codes of one token and head with an fp16 scale and an unrounded fp16 zero point.
//!
//! Source: QServe (arXiv 2405.04532) and the quantization of its attention kernel.
#pragma once

#include <cassert>
#include <cmath>
#include <span>
#include <vector>

#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::inline v0::reference {

//! One row of zero-point codes: xhat = (code - zero) * scale, in real arithmetic.
struct zero_point_row {
  std::vector<int> codes;    //!< [n], 0 ... 15
  double scale = 0.0;        //!< an fp16 number
  double zero = 0.0;         //!< an fp16 number, in units of codes, not an integer in general
  std::vector<double> xhat;  //!< [n]
};

//! The rule of this library for a row of one value (QServe divides by zero there): scale = fp16(|value|), and
//! the code is one step above or below the zero point, so that xhat = fp16(value). A row of zeros is all
//! zero.
[[nodiscard]] inline zero_point_row constant_zero_point_row(double value, std::size_t n) {
  double const stored = to_fp16(value);
  zero_point_row row;
  row.scale = std::fabs(stored);
  int const code = stored > 0.0 ? 1 : 0;
  row.zero = stored < 0.0 ? 1.0 : 0.0;
  row.codes.assign(n, code);
  row.xhat.assign(n, (static_cast<double>(code) - row.zero) * row.scale);
  return row;
}

//! Quantizes one row as QServe does.
//!
//! Requires fp32 numbers of at most 65504 in magnitude (not empty, no NaN). In fp32, each operation rounded:
//! range = max - min; scale = fp16(range / 15); zero = fp16((-15 * min) / range); code = half-to-even of (x /
//! scale + zero), limited to [0, 15]. A constant row follows constant_zero_point_row(). So does a row whose
//! scale rounds to 0 or whose zero point overflows fp16 (a range too small beside the numbers themselves);
//! its one value is min / 2 + max / 2. A row with min = 0 has the zero point -0.
[[nodiscard]] inline zero_point_row qserve_kv4_row(std::span<double const> x) {
  assert(!x.empty());
  double smallest = x[0];
  double largest = x[0];
  for (double const value : x) {
    assert(to_fp32(value) == value);
    smallest = value < smallest ? value : smallest;
    largest = value > largest ? value : largest;
  }
  if (smallest == largest) { return constant_zero_point_row(smallest, x.size()); }

  zero_point_row row;
  double const range = to_fp32(largest - smallest);
  row.scale = to_fp16(to_fp32(range / 15.0));
  row.zero = to_fp16(to_fp32(to_fp32(-15.0 * smallest) / range));
  if (row.scale == 0.0 || !std::isfinite(row.zero)) {
    return constant_zero_point_row(to_fp32(smallest / 2.0 + largest / 2.0), x.size());
  }
  for (double const value : x) {
    int const code = code_half_even(to_fp32(to_fp32(value / row.scale) + row.zero), 15);
    row.codes.push_back(code);
    row.xhat.push_back((static_cast<double>(code) - row.zero) * row.scale);
  }
  return row;
}

}  // namespace kvcrumb::inline v0::reference
