// SPDX-License-Identifier: Apache-2.0
//! @file float_bits: binary32 as bits, and the integer steps that every conversion and rounding is made of.
//!
//! Only integers are used, so the results depend neither on the rounding mode, nor on flush-to-zero or
//! denormals-are-zero, nor on fast-math flags. `__builtin_bit_cast` instead of `std::bit_cast`: nvcc 13.0
//! takes the latter for a host function and generates wrong device code behind a warning.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! The IEEE binary32 pattern of x.
[[nodiscard]] KVCRUMB_API constexpr std::uint32_t float_bits(float x) noexcept {
  return __builtin_bit_cast(std::uint32_t, x);
}

//! The float whose IEEE binary32 pattern is `bits`.
[[nodiscard]] KVCRUMB_API constexpr float float_from_bits(std::uint32_t bits) noexcept {
  return __builtin_bit_cast(float, bits);
}

//! True for every NaN, quiet or signalling; also where the compiler assumes that there are none.
[[nodiscard]] KVCRUMB_API constexpr bool is_nan_bits(float x) noexcept {
  return (float_bits(x) & 0x7FFFFFFFu) > 0x7F800000u;
}

//! True for everything but infinities and NaN; also where the compiler assumes that there are only such
//! values.
[[nodiscard]] KVCRUMB_API constexpr bool is_finite_bits(float x) noexcept {
  return (float_bits(x) & 0x7FFFFFFFu) < 0x7F800000u;
}

//! True for x > 0, infinity included; false for zeros and every NaN, also where the compiler assumes that
//! there are none and turns `!(x > 0)` into `x <= 0`.
[[nodiscard]] KVCRUMB_API constexpr bool is_positive_bits(float x) noexcept {
  return float_bits(x) - 1u < 0x7F800000u;
}

//! The constants of a stored float type; defined for the four types of the concept `storage_float` only.
template <class T>
struct float_format;

namespace detail {

//! What happens to the magnitude when bits are dropped. The sign is handled by the caller.
enum class magnitude_rounding : std::uint8_t {
  half_even,
  half_away,
  half_toward_zero,
  toward_zero,
  away_from_zero
};

//! value / 2^shift, rounded to an integer. Requires shift in [1, 25] and value + 2^shift < 2^32.
[[nodiscard]] KVCRUMB_API constexpr std::uint32_t shift_right_rounded(std::uint32_t value,
                                                                      std::uint32_t shift,
                                                                      magnitude_rounding rounding) noexcept {
  std::uint32_t const half = 1u << (shift - 1u);
  std::uint32_t add = 0;
  switch (rounding) {
    case magnitude_rounding::half_even: add = half - 1u + ((value >> shift) & 1u); break;
    case magnitude_rounding::half_away: add = half; break;
    case magnitude_rounding::half_toward_zero: add = half - 1u; break;
    case magnitude_rounding::toward_zero: add = 0; break;
    case magnitude_rounding::away_from_zero: add = half + (half - 1u); break;
  }
  return (value + add) >> shift;
}

//! Magnitude pattern of a format with this mantissa width and exponent bias for the binary32 magnitude
//! pattern `magnitude` (sign bit clear). Denormals of the target come out by themselves. The exponent is not
//! limited: a result above the format's largest finite pattern means overflow, and infinities and NaN give
//! such a result too.
template <int MantissaBits, int Bias>
[[nodiscard]] KVCRUMB_API constexpr std::uint32_t narrow_magnitude(std::uint32_t magnitude,
                                                                   magnitude_rounding rounding) noexcept {
  static_assert(MantissaBits >= 1 && MantissaBits <= 22,
                "kvcrumb::narrow_magnitude: MantissaBits must be in [1, 22]");
  static_assert(Bias >= 1 && Bias <= 127, "kvcrumb::narrow_magnitude: Bias must be in [1, 127]");
  constexpr std::uint32_t dropped_bits = 23u - static_cast<std::uint32_t>(MantissaBits);
  constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - Bias) << 23;
  std::uint32_t const exponent = magnitude >> 23;
  // Above the smallest normal number of the target the pattern is shifted as a whole (a carry out of the
  // mantissa becomes the next exponent). Below it the significand is shifted to the fixed exponent of the
  // denormals.
  constexpr std::uint32_t lowest_exponent = static_cast<std::uint32_t>(128 - Bias);
  if (lowest_exponent == 1u || exponent >= lowest_exponent) {
    return shift_right_rounded(magnitude - rebias, dropped_bits, rounding);
  }
  std::uint32_t const significand = (magnitude & 0x007FFFFFu) | (exponent != 0u ? 0x00800000u : 0u);
  std::uint32_t const wanted = dropped_bits + (lowest_exponent - exponent);
  return shift_right_rounded(significand, wanted < 25u ? wanted : 25u, rounding);
}

//! Binary32 magnitude pattern of a finite magnitude pattern of a format narrower than binary32 in the
//! exponent. Exact.
template <int MantissaBits, int Bias>
[[nodiscard]] KVCRUMB_API constexpr std::uint32_t widen_magnitude(std::uint32_t magnitude) noexcept {
  static_assert(Bias >= 1 && Bias < 127, "kvcrumb::widen_magnitude: Bias must be in [1, 126]");
  constexpr std::uint32_t rebias = static_cast<std::uint32_t>(127 - Bias) << 23;
  std::uint32_t const normal = (magnitude << (23 - MantissaBits)) + rebias;
  // A denormal is its mantissa times 2^(1 - Bias - MantissaBits); the power is taken off in the exponent
  // field.
  constexpr std::uint32_t scale = static_cast<std::uint32_t>(Bias + MantissaBits - 1) << 23;
  std::uint32_t const integer = float_bits(static_cast<float>(static_cast<std::int32_t>(magnitude)));
  std::uint32_t const denormal = magnitude == 0u ? 0u : integer - scale;
  return (magnitude >> MantissaBits) == 0u ? denormal : normal;
}

}  // namespace detail

}  // namespace kvcrumb::inline v0
