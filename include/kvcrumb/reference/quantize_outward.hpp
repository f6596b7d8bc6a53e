// SPDX-License-Identifier: Apache-2.0
//! @file kvcrumb's own affine convention: parameters rounded outward so that the codes cover the group.
#pragma once

#include <cassert>
#include <cstddef>
#include <span>

#include "kvcrumb/reference/quantize_kivi.hpp"  // affine_group
#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::inline v0::reference {

//! Quantizes one group with parameters in `stored` (fp16 unless told otherwise).
//!
//! Requires fp32 numbers in `x` (not empty, no NaN). mn = smallest rounded down to `stored`. scale = (largest
//! - mn) / (2^bits - 1): the subtraction and the division round to nearest in fp32, the quotient then up to
//! `stored`. code = half-to-even of (x - mn) / scale, both operations in fp32, limited to [0, 2^bits - 1].
//! Scale 0: code 0. Both parameters saturate at the largest finite number of `stored`.
[[nodiscard]] inline affine_group outward_group(std::span<double const> x, int bits,
                                                float_format const& stored = fp16_format) {
  assert(!x.empty() && bits >= 1 && bits <= 8);
  int const top = (1 << bits) - 1;
  double smallest = x[0];
  double largest = x[0];
  for (double const value : x) {
    assert(to_fp32(value) == value);
    smallest = value < smallest ? value : smallest;
    largest = value > largest ? value : largest;
  }

  affine_group group;
  group.mn = round_to(stored, smallest, rounding::down).value;
  double const range = to_fp32(largest - group.mn);
  double const step = to_fp32(range / static_cast<double>(top));
  group.scale = round_to(stored, step, rounding::up).value;
  for (double const value : x) {
    int code = 0;
    if (group.scale > 0.0) {
      double const above_minimum = to_fp32(value - group.mn);
      code = code_half_even(to_fp32(above_minimum / group.scale), top);
    }
    group.codes.push_back(code);
    group.xhat.push_back(static_cast<double>(code) * group.scale + group.mn);
  }
  return group;
}

}  // namespace kvcrumb::inline v0::reference
