// SPDX-License-Identifier: Apache-2.0
//! @file Codes of two neighbouring fp16 values at once: what affine::encode gives, in few instructions.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::warp {

//! Range of fp16 values that come two in a word, of the low and the high halves apart. A NaN stays one.
struct half_range {
  std::uint32_t low = 0x7C007C00u, high = 0xFC00FC00u;  // infinity, -infinity

  KVCRUMB_DEVICE void add(std::uint32_t two) {
    low = ptx::min_half2(low, two);
    high = ptx::max_half2(high, two);
  }
  KVCRUMB_DEVICE void add(half_range const& r) {
    low = ptx::min_half2(low, r.low);
    high = ptx::max_half2(high, r.high);
  }
  //! Of one of the halves. An infinity or NaN among its values is the low or the high one.
  KVCRUMB_DEVICE range_statistics of(int half) const {
    float const a = half != 0 ? ptx::high_half(low) : ptx::low_half(low);
    float const b = half != 0 ? ptx::high_half(high) : ptx::low_half(high);
    return {a, b, is_finite_bits(a) && is_finite_bits(b)};
  }
  //! Of both.
  KVCRUMB_DEVICE range_statistics joined() const {
    half_range r = *this;
    r.add({ptx::permute_bytes(low, low, 0x1032u), ptx::permute_bytes(high, high, 0x1032u)});
    return r.of(0);
  }
};

//! 1 / s for a positive fp16 value s, to 1 + 2^-40 times half a unit of the last place.
KVCRUMB_DEVICE float inverse_of_half(float s) {
  float const r = ptx::reciprocal_approximate(s);
  return fma_rn(fma_rn(-s, r, 1.0f), r, r);
}

// How codes are computed from what is kept of a group, `factors`. encode(codec, x, a, b) is the code of the
// low half of x in group a, plus 2^16 times that of the high half in group b, plus `bias`, modulo 2^32.
//
// Quotients use an inverse r of the scale s that was divided by 2^Bits, so that results
// can be limited to [0, 1] by the instruction that computes them; that also gives 0 instead of a NaN, and
// groups without a positive scale get factors of zero. Powers of two aside, with e = 2^-24:

//! KIVI's arithmetic: every step rounded to fp16. With significands s, M in [1, 2), M the middle between two
//! fp16 values: n / s is not M, because an odd number of 12 bits times s has more than the 11 bits of n, and
//! differs from it by more than 8 e / (s M), relatively. The float n * r is off by at most e s / 2 for r and
//! e / M for its own rounding. s (s / 2 + 1 / M) M < 6: it lies on the same side of M and rounds to the fp16
//! value that n / s rounds to. Where that is subnormal after the division by 2^Bits, the code is 0 anyway.
//! A difference beyond fp16 is an infinity here and 65504 there; its code is the largest in both cases.
template <int Bits>
struct half_codes {
  struct alignas(8) factors {
    float offset, inverse;
  };
  static constexpr std::uint32_t one = 0x3C003C00u, power = 0x04000400u * Bits;
  static constexpr std::uint32_t units = 0x66006600u;  //!< 1536, whose last place is 1
  static constexpr std::uint32_t bias = units;
  //! (2^Bits - 1) / 2^Bits in both halves.
  static constexpr std::uint32_t top = 0x3C003C00u - 0x04000400u + 0x00010001u * (0x400u - (0x800u >> Bits));

  //! affine::fit: what is stored of a group, the scale in the low half, and its factors. The quotient by the
  //! number of levels is again a product, and being odd that number leaves no ties among subnormals either.
  KVCRUMB_DEVICE static std::uint32_t fit(range_statistics const& s, factors& f) {
    float const low = add_rn(s.low, 0.0f), range = add_rn(sub_rn(s.high, low), 0.0f);  // no -0
    float const limited = ptx::low_half(ptx::pack_half2(lesser(range, max_finite<float16>), 0.0f));
    constexpr float part = 1.0f / static_cast<float>((1 << Bits) - 1);
    std::uint32_t const stored = ptx::pack_half2(mul_rn(limited, part), low);
    float const scale = ptx::low_half(stored);
    bool const finite = is_finite_bits(range), positive = finite && scale > 0.0f;
    f = {positive ? low : 0.0f,
         positive ? mul_rn(inverse_of_half(scale), 1.0f / static_cast<float>(1 << Bits)) : 0.0f};
    return finite ? stored : float_format<float16>::quiet_nan_bits * 0x10001u;
  }
  template <class Codec>
  KVCRUMB_DEVICE static std::uint32_t encode(Codec const&, std::uint32_t x, factors a, factors b) {
    std::uint32_t const above = ptx::subtract_half2(x, ptx::pack_half2(a.offset, b.offset));
    std::uint32_t const t = ptx::pack_half2(ptx::multiply_saturated(ptx::low_half(above), a.inverse),
                                            ptx::multiply_saturated(ptx::high_half(above), b.inverse));
    return ptx::fma_half2(ptx::min_half2(t, top), one + power, units);
  }
};

//! Binary32 arithmetic with an fp16 scale s. The quotient of n (24 bits) and s (11 bits) is no middle M
//! between two floats, because an odd number of 25 bits times s has more bits than n, and differs from it by
//! more than 2^-36. The remainder n - s q of q = n * r is exact: it is a multiple of the product of the last
//! places of s and q and less than 2^13 times that. q + r (n - s q) is n / s but for 2^-46 and thus rounds as
//! n / s does. Nothing underflows: q >= 2^-48.
template <int Bits, affine_options Options>
struct float_codes {
  struct alignas(16) factors {
    float inverse, scale, offset, unused;
  };
  static constexpr bool point = Options.zero != zero_form::minimum;
  //! An outward scale is at least range / levels, unless it saturates (1 bit), so that no quotient exceeds
  //! levels by half a unit.
  static constexpr bool within = !point && Options.params == param_rounding::outward && Bits > 1;
  static constexpr float units = 12582912.0f / static_cast<float>(1 << Bits);  //!< its last place is 2^-Bits
  static constexpr std::uint32_t bias = float_bits(units) * 0x10001u;

  KVCRUMB_DEVICE static factors of(group_params const& p) {
    if (!is_positive_bits(p.value[0])) return {0.0f, 0.0f, 0.0f, 0.0f};
    float const power = static_cast<float>(1 << Bits), part = 1.0f / power;
    return {mul_rn(inverse_of_half(p.value[0]), part), mul_rn(p.value[0], power),
            point ? mul_rn(p.value[1], part) : p.value[1], 0.0f};
  }
  KVCRUMB_DEVICE static std::uint32_t one(float x, factors f) {
    float const n = point ? x : sub_rn(x, f.offset);
    float const q = mul_rn(n, f.inverse), rest = fma_rn(-f.scale, q, n);
    float t;
    if constexpr (point) {
      t = ptx::add_saturated(fma_rn(rest, f.inverse, q), f.offset);
    } else {
      t = ptx::fma_saturated(rest, f.inverse, q);
    }
    constexpr float top = 1.0f - 1.0f / static_cast<float>(1 << Bits);
    return float_bits(add_rn(within ? t : lesser(t, top), units));
  }
  template <class Codec>
  KVCRUMB_DEVICE static std::uint32_t encode(Codec const&, std::uint32_t x, factors a, factors b) {
    return one(ptx::low_half(x), a) + (one(ptx::high_half(x), b) << 16);
  }
};

//! Any other convention: by the codec itself.
struct plain_codes {
  struct alignas(16) factors {
    float value[2], work, unused;
  };
  static constexpr std::uint32_t bias = 0;

  KVCRUMB_DEVICE static factors of(group_params const& p) { return {{p.value[0], p.value[1]}, p.work, 0.0f}; }
  template <class Codec>
  KVCRUMB_DEVICE static std::uint32_t encode(Codec const& codec, std::uint32_t x, factors a, factors b) {
    group_params const low{{a.value[0], a.value[1]}, a.work}, high{{b.value[0], b.value[1]}, b.work};
    return codec.encode(ptx::low_half(x), low) + (codec.encode(ptx::high_half(x), high) << 16);
  }
};

//! Which of them a codec has, and whether ranges are all that it needs to know of its groups.
template <class Codec>
struct pair_codes_of {
  static constexpr bool from_ranges = false;
  using type = plain_codes;
};
template <int Bits, class Param, affine_options Options>
struct pair_codes_of<affine<Bits, Param, Options>> {
  static constexpr bool from_ranges = true;
  static constexpr bool short_form = std::same_as<Param, float16> && Options.round == rounding::half_even &&
                                     Options.division == quotient::divide;
  static constexpr bool halves = Options.precision == arithmetic::binary16;
  using type = std::conditional_t<
      short_form && halves && Options.zero == zero_form::minimum && Options.floor == scale_floor::none,
      half_codes<Bits>, std::conditional_t<short_form && !halves, float_codes<Bits, Options>, plain_codes>>;
};
template <class Codec>
using pair_codes = typename pair_codes_of<Codec>::type;

}  // namespace kvcrumb::inline v0::warp
