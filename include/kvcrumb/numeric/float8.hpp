// SPDX-License-Identifier: Apache-2.0
//! @file float8: the 8-bit floating point format E4M3 as it is stored, without arithmetic.
#pragma once

#include "kvcrumb/numeric/float_bits.hpp"

namespace kvcrumb::inline v0 {

//! E4M3 of the OCP 8-bit Floating Point Specification 1.0 (called E4M3FN elsewhere): 1 sign bit, 4 exponent
//! bits (bias 7), 3 mantissa bits; largest value 448, no infinity, one NaN per sign (0x7F, 0xFF); 1 byte, the
//! layout of `__nv_fp8_e4m3`. Equality compares patterns: +0 and -0 differ, a NaN equals itself.
struct float8_e4m3 {
  std::uint8_t bits;
  friend constexpr bool operator==(float8_e4m3, float8_e4m3) noexcept = default;
};

//! Constants of E4M3, magnitudes without the sign bit.
template <>
struct float_format<float8_e4m3> {
  using bits_type = std::uint8_t;
  static constexpr int mantissa_bits = 3;
  static constexpr int bias = 7;
  static constexpr std::uint32_t sign_bit = 0x80u;
  static constexpr std::uint32_t max_finite_bits = 0x7Eu;  //!< 448
  static constexpr std::uint32_t overflow_bits = 0x7Fu;    //!< what overflow gives: NaN
  static constexpr std::uint32_t lowest_nan_bits = 0x7Fu;  //!< every magnitude from here on is a NaN
  static constexpr std::uint32_t quiet_nan_bits = 0x7Fu;   //!< the NaN that conversions write

  //! The value as a float. Exact; a NaN becomes the quiet NaN of the same sign.
  [[nodiscard]] static KVCRUMB_API constexpr float widen(float8_e4m3 x) noexcept {
    std::uint32_t const magnitude = x.bits & 0x7Fu;
    std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x80u) << 24;
    std::uint32_t const finite = detail::widen_magnitude<mantissa_bits, bias>(magnitude);
    return float_from_bits(sign | (magnitude > max_finite_bits ? 0x7FC00000u : finite));
  }
};

static_assert(sizeof(float8_e4m3) == 1);

}  // namespace kvcrumb::inline v0
