// SPDX-License-Identifier: Apache-2.0
//! @file The short formulas of encode kernels against the codec that they stand for, value by value.
#include <cmath>

#include "unit/simt/simt_tools.hpp"
// after the emulator
#include "kvcrumb/warp/pair_codes.cuh"

using namespace kvcrumb;

namespace {

float half(std::uint32_t bits) { return to_float(float16{static_cast<std::uint16_t>(bits)}); }
std::uint32_t half_bits(float x) { return from_float<float16>(x).bits; }

//! A generator with the same numbers everywhere.
struct numbers {
  std::uint32_t state;
  std::uint32_t next() {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
  }
};

template <int Bits>
using kivi = affine<Bits, float16, kivi_convention>;
template <int Bits>
using qserve = affine<Bits, float16, qserve_convention>;

//! Codes of x and y in groups a and b by both; 1 if they differ.
template <class Codec>
int differ(Codec const& codec, std::uint32_t x, std::uint32_t y, group_params const& a,
           group_params const& b) {
  using codes = warp::pair_codes<Codec>;
  auto const factors = [](group_params const& p) {
    if constexpr (requires { codes::of(p); }) {
      return codes::of(p);
    } else {
      return typename codes::factors{};
    }
  };
  std::uint32_t const got = codes::encode(codec, x | y << 16, factors(a), factors(b)) - codes::bias;
  return got == (codec.encode(half(x), a) | codec.encode(half(y), b) << 16) ? 0 : 1;
}

//! What a kernel keeps of a group with this range, and what the codec says.
template <int Bits>
int fits_differ(range_statistics const& s) {
  typename warp::half_codes<Bits>::factors f{};
  std::uint32_t const got = warp::half_codes<Bits>::fit(s, f);
  group_params const p = kivi<Bits>{}.fit(s, 1);
  std::uint32_t const expected = from_float<float16>(p.value[0]).bits |
                                 static_cast<std::uint32_t>(from_float<float16>(p.value[1]).bits) << 16;
  bool const positive = is_positive_bits(p.value[0]);
  float const inverse = positive ? std::ldexp(1.0f / p.value[0], -Bits) : 0.0f;
  bool const near = std::fabs(f.inverse - inverse) <= 0x1p-23f * inverse;
  return got == expected && near && f.offset == (positive ? p.value[1] : 0.0f) ? 0 : 1;
}

template <int Bits>
int fit_errors() {
  int wrong = 0;
  for (std::uint32_t h = 0; h <= 0x7C01u; ++h) {  // every range, infinity and a NaN
    float const high = half(h);
    wrong += fits_differ<Bits>({0.0f, high, is_finite_bits(high)});
    wrong += fits_differ<Bits>({-high, -0.0f, is_finite_bits(high)});
  }
  numbers random{static_cast<std::uint32_t>(Bits)};
  for (int i = 0; i < 20000; ++i) {
    float const a = half(random.next() & 0xFFFFu), b = half(random.next() & 0xFFFFu);
    if (is_nan_bits(a) || is_nan_bits(b)) continue;
    wrong += fits_differ<Bits>({a < b ? a : b, a < b ? b : a, is_finite_bits(a) && is_finite_bits(b)});
  }
  return wrong;
}

//! Every significand of the scale with every difference up to 2^Bits scales, by Step.
template <int Bits>
int quotient_errors(std::uint32_t step) {
  kivi<Bits> const codec;
  int wrong = 0;
  for (std::uint32_t s = 0x3C00u; s<0x4000u; s += Bits> 4 ? 7 : 1) {
    group_params const p{{half(s), 0.0f}, 0.0f};
    std::uint32_t const first = half_bits(0.25f), last = half_bits(half(s) * static_cast<float>(1 << Bits));
    using codes = warp::half_codes<Bits>;
    typename codes::factors const f{0.0f, warp::inverse_of_half(half(s)) / static_cast<float>(1 << Bits)};
    for (std::uint32_t n = first + s % step; n <= last; n += 2 * step) {
      std::uint32_t const got = codes::encode(codec, n | (n + step) << 16, f, f) - codes::bias;
      wrong += got == (codec.encode(half(n), p) | codec.encode(half(n + step), p) << 16) ? 0 : 1;
    }
  }
  return wrong;
}

//! Groups of random ranges of all sizes, with values close to where the code changes.
template <class Codec>
int group_errors(unsigned seed) {
  constexpr int levels = Codec::levels;
  Codec const codec;
  numbers random{seed};
  int wrong = 0;
  for (int i = 0; i < 4000; ++i) {
    std::uint32_t const exponent = random.next() % 31u << 10, spread = random.next() % 12u << 10;
    std::uint32_t const a = exponent | (random.next() & 0x83FFu);
    std::uint32_t const b = (exponent >= spread ? exponent - spread : 0u) | (random.next() & 0x83FFu);
    float const x = half(a), y = half(b);
    range_statistics const s{x < y ? x : y, x < y ? y : x, true};
    group_params const p = codec.fit(s, 2);
    std::uint32_t last = a;
    for (int j = 0; j < 40; ++j) {
      int const code = static_cast<int>(random.next() % static_cast<unsigned>(levels + 1));
      float const middle = decode(codec, static_cast<unsigned>(code), p) + 0.5f * p.value[0];
      float const limited = middle < s.low ? s.low : middle > s.high ? s.high : middle;
      std::uint32_t bits = half_bits(limited);
      if (j % 3 == 1)
        bits = half_bits(s.low + (s.high - s.low) * static_cast<float>(random.next() % 1024u) / 1023.0f);
      if (half(bits) < s.low || half(bits) > s.high) bits = a;
      using codes = warp::pair_codes<Codec>;
      if constexpr (requires { codes::of(p); }) {
        wrong += differ(codec, bits, last, p, p);
      } else {
        typename codes::factors f{};
        codes::fit(s, f);
        std::uint32_t const got = codes::encode(codec, bits | last << 16, f, f) - codes::bias;
        wrong += got == (codec.encode(half(bits), p) | codec.encode(half(last), p) << 16) ? 0 : 1;
      }
      last = bits;
    }
  }
  return wrong;
}

}  // namespace

TEST_CASE("pair codes: parameters of KIVI's groups are those of the codec", "[simt]") {
  CHECK(fit_errors<1>() == 0);
  CHECK(fit_errors<2>() == 0);
  CHECK(fit_errors<3>() == 0);
  CHECK(fit_errors<4>() == 0);
  CHECK(fit_errors<5>() == 0);
  CHECK(fit_errors<6>() == 0);
  CHECK(fit_errors<7>() == 0);
  CHECK(fit_errors<8>() == 0);
}

TEST_CASE("pair codes: one product gives the fp16 quotient of every two significands", "[simt]") {
  CHECK(quotient_errors<2>(1) == 0);
  CHECK(quotient_errors<4>(5) == 0);
  CHECK(quotient_errors<8>(3) == 0);
}

TEST_CASE("pair codes: values near the middle between two codes", "[simt]") {
  CHECK(group_errors<kivi<1>>(1) == 0);
  CHECK(group_errors<kivi<2>>(2) == 0);
  CHECK(group_errors<kivi<8>>(3) == 0);
  CHECK(group_errors<affine<1>>(4) == 0);
  CHECK(group_errors<affine<2>>(5) == 0);
  CHECK(group_errors<affine<4>>(6) == 0);
  CHECK(group_errors<affine<8>>(7) == 0);
  CHECK(group_errors<affine<4, float16, skvq_convention>>(8) == 0);
  CHECK(group_errors<qserve<4>>(9) == 0);
  CHECK(group_errors<qserve<8>>(10) == 0);
  CHECK(group_errors<affine<4, float16, rotatekv_convention>>(11) == 0);
  CHECK(group_errors<affine<4, float16, kitty_convention>>(12) == 0);
}

TEST_CASE("pair codes: groups without a scale have code 0 whatever is in them", "[simt]") {
  std::uint32_t const special[] = {0u, 0x8000u, 0x7C00u, 0xFC00u, 0x7E00u, 0xFFFFu, 0x7BFFu, 0x0001u};
  int wrong = 0;
  for (std::uint32_t const x : special) {
    for (std::uint32_t const y : special) {
      using codes = warp::half_codes<2>;
      wrong += codes::encode(kivi<2>{}, x | y << 16, {}, {}) == codes::bias ? 0 : 1;
      wrong += differ(affine<4>{}, x, y, poisoned_params(), {});
      wrong += differ(qserve<4>{}, x, y, {}, poisoned_params());
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("half2 instructions: rounded once, NaN in the way of minima", "[simt]") {
  numbers random{77};
  int wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    std::uint32_t const a = random.next() & 0xFFFFu, b = random.next() & 0xFFFFu, c = random.next() & 0xFFFFu;
    float const x = half(a), y = half(b), z = half(c);
    auto const same = [](std::uint32_t got, std::uint32_t expected) {
      return got == expected || ((got & 0x7FFFu) > 0x7C00u && (expected & 0x7FFFu) > 0x7C00u);
    };
    // 24 >= 2 * 11 + 2 bits: rounding to float first cannot be seen in a difference.
    wrong += !same(ptx::subtract_half2(a | b << 16, b | a << 16) & 0xFFFFu, half_bits(x - y));
    bool const nan = std::isnan(x) || std::isnan(y);
    wrong += (ptx::min_half2(a, b) & 0xFFFFu) != (nan ? 0x7FFFu : half_bits(minimum(x, y)));
    wrong += (ptx::max_half2(a, b) & 0xFFFFu) != (nan ? 0x7FFFu : half_bits(maximum(x, y)));
    double const exact = static_cast<double>(x) * y + z;  // exact if the exponents are close
    if (std::isfinite(exact) &&
        std::fabs(std::log2(std::fabs(x * y) + 1e-9) - std::log2(std::fabs(z) + 1e-9)) < 20) {
      float const once = static_cast<float>(exact);
      if (static_cast<double>(once) == exact)
        wrong += !same(ptx::fma_half2(a, b, c) & 0xFFFFu, half_bits(once));
    }
  }
  CHECK(wrong == 0);
  CHECK(ptx::fma_half2(0x3C013C01u, 0x3C013C01u, 0x90001000u) == 0x3C023C03u);
  CHECK(ptx::fma_half2(0x3C01u, 0x3801u, 0x0C00u) == 0x3803u);  // above middles by 2^-21
  CHECK(ptx::fma_half2(0x3C01u, 0x3801u, 0x8C00u) == 0x3802u);
  CHECK(ptx::multiply_saturated(2.0f, 3.0f) == 1.0f);
  CHECK(ptx::add_saturated(-1.0f, 0.5f) == 0.0f);
  CHECK(ptx::fma_saturated(INFINITY, 0.0f, 1.0f) == 0.0f);
}
