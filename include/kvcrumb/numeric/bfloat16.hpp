// SPDX-License-Identifier: Apache-2.0
//! @file bfloat16: the upper half of a binary32 as it is stored, without arithmetic.
#pragma once

#include "kvcrumb/numeric/float_bits.hpp"

namespace kvcrumb::inline v0 {

//! bfloat16: 1 sign bit, 8 exponent bits (bias 127), 7 mantissa bits; 2 bytes, the layout of `__nv_bfloat16`.
//! Equality compares patterns: +0 and -0 differ, a NaN equals itself.
struct bfloat16 {
  std::uint16_t bits;
  friend constexpr bool operator==(bfloat16, bfloat16) noexcept = default;
};

//! Constants of bfloat16, magnitudes without the sign bit.
template <>
struct float_format<bfloat16> {
  using bits_type = std::uint16_t;
  static constexpr int mantissa_bits = 7;
  static constexpr int bias = 127;
  static constexpr std::uint32_t sign_bit = 0x8000u;
  static constexpr std::uint32_t max_finite_bits = 0x7F7Fu;  //!< (2 - 2^-7) * 2^127, about 3.39e38
  static constexpr std::uint32_t overflow_bits = 0x7F80u;    //!< what overflow gives: infinity
  static constexpr std::uint32_t lowest_nan_bits = 0x7F81u;  //!< every magnitude from here on is a NaN
  static constexpr std::uint32_t quiet_nan_bits = 0x7FC0u;   //!< the NaN that conversions write

  //! The value as a float. Exact; infinities and NaN keep sign and payload.
  [[nodiscard]] static KVCRUMB_API constexpr float widen(bfloat16 x) noexcept {
    return float_from_bits(static_cast<std::uint32_t>(x.bits) << 16);
  }
};

static_assert(sizeof(bfloat16) == 2 && alignof(bfloat16) == 2);

}  // namespace kvcrumb::inline v0
