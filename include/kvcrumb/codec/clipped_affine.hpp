// SPDX-License-Identifier: Apache-2.0
//! @file Uniform codes of a range that was multiplied by a clip factor, with e4m3 parameters (SKVQ).
#pragma once

#include "kvcrumb/codec/concept.hpp"

namespace kvcrumb::inline v0 {

//! What codes are computed against: the parameters as they are read back, or (as published) those before they
//! were rounded to e4m3.
enum class code_basis : std::uint8_t { stored, unrounded };

//! Parameters of one group: as stored, and as codes see them.
struct clipped_params {
  float scale = 0.0f, minimum = 0.0f;
  float code_scale = 0.0f, code_minimum = 0.0f;
};

//! Uniform codes 0 to Levels of a range that was multiplied by a clip factor (arXiv 2405.06219, "clipped
//! dynamic quantization"): lo = clip min, hi = clip max, scale = max((hi - lo) / Levels, 1e-5), code =
//! half_even((x - lo) / scale) limited to [0, Levels], x_hat = e4m3(scale) code + e4m3(lo). Parameters
//! saturate at 448; a scale below 2^-10 is stored as 0. NaN or infinity in the group: NaN parameters.
template <int Levels, code_basis Basis>
struct clipped_affine {
  static clipped_params fit(range_statistics s, float clip) noexcept {
    if (!s.finite) {
      float const nan = poisoned_params().value[0];
      return {nan, nan, nan, nan};
    }
    float const low = add_rn(mul_rn(s.low, clip), 0.0f);  // -0 becomes +0
    float const step = div_rn(sub_rn(add_rn(mul_rn(s.high, clip), 0.0f), low), static_cast<float>(Levels));
    float const scale = step < 1e-5f ? 1e-5f : step;
    float const stored_scale = to_float(from_float_saturate<float8_e4m3>(scale));
    float const stored_low = to_float(from_float_saturate<float8_e4m3>(low));
    if constexpr (Basis == code_basis::stored) return {stored_scale, stored_low, stored_scale, stored_low};
    return {stored_scale, stored_low, scale, low};
  }
  static unsigned encode(float x, clipped_params const& p) noexcept {
    if (!is_positive_bits(p.code_scale)) return 0u;  // constant group, or NaN parameters
    float const t = div_rn(sub_rn(x, p.code_minimum), p.code_scale);
    if (!is_positive_bits(t)) return 0u;
    if (t >= static_cast<float>(Levels)) return static_cast<unsigned>(Levels);
    return static_cast<unsigned>(round_half_even(t));
  }
  static float decode(unsigned code, float scale, float minimum) noexcept {
    return add_rn(mul_rn(scale, static_cast<float>(code)), minimum);
  }
};

}  // namespace kvcrumb::inline v0
