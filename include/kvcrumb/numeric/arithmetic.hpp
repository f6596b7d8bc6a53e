// SPDX-License-Identifier: Apache-2.0
//! @file arithmetic: float operations of exactly one IEEE rounding each, for bytes that are equal everywhere.
//!
//! A compiler may fuse a product with a sum, replace a division by a reciprocal or reorder sums, by default
//! (g++ with FMA) or when asked to (fast-math). Every step that decides a stored byte goes through these
//! functions instead of the operators. On the host the operands and the result are hidden from the optimizer
//! where it could do any of that; the price is that such loops are not vectorized there. On the device they
//! are PTX instructions with an explicit rounding, which neither `--fmad` nor `--use_fast_math` touches.
//!
//! Requires on the host: the default rounding mode, and flush-to-zero and denormals-are-zero off, for add_rn,
//! sub_rn, mul_rn, div_rn and fma_rn to be right where an operand or the result is denormal. g++ and clang++
//! switch both modes on at program start when `-ffast-math` is given *at link time*. All other functions here
//! work on integers and depend on no mode at all. A NaN result is some NaN: its sign and payload are those of
//! the machine.
#pragma once

#include "kvcrumb/numeric/float_bits.hpp"

#if !defined(__GNUC__) && !defined(__CUDA_ARCH__)
#include <cmath>
#endif

namespace kvcrumb::inline v0 {

namespace detail {

//! x, unknown to the optimizer.
[[nodiscard]] KVCRUMB_API float hidden(float x) noexcept {
  KVCRUMB_OPAQUE(x);
  return x;
}

//! x, unknown to the optimizer at run time.
[[nodiscard]] KVCRUMB_API constexpr double hidden_step(double x) noexcept {
  if (!__builtin_is_constant_evaluated()) KVCRUMB_OPAQUE(x);
  return x;
}

//! a * b + c without a fused instruction: the sum in double rounded to odd, which makes the second rounding
//! harmless (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Computers
//! 57(4), 2008).
[[nodiscard]] KVCRUMB_API constexpr float fused_in_double(float a, float b, float c) noexcept {
  double const product = hidden_step(static_cast<double>(a) * static_cast<double>(b));  // exact: 48 bits
  double const addend = hidden_step(static_cast<double>(c));
  double const sum = hidden_step(product + addend);
  std::uint64_t bits = __builtin_bit_cast(std::uint64_t, sum);
  if (((bits >> 52) & 0x7FFu) == 0x7FFu) return static_cast<float>(sum);  // infinity or NaN among a, b, c
  double const part = hidden_step(sum - product);
  double const missed = hidden_step(product - hidden_step(sum - part));
  double const error = hidden_step(missed + hidden_step(addend - part));  // exact (Knuth's two-sum)
  if (error != 0.0 && (bits & 1u) == 0u) {
    bits += (error > 0.0) == (sum > 0.0) ? 1u : ~std::uint64_t{0};
  }
  return static_cast<float>(hidden_step(__builtin_bit_cast(double, bits)));
}

//! x rounded to an integral value by a rule for its magnitude; the sign is kept.
[[nodiscard]] KVCRUMB_API constexpr float round_to_integral(float x, magnitude_rounding rounding) noexcept {
  std::uint32_t const bits = float_bits(x);
  std::uint32_t const exponent = (bits >> 23) & 0xFFu;
  std::uint32_t const significand = (bits & 0x007FFFFFu) | 0x00800000u;
  // x = significand * 2^(exponent - 150); from 2^23 on everything is integral, below 2^-2 everything rounds
  // to 0.
  std::uint32_t const wanted = exponent < 150u ? 150u - exponent : 1u;
  std::uint32_t const integer = shift_right_rounded(significand, wanted < 25u ? wanted : 25u, rounding);
  std::uint32_t const rounded = float_bits(static_cast<float>(static_cast<std::int32_t>(integer)));
  return float_from_bits(exponent < 150u ? (bits & 0x80000000u) | rounded : bits);
}

//! Patterns as signed integers in the order of the values, -0 before +0.
[[nodiscard]] KVCRUMB_API constexpr std::int32_t ordered_key(float x) noexcept {
  std::uint32_t const bits = float_bits(x);
  return static_cast<std::int32_t>(bits ^ ((bits >> 31) != 0u ? 0x7FFFFFFFu : 0u));
}

}  // namespace detail

//! a + b, rounded once to nearest even.
[[nodiscard]] KVCRUMB_API constexpr float add_rn(float a, float b) noexcept {
  if (__builtin_is_constant_evaluated()) return a + b;
#if defined(__CUDA_ARCH__)
  float r;
  asm("add.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return detail::hidden(detail::hidden(a) + detail::hidden(b));
#endif
}

//! a - b, rounded once to nearest even.
[[nodiscard]] KVCRUMB_API constexpr float sub_rn(float a, float b) noexcept {
  if (__builtin_is_constant_evaluated()) return a - b;
#if defined(__CUDA_ARCH__)
  float r;
  asm("sub.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return detail::hidden(detail::hidden(a) - detail::hidden(b));
#endif
}

//! a * b, rounded once to nearest even.
[[nodiscard]] KVCRUMB_API constexpr float mul_rn(float a, float b) noexcept {
  if (__builtin_is_constant_evaluated()) return a * b;
#if defined(__CUDA_ARCH__)
  float r;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return detail::hidden(detail::hidden(a) * detail::hidden(b));
#endif
}

//! a / b, rounded once to nearest even; never a product with a reciprocal. A zero divisor gives an infinity
//! or NaN as IEEE 754 says (in constant evaluation: a compile error).
[[nodiscard]] KVCRUMB_API constexpr float div_rn(float a, float b) noexcept {
  if (__builtin_is_constant_evaluated()) return a / b;
#if defined(__CUDA_ARCH__)
  float r;
  asm("div.rn.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#elif defined(__FAST_MATH__) || defined(__RECIPROCAL_MATH__)
  // In double, where no machine has an estimate that -mrecip could use (observed with g++ 12.2 and clang++
  // 14). The second rounding is harmless: 53 >= 2 * 24 + 2.
  double numerator = static_cast<double>(a);
  double denominator = static_cast<double>(b);
  KVCRUMB_OPAQUE(numerator);
  KVCRUMB_OPAQUE(denominator);
  double quotient = numerator / denominator;
  KVCRUMB_OPAQUE(quotient);
  return detail::hidden(static_cast<float>(quotient));
#else
  return detail::hidden(detail::hidden(a) / detail::hidden(b));
#endif
}

//! a * b + c, rounded once to nearest even. Cost: one instruction with FMA hardware, else a call of the C
//! library (clang++ and fast-math: a dozen double operations).
[[nodiscard]] KVCRUMB_API constexpr float fma_rn(float a, float b, float c) noexcept {
  if (__builtin_is_constant_evaluated()) return detail::fused_in_double(a, b, c);
#if defined(__CUDA_ARCH__)
  float r;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
#elif (defined(__clang__) || defined(__FAST_MATH__)) && !defined(__FMA__) && !defined(__FMA4__) && \
    !defined(__ARM_FEATURE_FMA)
  // Without FMA hardware, clang++ 14 makes a product and a sum of the builtin under -ffast-math and under
  // flags such as -funsafe-math-optimizations, which it announces by no macro.
  return detail::hidden(detail::fused_in_double(a, b, c));
#elif defined(__GNUC__)
  return detail::hidden(__builtin_fmaf(detail::hidden(a), detail::hidden(b), detail::hidden(c)));
#else
  return detail::hidden(std::fma(a, b, c));
#endif
}

//! The integral value nearest to x, halves to the even one: 0.5 -> 0, 1.5 -> 2, -2.5 -> -2. The sign is kept
//! (-0.3 -> -0); infinities and NaN are returned unchanged. Independent of the rounding mode.
[[nodiscard]] KVCRUMB_API constexpr float round_half_even(float x) noexcept {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) {
    float r;
    asm("cvt.rni.f32.f32 %0, %1;" : "=f"(r) : "f"(x));
    return is_nan_bits(x) ? x : r;
  }
#endif
  return detail::round_to_integral(x, detail::magnitude_rounding::half_even);
}

//! As round_half_even, but halves towards +infinity: 0.5 -> 1, -0.5 -> -0, -1.5 -> -1. This is floor(x + 1/2)
//! of the exact sum; the usual floor(x + 0.5f) in float differs for x = 0.5 - 2^-25 only, where its sum is
//! rounded up to 1.
[[nodiscard]] KVCRUMB_API constexpr float round_half_up(float x) noexcept {
  return detail::round_to_integral(x, (float_bits(x) >> 31) != 0u
                                          ? detail::magnitude_rounding::half_toward_zero
                                          : detail::magnitude_rounding::half_away);
}

//! As round_half_even, but halves away from zero: 0.5 -> 1, -0.5 -> -1; the rule of C's roundf.
[[nodiscard]] KVCRUMB_API constexpr float round_half_away(float x) noexcept {
  return detail::round_to_integral(x, detail::magnitude_rounding::half_away);
}

//! |x|: the sign bit cleared, of a NaN too.
[[nodiscard]] KVCRUMB_API constexpr float absolute(float x) noexcept {
  return float_from_bits(float_bits(x) & 0x7FFFFFFFu);
}

//! The smaller and the larger of two numbers. Which of two zeros, and what if one is a NaN, depends on the
//! machine: a device has one instruction for each.
[[nodiscard]] KVCRUMB_API constexpr float lesser(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) return fminf(a, b);
#endif
  return b < a ? b : a;
}
[[nodiscard]] KVCRUMB_API constexpr float greater(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) return fmaxf(a, b);
#endif
  return b > a ? b : a;
}

//! The smaller of a and b, -0 below +0. If either is a NaN the result is the quiet NaN 0x7FC00000, so that a
//! minimum over many values is a NaN exactly if one of them is, in any order (IEEE 754-2019 `minimum`).
[[nodiscard]] KVCRUMB_API constexpr float minimum(float a, float b) noexcept {
  float const smaller = detail::ordered_key(b) < detail::ordered_key(a) ? b : a;
  return is_nan_bits(a) || is_nan_bits(b) ? float_from_bits(0x7FC00000u) : smaller;
}

//! The larger of a and b, +0 above -0. If either is a NaN the result is the quiet NaN 0x7FC00000 (IEEE
//! 754-2019 `maximum`).
[[nodiscard]] KVCRUMB_API constexpr float maximum(float a, float b) noexcept {
  float const larger = detail::ordered_key(a) < detail::ordered_key(b) ? b : a;
  return is_nan_bits(a) || is_nan_bits(b) ? float_from_bits(0x7FC00000u) : larger;
}

}  // namespace kvcrumb::inline v0
