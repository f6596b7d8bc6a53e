// SPDX-License-Identifier: Apache-2.0
//! @file storage_float: conversions between float and the types of stored parameters and exact values.
//!
//! Every function is exact to the bit for every input, denormals included, on host and device and under any
//! floating-point flag or mode: only integer steps are used, and on a device the conversion instructions of
//! binary16, which no flag changes. Cost: about ten integer operations (a device: four), no table, no memory
//! access; loops over them vectorize where the machine has per-lane shifts.
#pragma once

#include <concepts>
#include <type_traits>

#include "kvcrumb/numeric/bfloat16.hpp"
#include "kvcrumb/numeric/float16.hpp"
#include "kvcrumb/numeric/float8.hpp"
#include "kvcrumb/numeric/float_bits.hpp"

namespace kvcrumb::inline v0 {

//! A type that can be stored: float, float16, bfloat16 or float8_e4m3.
template <class T>
concept storage_float = std::same_as<T, float> || std::same_as<T, float16> || std::same_as<T, bfloat16> ||
    std::same_as<T, float8_e4m3>;

//! An element of rows that are read: a stored float, const or not.
template <class T>
concept row_element = storage_float<std::remove_const_t<T>>;

//! Constants of IEEE 754 binary32, magnitudes without the sign bit.
template <>
struct float_format<float> {
  using bits_type = std::uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr int bias = 127;
  static constexpr std::uint32_t sign_bit = 0x80000000u;
  static constexpr std::uint32_t max_finite_bits = 0x7F7FFFFFu;
  static constexpr std::uint32_t overflow_bits = 0x7F800000u;
  static constexpr std::uint32_t lowest_nan_bits = 0x7F800001u;
  static constexpr std::uint32_t quiet_nan_bits = 0x7FC00000u;

  //! The value itself.
  [[nodiscard]] static KVCRUMB_API constexpr float widen(float x) noexcept { return x; }
};

//! The stored pattern of x.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr std::uint32_t stored_bits(T x) noexcept {
  if constexpr (std::same_as<T, float>) {
    return float_bits(x);
  } else {
    return x.bits;
  }
}

//! The value with this stored pattern; bits beyond its size are ignored.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T stored_from_bits(std::uint32_t bits) noexcept {
  if constexpr (std::same_as<T, float>) {
    return float_from_bits(bits);
  } else {
    return T{static_cast<typename float_format<T>::bits_type>(bits)};
  }
}

namespace detail {

//! The pattern of x in T; magnitudes above `limit` become `limit`, a NaN the quiet NaN of the same sign.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T narrow(float x, magnitude_rounding rounding,
                                             std::uint32_t limit) noexcept {
  using format = float_format<T>;
  std::uint32_t const magnitude = float_bits(x) & 0x7FFFFFFFu;
  std::uint32_t const sign = (float_bits(x) >> 31) != 0u ? format::sign_bit : 0u;
  std::uint32_t rounded = magnitude;
#if defined(__CUDA_ARCH__)
  if constexpr (std::same_as<T, float16>) {
    if (!__builtin_is_constant_evaluated() && rounding == magnitude_rounding::half_even) {
      std::uint16_t half;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
      bool const nan = magnitude > 0x7F800000u;
      if (limit >= format::overflow_bits)
        return {nan ? static_cast<std::uint16_t>(sign | format::quiet_nan_bits) : half};
      rounded = half & 0x7FFFu;
      std::uint32_t const limited = rounded < limit ? rounded : limit;
      return stored_from_bits<T>(sign | (nan ? format::quiet_nan_bits : limited));
    }
  }
#endif
  if constexpr (!std::same_as<T, float>) {
    rounded = narrow_magnitude<format::mantissa_bits, format::bias>(magnitude, rounding);
  }
  std::uint32_t const limited = rounded < limit ? rounded : limit;
  return stored_from_bits<T>(sign | (magnitude > 0x7F800000u ? format::quiet_nan_bits : limited));
}

}  // namespace detail

//! The value of x. Exact; infinities and NaN stay what they are, with their sign.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr float to_float(T x) noexcept {
  return float_format<T>::widen(x);
}

//! The T nearest to x, ties to the even mantissa. Overflow gives infinity (E4M3: NaN), a NaN the quiet NaN of
//! the same sign (float16 0x7E00, bfloat16 0x7FC0, float 0x7FC00000, E4M3 0x7F).
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T from_float(float x) noexcept {
  return detail::narrow<T>(x, detail::magnitude_rounding::half_even, float_format<T>::overflow_bits);
}

//! As from_float, but what would overflow, infinities included, gives the largest finite value of the same
//! sign.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T from_float_saturate(float x) noexcept {
  return detail::narrow<T>(x, detail::magnitude_rounding::half_even, float_format<T>::max_finite_bits);
}

//! The largest finite T that is not above x; the most negative finite T if there is none, so that the result
//! is always finite. A NaN gives a NaN as in from_float. The sign of x is kept: -0 gives -0.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T from_float_down(float x) noexcept {
  bool const negative = (float_bits(x) >> 31) != 0u;
  return detail::narrow<T>(
      x, negative ? detail::magnitude_rounding::away_from_zero : detail::magnitude_rounding::toward_zero,
      float_format<T>::max_finite_bits);
}

//! The smallest finite T that is not below x; the largest finite T if there is none, so that the result is
//! always finite. A NaN gives a NaN as in from_float. The sign of x is kept: a tiny negative x gives -0.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr T from_float_up(float x) noexcept {
  bool const negative = (float_bits(x) >> 31) != 0u;
  return detail::narrow<T>(
      x, negative ? detail::magnitude_rounding::toward_zero : detail::magnitude_rounding::away_from_zero,
      float_format<T>::max_finite_bits);
}

//! True for every NaN pattern of T, also where the compiler assumes that there are none.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr bool is_nan(T x) noexcept {
  return (stored_bits(x) & (float_format<T>::sign_bit - 1u)) >= float_format<T>::lowest_nan_bits;
}

//! True for everything but infinities and NaN.
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr bool is_finite(T x) noexcept {
  return (stored_bits(x) & (float_format<T>::sign_bit - 1u)) <= float_format<T>::max_finite_bits;
}

//! The largest finite value of T.
template <storage_float T>
inline constexpr float max_finite =
    float_format<T>::widen(stored_from_bits<T>(float_format<T>::max_finite_bits));

//! The name of T in scheme names and file headers: "f32", "f16", "bf16" or "e4m3".
template <storage_float T>
[[nodiscard]] KVCRUMB_API constexpr char const* storage_name() noexcept {
  if constexpr (std::same_as<T, float>) {
    return "f32";
  } else if constexpr (std::same_as<T, float16>) {
    return "f16";
  } else if constexpr (std::same_as<T, bfloat16>) {
    return "bf16";
  } else {
    return "e4m3";
  }
}

//! The value of another stored type nearest to x; the same bits where the types are equal.
template <storage_float To, storage_float From>
[[nodiscard]] KVCRUMB_API constexpr To convert(From x) noexcept {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else {
    return from_float<To>(to_float(x));
  }
}

}  // namespace kvcrumb::inline v0
