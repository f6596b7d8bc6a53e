// SPDX-License-Identifier: Apache-2.0
//! @file float16: IEEE 754 binary16 as it is stored, without arithmetic.
#pragma once

#include "kvcrumb/numeric/float_bits.hpp"

namespace kvcrumb::inline v0 {

//! IEEE 754 binary16: 1 sign bit, 5 exponent bits (bias 15), 10 mantissa bits; 2 bytes, the layout of
//! `__half`. Equality compares patterns: +0 and -0 differ, a NaN equals itself.
struct float16 {
  std::uint16_t bits;
  friend constexpr bool operator==(float16, float16) noexcept = default;
};

//! Constants of binary16, magnitudes without the sign bit.
template <>
struct float_format<float16> {
  using bits_type = std::uint16_t;
  static constexpr int mantissa_bits = 10;
  static constexpr int bias = 15;
  static constexpr std::uint32_t sign_bit = 0x8000u;
  static constexpr std::uint32_t max_finite_bits = 0x7BFFu;  //!< 65504
  static constexpr std::uint32_t overflow_bits = 0x7C00u;    //!< what overflow gives: infinity
  static constexpr std::uint32_t lowest_nan_bits = 0x7C01u;  //!< every magnitude from here on is a NaN
  static constexpr std::uint32_t quiet_nan_bits = 0x7E00u;   //!< the NaN that conversions write

  //! The value as a float. Exact; infinities and NaN keep sign and payload.
  [[nodiscard]] static KVCRUMB_API constexpr float widen(float16 x) noexcept {
    std::uint32_t const magnitude = x.bits & 0x7FFFu;
    std::uint32_t const sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
      // A NaN may come back as another one.
      return magnitude > overflow_bits ? float_from_bits(sign | 0x7F800000u | ((magnitude & 0x03FFu) << 13))
                                       : value;
    }
#endif
    std::uint32_t const finite = detail::widen_magnitude<mantissa_bits, bias>(magnitude);
    std::uint32_t const special = 0x7F800000u | ((magnitude & 0x03FFu) << 13);
    return float_from_bits(sign | (magnitude > max_finite_bits ? special : finite));
  }
};

static_assert(sizeof(float16) == 2 && alignof(float16) == 2);

}  // namespace kvcrumb::inline v0
