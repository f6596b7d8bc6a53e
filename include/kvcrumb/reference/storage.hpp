// SPDX-License-Identifier: Apache-2.0
//! @file Rounds a double to a small floating-point format straight from the definition of the format.
//!
//! Everything in reference/ needs IEEE double arithmetic: do not compile it with -ffast-math.
#pragma once

#include <cassert>
#include <cmath>
#include <cstdint>
#include <limits>

namespace kvcrumb::inline v0::reference {

//! A binary floating-point format: one sign bit, `exponent_bits`, `mantissa_bits` (the leading 1 not
//! counted).
//!
//! A normal number is (1 + m / 2^mantissa_bits) * 2^(e - bias) with stored exponent e >= 1; the numbers with
//! e = 0 are multiples of the smallest step, 2^(1 - bias - mantissa_bits).
struct float_format {
  int exponent_bits = 0;
  int mantissa_bits = 0;
  int bias = 0;
  double max_finite = 0.0;
  bool has_infinity = true;  //!< false: too large a magnitude becomes NaN (OCP E4M3)

  [[nodiscard]] constexpr int lowest_exponent() const { return 1 - bias; }
};

inline constexpr float_format fp32_format{8, 23, 127, 0x1.fffffep127, true};
inline constexpr float_format fp16_format{5, 10, 15, 65504.0, true};
inline constexpr float_format bf16_format{8, 7, 127, 0x1.fep127, true};
inline constexpr float_format e4m3_format{4, 3, 7, 448.0, false};  //!< OCP E4M3 ("FN"): no infinity, one NaN

//! Direction of rounding. `down` and `up` saturate at -+max_finite, also for infinite input.
enum class rounding { nearest_even, down, up };

//! A rounded number, as its value and as the bit pattern of the format (right aligned).
struct rounded {
  double value = 0.0;
  std::uint32_t bits = 0;
};

//! Rounds `x` to `format`.
//!
//! NaN gives the quiet NaN of the format with the sign of `x` (fp32 0x7FC00000, fp16 0x7E00, bf16 0x7FC0,
//! e4m3 0x7F). With nearest_even, a magnitude that rounds past max_finite gives infinity, or NaN where the
//! format has none. Definition followed: find the exponent e with 2^e <= |x| < 2^(e+1), at least the lowest
//! one; the neighbours of x are the multiples of 2^(e - mantissa_bits) around it; choose one.
[[nodiscard]] inline rounded round_to(float_format const& format, double x,
                                      rounding mode = rounding::nearest_even) {
  double const infinity = std::numeric_limits<double>::infinity();
  bool const negative = std::signbit(x);
  double const sign = negative ? -1.0 : 1.0;
  std::uint32_t const one = 1;
  std::uint32_t const sign_bit = negative ? one << (format.exponent_bits + format.mantissa_bits) : 0u;
  std::uint32_t const all_exponent_bits = ((one << format.exponent_bits) - 1u) << format.mantissa_bits;
  std::uint32_t const nan_mantissa =
      format.has_infinity ? one << (format.mantissa_bits - 1)    // quiet bit
                          : (one << format.mantissa_bits) - 1u;  // all ones
  rounded const not_a_number{std::copysign(std::numeric_limits<double>::quiet_NaN(), sign),
                             sign_bit | all_exponent_bits | nan_mantissa};
  rounded const overflow =
      format.has_infinity ? rounded{sign * infinity, sign_bit | all_exponent_bits} : not_a_number;

  if (std::isnan(x)) { return not_a_number; }

  double magnitude = std::fabs(x);
  if (mode != rounding::nearest_even && magnitude > format.max_finite) {
    magnitude = format.max_finite;  // directed modes saturate
  }
  if (magnitude == infinity) { return overflow; }

  int exponent = format.lowest_exponent();
  while (std::ldexp(1.0, exponent + 1) <= magnitude) { ++exponent; }

  // magnitude = (count + rest) * step with an integer count and 0 <= rest < 1; all of it is exact in double.
  double const in_steps = std::ldexp(magnitude, format.mantissa_bits - exponent);
  double count = std::floor(in_steps);
  double const rest = in_steps - count;

  bool away_from_zero = false;
  switch (mode) {
    case rounding::nearest_even:
      away_from_zero = rest > 0.5 || (rest == 0.5 && std::fmod(count, 2.0) == 1.0);
      break;
    case rounding::down: away_from_zero = rest > 0.0 && negative; break;
    case rounding::up: away_from_zero = rest > 0.0 && !negative; break;
  }
  if (away_from_zero) { count += 1.0; }
  double const value = std::ldexp(count, exponent - format.mantissa_bits);
  if (value > format.max_finite) { return overflow; }

  // Bits: a count of 2^(mantissa_bits + 1) is the first number of the next binade.
  double const binade = std::ldexp(1.0, format.mantissa_bits);
  if (count == 2.0 * binade) {
    count = binade;
    ++exponent;
  }
  std::uint32_t bits = sign_bit;
  if (count >= binade) {  // normal
    bits |= static_cast<std::uint32_t>(exponent + format.bias) << format.mantissa_bits;
    bits |= static_cast<std::uint32_t>(count - binade);
  } else {  // subnormal or zero
    bits |= static_cast<std::uint32_t>(count);
  }
  return {sign * value, bits};
}

//! The value of a bit pattern of `format`; the inverse of round_to().bits.
[[nodiscard]] inline double value_of(float_format const& format, std::uint32_t bits) {
  std::uint32_t const mantissa = bits & ((std::uint32_t{1} << format.mantissa_bits) - 1u);
  std::uint32_t const top_exponent = (std::uint32_t{1} << format.exponent_bits) - 1u;
  std::uint32_t const exponent = (bits >> format.mantissa_bits) & top_exponent;
  double const sign = ((bits >> (format.exponent_bits + format.mantissa_bits)) & 1u) != 0u ? -1.0 : 1.0;
  double const nan = std::copysign(std::numeric_limits<double>::quiet_NaN(), sign);

  if (format.has_infinity && exponent == top_exponent) {
    return mantissa == 0u ? sign * std::numeric_limits<double>::infinity() : nan;
  }
  double const fraction = std::ldexp(static_cast<double>(mantissa), -format.mantissa_bits);
  double const magnitude = exponent == 0u
                               ? std::ldexp(fraction, format.lowest_exponent())
                               : std::ldexp(1.0 + fraction, static_cast<int>(exponent) - format.bias);
  return magnitude > format.max_finite ? nan : sign * magnitude;
}

//! Shorthands: round to nearest even, as a value.
[[nodiscard]] inline double to_fp32(double x) { return round_to(fp32_format, x).value; }
[[nodiscard]] inline double to_fp16(double x) { return round_to(fp16_format, x).value; }
[[nodiscard]] inline double to_bf16(double x) { return round_to(bf16_format, x).value; }
[[nodiscard]] inline double to_e4m3(double x) { return round_to(e4m3_format, x).value; }

//! Shorthands: round to nearest even, as bits.
[[nodiscard]] inline std::uint16_t fp16_bits(double x) {
  return static_cast<std::uint16_t>(round_to(fp16_format, x).bits);
}
[[nodiscard]] inline std::uint16_t bf16_bits(double x) {
  return static_cast<std::uint16_t>(round_to(bf16_format, x).bits);
}
[[nodiscard]] inline std::uint8_t e4m3_bits(double x) {
  return static_cast<std::uint8_t>(round_to(e4m3_format, x).bits);
}

// Arithmetic of a small format: do one operation in double and round the result to the format. For + - * / on
// operands that are already in fp32 (or narrower) the two roundings give the same number as one would,
// because double has more than twice as many significand bits as fp32 plus two.

//! Integer nearest to `x`, ties to the even one, independent of the rounding mode of the machine.
[[nodiscard]] inline double round_half_even(double x) {
  double const below = std::floor(x);
  double const rest = x - below;
  if (rest < 0.5) { return below; }
  if (rest > 0.5) { return below + 1.0; }
  return std::fmod(below, 2.0) == 0.0 ? below : below + 1.0;
}

//! Integer nearest to `x`, ties away from zero.
[[nodiscard]] inline double round_half_away(double x) {
  double const magnitude = std::fabs(x);
  double const below = std::floor(magnitude);
  double const nearest = magnitude - below < 0.5 ? below : below + 1.0;
  return std::copysign(nearest, x);
}

//! `x` limited to [0, top] and rounded half to even, as a code; NaN gives code 0.
[[nodiscard]] inline int code_half_even(double x, int top) {
  assert(top >= 0);
  if (std::isnan(x) || x <= 0.0) { return 0; }
  if (x >= static_cast<double>(top)) { return top; }
  return static_cast<int>(round_half_even(x));
}

}  // namespace kvcrumb::inline v0::reference
