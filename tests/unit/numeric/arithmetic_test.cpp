// SPDX-License-Identifier: Apache-2.0
#include "kvcrumb/numeric/arithmetic.hpp"

#include <array>
#include <cmath>
#include <limits>

#include "format_table.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;
using kvcrumb::test::bits_of;
using kvcrumb::test::with_bits;

namespace {

//! Same pattern, or both NaN.
bool same(float a, float b) { return bits_of(a) == bits_of(b) || (std::isnan(a) && std::isnan(b)); }

//! Operand triples: special values in all combinations, then random patterns, then random values of similar
//! size.
template <class Check>
void for_operands(Check check) {
  std::array<std::uint32_t, 14> const magnitudes{
      0u,          1u,          0x00400000u, 0x007FFFFFu, 0x00800000u, 0x33800000u, 0x3EAAAAABu,
      0x3F7FFFFFu, 0x3F800000u, 0x3F800001u, 0x4B7FFFFFu, 0x7F7FFFFFu, 0x7F800000u, 0x7FC00000u};
  std::vector<float> special;
  for (std::uint32_t const m : magnitudes) {
    special.push_back(with_bits(m));
    special.push_back(with_bits(m | 0x80000000u));
  }
  for (float const a : special) {
    for (float const b : special) {
      for (float const c : special)
        check(a, b, c);
    }
  }
  std::mt19937 generator(99u);
  auto const random = [&] { return static_cast<std::uint32_t>(generator()); };
  for (int i = 0; i < 300000; ++i)
    check(with_bits(random()), with_bits(random()), with_bits(random()));
  auto const near_one = [&] { return with_bits((random() & 0x83FFFFFFu) + 0x3D000000u); };
  for (int i = 0; i < 300000; ++i)
    check(near_one(), near_one(), near_one());
  // products and quotients in the denormal range
  auto const small = [&] { return with_bits((random() & 0x83FFFFFFu) + 0x1D000000u); };
  for (int i = 0; i < 300000; ++i)
    check(small(), small(), with_bits(random() & 0x80FFFFFFu));
}

}  // namespace

// A float product is exact in double, and for sum and quotient the second rounding is harmless (53 >= 2 * 24
// + 2); the quotient is formed in long double, which has at least as many bits.
TEST_CASE("sum, difference, product and quotient are rounded once", "[numeric]") {
  std::size_t wrong = 0;
  for_operands([&](float a, float b, float) {
    double const x = static_cast<double>(a);
    double const y = static_cast<double>(b);
    bool const good = same(add_rn(a, b), static_cast<float>(x + y)) &&
                      same(sub_rn(a, b), static_cast<float>(x - y)) &&
                      same(mul_rn(a, b), static_cast<float>(x * y));
    if (!good && wrong++ == 0) UNSCOPED_INFO("first at " << bits_of(a) << ", " << bits_of(b));
    if (b == 0.0f) return;
    float const quotient = static_cast<float>(static_cast<long double>(a) / static_cast<long double>(b));
    if (!same(div_rn(a, b), quotient) && wrong++ == 0) {
      UNSCOPED_INFO("first quotient at " << bits_of(a) << ", " << bits_of(b));
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("division by zero gives what IEEE 754 says", "[numeric]") {
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(div_rn(1.0f, 0.0f) == infinity);
  CHECK(div_rn(-1.0f, 0.0f) == -infinity);
  CHECK(div_rn(1.0f, -0.0f) == -infinity);
  CHECK(std::isnan(div_rn(0.0f, 0.0f)));
}

TEST_CASE("fused multiply-add is rounded once", "[numeric]") {
  std::size_t wrong = 0;
  for_operands([&](float a, float b, float c) {
    if (!same(fma_rn(a, b, c), std::fma(a, b, c)) && wrong++ == 0) {
      UNSCOPED_INFO("first at " << bits_of(a) << ", " << bits_of(b) << ", " << bits_of(c));
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("fused multiply-add without a fused instruction gives the same", "[numeric]") {
  std::size_t wrong = 0;
  for_operands([&](float a, float b, float c) {
    if (!same(detail::fused_in_double(a, b, c), std::fma(a, b, c)) && wrong++ == 0) {
      UNSCOPED_INFO("first at " << bits_of(a) << ", " << bits_of(b) << ", " << bits_of(c));
    }
  });
  CHECK(wrong == 0);
  // (1 + 2^-23) (2^-24 - 2^-47) = 2^-24 - 2^-70: with these addends the sum lies 2^-70 beside a tie of
  // floats, and a sum rounded to double first lands on the tie.
  for (float const sign : {1.0f, -1.0f}) {
    for (int k = 0; k < 64; ++k) {
      float const a = sign * 0x1.000002p0f;
      float const b = 0x1.FFFFFCp-25f;
      for (float const c :
           {1.0f + static_cast<float>(k) * 0x1p-23f, -1.0f - static_cast<float>(k) * 0x1p-23f}) {
        CAPTURE(a, b, c);
        CHECK(same(detail::fused_in_double(a, b, c), std::fma(a, b, c)));
        CHECK(same(fma_rn(a, b, c), std::fma(a, b, c)));
      }
    }
  }
  STATIC_REQUIRE(fma_rn(0x1.000002p0f, 0x1.FFFFFCp-25f, 0x1.000002p0f) == 0x1.000002p0f);
  STATIC_REQUIRE(fma_rn(-0x1.000002p0f, 0x1.FFFFFCp-25f, 0x1.000002p0f) == 0x1.000002p0f);
  STATIC_REQUIRE(fma_rn(0x1.000002p0f, 0x1p-24f, 1.0f) == 0x1.000002p0f);
  STATIC_REQUIRE(fma_rn(0x1p-24f, 1.0f, 1.0f) == 1.0f);
}

TEST_CASE("a product is rounded before it is added", "[numeric]") {
  float const a = 0x1.001p0f;  // a * a = 1 + 2^-11 + 2^-24, a tie
  CHECK(add_rn(mul_rn(a, a), -0x1.002p0f) == 0.0f);
  CHECK(fma_rn(a, a, -0x1.002p0f) == 0x1p-24f);
  STATIC_REQUIRE(add_rn(mul_rn(0x1.001p0f, 0x1.001p0f), -0x1.002p0f) == 0.0f);
  STATIC_REQUIRE(sub_rn(1.0f, 0.25f) == 0.75f);
  STATIC_REQUIRE(div_rn(1.0f, 3.0f) == 1.0f / 3.0f);
}

TEST_CASE("roundings to integral values agree with the C library", "[numeric]") {
  std::vector<float> inputs;
  auto const around = [&](float x) {
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const y : {x, std::nextafter(x, infinity), std::nextafter(x, -infinity)}) {
      inputs.push_back(y);
      inputs.push_back(-y);
    }
  };
  for (int k = 0; k <= 4096; ++k)
    around(static_cast<float>(k) / 4.0f);
  for (int e = -149; e <= 127; ++e)
    around(std::ldexp(1.0f, e));
  for (int k = -40; k <= 40; ++k) {
    for (float const base : {0x1p21f, 0x1p22f, 0x1p23f, 0x1p24f})
      around(base + static_cast<float>(k) * 0.25f);
  }
  inputs.push_back(std::numeric_limits<float>::infinity());
  inputs.push_back(-std::numeric_limits<float>::infinity());
  std::mt19937 generator(5u);
  for (int i = 0; i < 500000; ++i) {
    std::uint32_t const bits = static_cast<std::uint32_t>(generator());
    float const x = with_bits(bits);
    if (x == x) inputs.push_back(x);
    inputs.push_back(with_bits((bits & 0x8FFFFFFFu) % 0x0F000000u + 0x3D000000u));  // 2^-5 up to 2^25
    inputs.push_back(-inputs.back());
  }
  std::size_t wrong = 0;
  for (float const x : inputs) {
    float const half_up = static_cast<float>(std::floor(static_cast<double>(x) + 0.5));
    bool const good = same(round_half_even(x), std::nearbyint(x)) &&
                      same(round_half_away(x), std::round(x)) &&
                      same(round_half_up(x), std::copysign(half_up, x));
    if (!good && wrong++ == 0) UNSCOPED_INFO("first at " << x << " (bits " << bits_of(x) << ")");
  }
  CHECK(wrong == 0);
}

TEST_CASE("halves go where the name says", "[numeric]") {
  STATIC_REQUIRE(round_half_even(0.5f) == 0.0f);
  STATIC_REQUIRE(round_half_even(1.5f) == 2.0f);
  STATIC_REQUIRE(round_half_even(-2.5f) == -2.0f);
  STATIC_REQUIRE(round_half_up(0.5f) == 1.0f);
  STATIC_REQUIRE(round_half_up(-1.5f) == -1.0f);
  STATIC_REQUIRE(round_half_up(0x1.FFFFFEp-2f) == 0.0f);
  STATIC_REQUIRE(round_half_away(0.5f) == 1.0f);
  STATIC_REQUIRE(round_half_away(-2.5f) == -3.0f);
  STATIC_REQUIRE(float_bits(round_half_even(-0.3f)) == 0x80000000u);
  STATIC_REQUIRE(float_bits(round_half_up(-0.5f)) == 0x80000000u);
  STATIC_REQUIRE(float_bits(round_half_away(-0.3f)) == 0x80000000u);
  for (std::uint32_t const nan : {0x7FC00000u, 0xFFC12345u, 0x7F800001u}) {
    CHECK(is_nan_bits(round_half_even(with_bits(nan))));
    CHECK(is_nan_bits(round_half_up(with_bits(nan))));
    CHECK(is_nan_bits(round_half_away(with_bits(nan))));
  }
}

TEST_CASE("NaN and finite values are told apart by their bits", "[numeric]") {
  for (std::uint32_t const sign : {0u, 0x80000000u}) {
    CAPTURE(sign);
    CHECK(!is_nan_bits(with_bits(sign | 0x7F800000u)));
    CHECK(is_nan_bits(with_bits(sign | 0x7F800001u)));
    CHECK(is_nan_bits(with_bits(sign | 0x7FFFFFFFu)));
    CHECK(!is_nan_bits(with_bits(sign)));
    CHECK(is_finite_bits(with_bits(sign | 0x7F7FFFFFu)));
    CHECK(is_finite_bits(with_bits(sign | 1u)));
    CHECK(!is_finite_bits(with_bits(sign | 0x7F800000u)));
    CHECK(!is_finite_bits(with_bits(sign | 0x7FC00000u)));
  }
}

TEST_CASE("absolute, minimum and maximum order all values and let a NaN through", "[numeric]") {
  std::size_t wrong = 0;
  for_operands([&](float a, float b, float) {
    bool good = bits_of(absolute(a)) == (bits_of(a) & 0x7FFFFFFFu);
    float const low = minimum(a, b);
    float const high = maximum(a, b);
    if (std::isnan(a) || std::isnan(b)) {
      good = good && bits_of(low) == 0x7FC00000u && bits_of(high) == 0x7FC00000u;
    } else if (a == b) {  // equal or zeros of any sign
      bool const negative_low = std::signbit(a) || std::signbit(b);
      bool const negative_high = std::signbit(a) && std::signbit(b);
      good = good && low == a && high == a && std::signbit(low) == negative_low &&
             std::signbit(high) == negative_high;
    } else {
      good = good && same(low, a < b ? a : b) && same(high, a < b ? b : a);
    }
    wrong += good ? 0u : 1u;
  });
  CHECK(wrong == 0);
  STATIC_REQUIRE(minimum(1.0f, -2.0f) == -2.0f);
  STATIC_REQUIRE(maximum(1.0f, -2.0f) == 1.0f);
  STATIC_REQUIRE(absolute(-2.0f) == 2.0f);
}
