// SPDX-License-Identifier: Apache-2.0
//! @file Asymmetric uniform codes with a scale and a minimum or zero point, in the conventions of the
//! literature.
#pragma once

#include "kvcrumb/codec/concept.hpp"

namespace kvcrumb::inline v0 {

//! How a quotient becomes a code.
enum class rounding : std::uint8_t {
  half_even,   //!< IEEE round to nearest, ties to even (KIVI, SKVQ, QServe)
  half_up,     //!< floor(x + 0.5) (Kitty, vLLM-TurboQuant values)
  half_away,   //!< round(), ties away from zero (BitDecoding)
  floor_cell,  //!< floor; decodes to the middle of the cell and divides the range by 2^bits (PolarQuant
               //!< "MidRise")
};

//! What the second parameter is.
enum class zero_form : std::uint8_t {
  minimum,        //!< the smallest value of the group: x_hat = code * scale + minimum
  point,          //!< the unrounded zero point in code units: x_hat = (code - point) * scale (QServe)
  point_rounded,  //!< the zero point rounded to an integer (RotateKV, OScaR)
};

//! Precision of every operation between input and code.
enum class arithmetic : std::uint8_t {
  binary32,
  binary16,  //!< each operation rounded to fp16, as PyTorch does on fp16 tensors (KIVI)
};

//! How parameters are rounded to their storage type.
enum class param_rounding : std::uint8_t {
  nearest,
  outward,  //!< minimum down, scale up: minimum + levels * scale still reaches the maximum
};

//! Least scale; without a floor a group of range zero has scale 0, code 0 and decodes to its minimum.
enum class scale_floor : std::uint8_t { none, e5, e6, e8 };  //!< 1e-5 (SKVQ), 1e-6 (Kitty), 1e-8 (vLLM)

//! Form of the division before rounding.
enum class quotient : std::uint8_t {
  divide,       //!< (x - minimum) / scale
  range_first,  //!< (x - minimum) * levels / range, with the range as unrounded maximum - minimum
                //!< (BitDecoding)
};

//! A convention of the affine codec (docs/numerics.md lists the published ones). Structural: a template
//! argument.
struct affine_options {
  rounding round = rounding::half_even;
  zero_form zero = zero_form::minimum;
  arithmetic precision = arithmetic::binary32;
  param_rounding params = param_rounding::outward;
  scale_floor floor = scale_floor::none;
  quotient division = quotient::divide;
};

//! Uniform codes of 1 to 8 bits: code = round((x - minimum) / scale) in [0, 2^Bits - 1].
//!
//! Parameters saturate at the largest finite value of Param. A group with a NaN or an infinity gets NaN
//! parameters. With a zero point, a group whose zero point Param cannot hold (|point| > its largest value, or
//! a scale that rounds to 0) is stored as the constant of its largest magnitude: error at most the range of
//! the group.
template <int Bits, storage_float Param = float16, affine_options Options = affine_options{}>
struct affine {
  static_assert(Bits >= 1 && Bits <= 8, "kvcrumb::affine: Bits must be in [1, 8]");
  static_assert(Options.precision == arithmetic::binary32 || std::same_as<Param, float16>,
                "kvcrumb::affine: binary16 arithmetic needs float16 parameters");
  static_assert(Options.precision == arithmetic::binary32 || Options.params == param_rounding::nearest,
                "kvcrumb::affine: binary16 arithmetic rounds parameters to nearest");

  static constexpr char const* name = "affine";
  static constexpr int bits = Bits;
  static constexpr int planes = 2;
  static constexpr int levels = (1 << Bits) - 1;
  static constexpr affine_options options = Options;
  using param_type = Param;
  using statistics = range_statistics;
  static constexpr bool associative = true;  //!< merge is exact however neighbours are grouped

  static constexpr void describe(description& d) noexcept {
    constexpr char const* rounds[] = {"half_even", "half_up", "half_away", "floor_cell"};
    constexpr char const* zeros[] = {"minimum", "point", "point_rounded"};
    constexpr char const* floors[] = {"", ",floor1e-5", ",floor1e-6", ",floor1e-8"};
    d << name << bits << "(" << zeros[static_cast<int>(Options.zero)] << ","
      << rounds[static_cast<int>(Options.round)] << "," << storage_name<Param>()
      << (Options.precision == arithmetic::binary16 ? ",binary16" : "")
      << (Options.params == param_rounding::outward ? ",outward" : ",nearest")
      << floors[static_cast<int>(Options.floor)]
      << (Options.division == quotient::range_first ? ",range_first" : "") << ")";
  }

  KVCRUMB_API statistics lift(float x) const noexcept { return range_statistics::of(x); }
  KVCRUMB_API static statistics merge(statistics a, statistics b) noexcept {
    return range_statistics::merged(a, b);
  }

  //! Rounded parameters of a group of n values.
  KVCRUMB_API group_params fit(statistics s, int /*n*/) const noexcept {
    if (!s.finite) return poisoned_params();
    s.low = add_rn(s.low, 0.0f);  // -0 becomes +0: the sign of zero would depend on order and fast-math flags
    s.high = add_rn(s.high, 0.0f);
    float const cells = static_cast<float>(Options.round == rounding::floor_cell ? levels + 1 : levels);
    if constexpr (Options.zero == zero_form::minimum) {
      float const minimum = Options.params == param_rounding::outward
                                ? to_float(from_float_down<Param>(s.low))
                                : to_float(from_float_saturate<Param>(s.low));
      float const base = Options.params == param_rounding::outward ? minimum : s.low;
      float const range = step(sub_rn(step(s.high), step(base)));
      float const quotient_ = step(div_rn(range, cells));
      return {{floored(stored_scale(quotient_)), minimum}, range};
    } else {
      float const range = sub_rn(s.high, s.low);
      float const scale = floored(stored_scale(div_rn(range, cells)));
      float point = div_rn(mul_rn(-static_cast<float>(levels), s.low), range);
      if constexpr (Options.zero == zero_form::point_rounded) point = round_half_even(point);
      float const largest = max_finite<Param>;
      if (!is_positive_bits(scale) || !is_finite_bits(point) || point > largest || point < -largest)
        return constant(s);
      return {{scale, to_float(from_float<Param>(point))}, range};
    }
  }

  KVCRUMB_API unsigned encode(float x, group_params const& p) const noexcept {
    float const scale = p.value[0];
    if (!is_positive_bits(scale)) return 0u;  // constant group, or NaN parameters
    float t;
    if constexpr (Options.zero != zero_form::minimum) {
      t = add_rn(div_rn(x, scale), p.value[1]);
    } else if constexpr (Options.division == quotient::range_first) {
      t = p.work > 0.0f ? div_rn(mul_rn(sub_rn(x, p.value[1]), static_cast<float>(levels)), p.work) : 0.0f;
    } else {
      float const above = step(sub_rn(step(x), p.value[1]));
      // Every group has its minimum: a device divides by its short sequence only where no lane's is zero.
      if (!is_positive_bits(above)) return 0u;
      t = step(div_rn(above, scale));
    }
    float const top = static_cast<float>(levels);
    if (!is_positive_bits(t)) return 0u;
    if (t >= top) return static_cast<unsigned>(levels);
    return round_to_code(t);
  }

  KVCRUMB_API float unit(unsigned code) const noexcept { return static_cast<float>(code); }

  KVCRUMB_API linear_params linear(group_params const& p) const noexcept {
    float const scale = p.value[0];
    if constexpr (Options.zero != zero_form::minimum) {
      return {scale, -mul_rn(p.value[1], scale)};
    } else if constexpr (Options.round == rounding::floor_cell) {
      return {scale, add_rn(p.value[1], mul_rn(0.5f, scale))};
    } else {
      return {scale, p.value[1]};
    }
  }

 private:
  KVCRUMB_API static float step(float x) noexcept {
    if constexpr (Options.precision == arithmetic::binary16) {
      return to_float(from_float_saturate<float16>(x));
    } else {
      return x;
    }
  }
  KVCRUMB_API static float stored_scale(float x) noexcept {
    return Options.params == param_rounding::outward ? to_float(from_float_up<Param>(x))
                                                     : to_float(from_float_saturate<Param>(x));
  }
  KVCRUMB_API static float floored(float scale) noexcept {
    if constexpr (Options.floor == scale_floor::none) {
      return scale;
    } else {
      float const least = Options.floor == scale_floor::e5   ? 1e-5f
                          : Options.floor == scale_floor::e6 ? 1e-6f
                                                             : 1e-8f;
      return scale < least ? to_float(from_float_up<Param>(least)) : scale;
    }
  }
  //! The code of 0 < t < levels, which no rule rounds above `levels`.
  KVCRUMB_API static unsigned round_to_code(float t) noexcept {
    if constexpr (Options.round ==
                  rounding::half_even) {  // the sum has units of 1: its low bits are the code
      return float_bits(add_rn(t, 12582912.0f)) & 0xFFu;
    } else if constexpr (Options.round == rounding::half_up) {
      return static_cast<unsigned>(round_half_up(t));
    } else if constexpr (Options.round == rounding::half_away) {
      return static_cast<unsigned>(round_half_away(t));
    } else {
      return static_cast<unsigned>(t);
    }
  }
  //! A group that a scale and a zero point cannot express: (code - point) * scale = the value of largest
  //! magnitude.
  KVCRUMB_API static group_params constant(statistics s) noexcept {
    float const value = -s.low > s.high ? s.low : s.high;
    float const magnitude = to_float(from_float_saturate<Param>(absolute(value)));
    return {{magnitude, value < 0.0f ? 1.0f : 0.0f}, 0.0f};
  }
};

//! KIVI's `quant_and_pack_*cache` on fp16 tensors (github.com/jy-yuan/KIVI quant/new_pack.py), minus its 0/0.
inline constexpr affine_options kivi_convention{.precision = arithmetic::binary16,
                                                .params = param_rounding::nearest};
//! SKVQ: floor 1e-5. Kitty: half up, floor 1e-6. vLLM-TurboQuant values: half up, floor 1e-8.
inline constexpr affine_options skvq_convention{.params = param_rounding::nearest, .floor = scale_floor::e5};
inline constexpr affine_options kitty_convention{
    .round = rounding::half_up, .params = param_rounding::nearest, .floor = scale_floor::e6};
inline constexpr affine_options vllm_convention{
    .round = rounding::half_up, .params = param_rounding::nearest, .floor = scale_floor::e8};
//! BitDecoding (csrc/bit_decode/src/include/qpack.h).
inline constexpr affine_options bitdecoding_convention{
    .round = rounding::half_away, .params = param_rounding::nearest, .division = quotient::range_first};
//! QServe KV4/KV8 (arXiv 2405.04532); RotateKV and OScaR round the zero point.
inline constexpr affine_options qserve_convention{.zero = zero_form::point,
                                                  .params = param_rounding::nearest};
inline constexpr affine_options rotatekv_convention{.zero = zero_form::point_rounded,
                                                    .params = param_rounding::nearest};
//! PolarQuant keys (arXiv 2502.00527).
inline constexpr affine_options midrise_convention{.round = rounding::floor_cell,
                                                   .params = param_rounding::nearest};

}  // namespace kvcrumb::inline v0
