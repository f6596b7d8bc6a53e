// SPDX-License-Identifier: Apache-2.0
//! @file The stored float formats from their definitions, in double and by search; shares nothing with the
//! library but the struct types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kvcrumb/numeric/bfloat16.hpp"
#include "kvcrumb/numeric/float16.hpp"
#include "kvcrumb/numeric/float8.hpp"

namespace kvcrumb::test {

//! What the standards say: field widths, bias, and whether the top exponent is reserved for infinity and NaN.
template <class T>
struct definition;

template <>
struct definition<float16> {
  static constexpr int exponent_bits = 5, mantissa_bits = 10, bias = 15;
  static constexpr bool ieee_specials = true;
  static constexpr double max = 65504.0, smallest = 0x1p-24;
  static constexpr std::uint32_t quiet_nan = 0x7E00;
};
template <>
struct definition<bfloat16> {
  static constexpr int exponent_bits = 8, mantissa_bits = 7, bias = 127;
  static constexpr bool ieee_specials = true;
  static constexpr double max = 0x1.FEp127, smallest = 0x1p-133;
  static constexpr std::uint32_t quiet_nan = 0x7FC0;
};
template <>
struct definition<float8_e4m3> {
  static constexpr int exponent_bits = 4, mantissa_bits = 3, bias = 7;
  static constexpr bool ieee_specials = false;
  static constexpr double max = 448.0, smallest = 0x1p-9;
  static constexpr std::uint32_t quiet_nan = 0x7F;
};

enum class kind { finite, infinite, nan };

struct entry {
  kind what;
  double value;  //!< signed; of infinities and NaN only the sign counts
};

//! The value of one pattern, from sign, exponent and mantissa.
template <class T>
entry value_of(std::uint32_t pattern) {
  using def = definition<T>;
  std::uint32_t const mantissa = pattern % (1u << def::mantissa_bits);
  std::uint32_t const exponent = (pattern >> def::mantissa_bits) % (1u << def::exponent_bits);
  bool const negative = (pattern >> (def::mantissa_bits + def::exponent_bits)) % 2u != 0u;
  double const sign = negative ? -1.0 : 1.0;
  std::uint32_t const top = (1u << def::exponent_bits) - 1u;
  if (def::ieee_specials && exponent == top) return {mantissa == 0 ? kind::infinite : kind::nan, sign};
  if (!def::ieee_specials && exponent == top && mantissa == (1u << def::mantissa_bits) - 1u) {
    return {kind::nan, sign};
  }
  double const fraction = std::ldexp(static_cast<double>(mantissa), -def::mantissa_bits);
  double const magnitude = exponent == 0 ? std::ldexp(fraction, 1 - def::bias)
                                         : std::ldexp(1.0 + fraction, static_cast<int>(exponent) - def::bias);
  return {kind::finite, std::copysign(magnitude, sign)};
}

//! All finite magnitudes of T in rising order, with the pattern of each.
template <class T>
struct magnitude_table {
  struct row {
    double value;
    std::uint32_t pattern;
  };
  std::vector<row> rows;
  double beyond;  //!< the value that would follow the largest one if the exponent range went on
  std::uint32_t sign_bit;

  magnitude_table() : sign_bit{1u << (definition<T>::mantissa_bits + definition<T>::exponent_bits)} {
    for (std::uint32_t p = 0; p < sign_bit; ++p) {
      entry const e = value_of<T>(p);
      if (e.what == kind::finite) rows.push_back({e.value, p});
    }
    std::sort(rows.begin(), rows.end(), [](row const& a, row const& b) { return a.value < b.value; });
    beyond = rows.back().value + (rows.back().value - rows[rows.size() - 2].value);
  }

  std::uint32_t sign_of(float x) const { return std::signbit(x) ? sign_bit : 0u; }
  std::uint32_t nan_of(float x) const { return sign_of(x) | definition<T>::quiet_nan; }

  //! First row whose value is at least `magnitude`; rows.size() if there is none.
  std::size_t first_at_least(double magnitude) const {
    return static_cast<std::size_t>(std::lower_bound(rows.begin(), rows.end(), magnitude,
                                                     [](row const& r, double m) { return r.value < m; }) -
                                    rows.begin());
  }

  //! Nearest by distance; ties to the even pattern; `overflow` where the nearest would be `beyond` or more.
  std::uint32_t nearest(float x, std::uint32_t overflow) const {
    double const magnitude = std::fabs(static_cast<double>(x));
    std::size_t const above = first_at_least(magnitude);
    if (above < rows.size() && rows[above].value == magnitude) return sign_of(x) | rows[above].pattern;
    row const lower = rows[above - 1];
    bool const last = above == rows.size();
    double const upper_value = last ? beyond : rows[above].value;
    std::uint32_t const upper_pattern = last ? overflow : rows[above].pattern;
    double const to_lower = magnitude - lower.value;  // exact: at most 2^-24 relative to a 53-bit format
    double const to_upper = upper_value - magnitude;
    bool const take_lower = to_lower < to_upper || (to_lower == to_upper && lower.pattern % 2u == 0u);
    return sign_of(x) | (take_lower ? lower.pattern : upper_pattern);
  }

  std::uint32_t overflow_pattern() const {
    return definition<T>::ieee_specials ? (rows.back().pattern + 1u) : definition<T>::quiet_nan;
  }
  std::uint32_t max_pattern() const { return rows.back().pattern; }

  //! The directed roundings; `up` is the direction on the number line.
  std::uint32_t directed(float x, bool up) const {
    double const magnitude = std::fabs(static_cast<double>(x));
    std::size_t const at_least = first_at_least(magnitude);
    if (at_least == rows.size()) return sign_of(x) | max_pattern();
    bool const grow = up != std::signbit(x);
    bool const exact = rows[at_least].value == magnitude;
    return sign_of(x) | rows[exact || grow ? at_least : at_least - 1].pattern;
  }
};

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float with_bits(std::uint32_t bits) {
  float x = 0;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

//! Floats where a conversion to T can go wrong: every value, every midpoint between neighbours, one float
//! step to either side of both, the ends of the float range, and `random` random patterns of all exponents.
//! No NaN.
template <class T>
std::vector<float> hard_inputs(magnitude_table<T> const& table, std::size_t random) {
  std::vector<float> inputs;
  auto const around = [&](double value) {
    float const x = static_cast<float>(value);
    float const infinity = std::numeric_limits<float>::infinity();
    for (float y : {x, std::nextafter(x, infinity), std::nextafter(x, -infinity)}) {
      inputs.push_back(y);
      inputs.push_back(-y);
    }
  };
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    bool const last = i + 1 == table.rows.size();
    around(table.rows[i].value);
    around((table.rows[i].value + (last ? table.beyond : table.rows[i + 1].value)) / 2);
  }
  around(static_cast<double>(std::numeric_limits<float>::max()));
  around(static_cast<double>(std::numeric_limits<float>::min()));
  around(static_cast<double>(std::numeric_limits<float>::denorm_min()));
  std::mt19937 generator(20240607u);
  std::uint32_t const top = static_cast<std::uint32_t>(definition<T>::bias) + 130u;
  for (std::size_t i = 0; i < random; ++i) {
    std::uint32_t bits = static_cast<std::uint32_t>(generator());
    if (i % 2 != 0) {  // half of them near the range of T
      std::uint32_t const lowest = 127u - static_cast<std::uint32_t>(definition<T>::bias) - 1u;
      std::uint32_t const lower = lowest > 12u ? lowest - 12u : 0u;
      std::uint32_t const upper = top < 255u ? top : 255u;
      bits = (bits & 0x807FFFFFu) | ((lower + (bits >> 7) % (upper - lower)) << 23);
    }
    float const x = with_bits(bits);
    if (x == x) inputs.push_back(x);
  }
  return inputs;
}

}  // namespace kvcrumb::test
