// SPDX-License-Identifier: Apache-2.0
#include "kvcrumb/numeric/storage_float.hpp"

#include <string>
#include <type_traits>

#include "format_table.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;
using kvcrumb::test::bits_of;
using kvcrumb::test::definition;
using kvcrumb::test::kind;
using kvcrumb::test::magnitude_table;
using kvcrumb::test::with_bits;

namespace {

constexpr std::size_t random_inputs = 1000000;

template <class T>
T stored(std::uint32_t bits) {
  return T{static_cast<decltype(T::bits)>(bits)};
}

//! Compares `actual(x)` with `expected(x)` for all inputs; one assertion, which names the first difference.
template <class Actual, class Expected>
void require_equal_patterns(std::vector<float> const& inputs, Actual actual, Expected expected) {
  std::size_t differences = 0;
  for (float const x : inputs) {
    std::uint32_t const a = actual(x);
    std::uint32_t const e = expected(x);
    if (a != e && differences++ == 0) {
      UNSCOPED_INFO("first difference at " << x << " (bits " << bits_of(x) << "): " << a << ", expected "
                                           << e);
    }
  }
  REQUIRE(!inputs.empty());
  REQUIRE(differences == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("stored floats are bare patterns", "[numeric]", float16, bfloat16, float8_e4m3) {
  STATIC_REQUIRE(std::is_trivially_copyable_v<TestType>);
  STATIC_REQUIRE(std::is_standard_layout_v<TestType>);
  STATIC_REQUIRE(std::is_trivially_default_constructible_v<TestType>);
  STATIC_REQUIRE(std::is_aggregate_v<TestType>);
  STATIC_REQUIRE(sizeof(TestType) == sizeof(TestType::bits));
  STATIC_REQUIRE(storage_float<TestType>);
  CHECK(stored<TestType>(1) == stored<TestType>(1));
  CHECK(stored<TestType>(1) != stored<TestType>(2));
  std::uint32_t const sign = magnitude_table<TestType>{}.sign_bit;
  CHECK(stored<TestType>(0) != stored<TestType>(sign));  // patterns, not values
  CHECK(stored<TestType>(definition<TestType>::quiet_nan) ==
        stored<TestType>(definition<TestType>::quiet_nan));
}

TEMPLATE_TEST_CASE("every pattern widens to the value its format defines", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  std::uint32_t const patterns = 2u * magnitude_table<TestType>{}.sign_bit;
  REQUIRE(patterns == (sizeof(TestType) == 1 ? 256u : 65536u));
  std::uint32_t nans = 0;
  std::uint32_t infinities = 0;
  for (std::uint32_t p = 0; p < patterns; ++p) {
    test::entry const expected = test::value_of<TestType>(p);
    TestType const x = stored<TestType>(p);
    float const actual = to_float(x);
    bool good = std::signbit(actual) == std::signbit(expected.value);
    good =
        good && is_nan(x) == (expected.what == kind::nan) && is_finite(x) == (expected.what == kind::finite);
    switch (expected.what) {
      case kind::finite: good = good && static_cast<double>(actual) == expected.value; break;
      case kind::infinite:
        good = good && std::isinf(actual);
        ++infinities;
        break;
      case kind::nan:
        good = good && std::isnan(actual);
        ++nans;
        break;
    }
    if (!good) {
      CAPTURE(p, actual, expected.value);
      REQUIRE(good);
    }
  }
  CHECK(infinities == (definition<TestType>::ieee_specials ? 2u : 0u));
  CHECK(nans ==
        (definition<TestType>::ieee_specials ? 2u * ((1u << definition<TestType>::mantissa_bits) - 1u) : 2u));
}

TEMPLATE_TEST_CASE("every pattern but a NaN survives widening and narrowing", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  for (std::uint32_t p = 0; p < 2u * table.sign_bit; ++p) {
    TestType const x = stored<TestType>(p);
    float const value = to_float(x);
    std::uint32_t const sign = p & table.sign_bit;
    bool const nan = is_nan(x);
    std::uint32_t const kept = nan ? sign | definition<TestType>::quiet_nan : p;
    std::uint32_t const finite = nan || is_finite(x) ? kept : sign | table.max_pattern();
    bool const good =
        from_float<TestType>(value).bits == kept && from_float_saturate<TestType>(value).bits == finite &&
        from_float_down<TestType>(value).bits == finite && from_float_up<TestType>(value).bits == finite;
    if (!good) {
      CAPTURE(p, value);
      REQUIRE(good);
    }
  }
}

TEMPLATE_TEST_CASE("narrowing takes the nearest value, ties to even", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  require_equal_patterns(
      test::hard_inputs(table, random_inputs), [](float x) { return from_float<TestType>(x).bits; },
      [&](float x) { return table.nearest(x, table.overflow_pattern()); });
}

TEMPLATE_TEST_CASE("saturating narrowing takes the nearest finite value", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  require_equal_patterns(
      test::hard_inputs(table, random_inputs), [](float x) { return from_float_saturate<TestType>(x).bits; },
      [&](float x) { return table.nearest(x, table.max_pattern()); });
}

TEMPLATE_TEST_CASE("directed narrowing never crosses the input", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  std::vector<float> const inputs = test::hard_inputs(table, random_inputs);
  require_equal_patterns(
      inputs, [](float x) { return from_float_down<TestType>(x).bits; },
      [&](float x) { return table.directed(x, false); });
  require_equal_patterns(
      inputs, [](float x) { return from_float_up<TestType>(x).bits; },
      [&](float x) { return table.directed(x, true); });
  std::size_t wrong = 0;
  for (float const x : inputs) {
    if (std::fabs(x) > max_finite<TestType>) continue;
    bool const low = to_float(from_float_down<TestType>(x)) <= x;
    bool const high = to_float(from_float_up<TestType>(x)) >= x;
    wrong += low && high ? 0u : 1u;
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("zeros keep their sign and infinities saturate", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  std::uint32_t const sign = table.sign_bit;
  float const infinity = std::numeric_limits<float>::infinity();
  float const tiny = std::numeric_limits<float>::denorm_min();
  for (bool const negative : {false, true}) {
    CAPTURE(negative);
    std::uint32_t const s = negative ? sign : 0u;
    float const zero = negative ? -0.0f : 0.0f;
    CHECK(from_float<TestType>(zero).bits == s);
    CHECK(from_float_saturate<TestType>(zero).bits == s);
    CHECK(from_float_down<TestType>(zero).bits == s);
    CHECK(from_float_up<TestType>(zero).bits == s);
    float const inf = negative ? -infinity : infinity;
    CHECK(from_float<TestType>(inf).bits == (s | table.overflow_pattern()));
    CHECK(from_float_saturate<TestType>(inf).bits == (s | table.max_pattern()));
    CHECK(from_float_down<TestType>(inf).bits == (s | table.max_pattern()));
    CHECK(from_float_up<TestType>(inf).bits == (s | table.max_pattern()));
  }
  CHECK(from_float_down<TestType>(-tiny).bits == (sign | 1u));
  CHECK(from_float_up<TestType>(-tiny).bits == sign);
  CHECK(from_float_down<TestType>(tiny).bits == 0u);
  CHECK(from_float_up<TestType>(tiny).bits == 1u);
}

TEMPLATE_TEST_CASE("a NaN narrows to the quiet NaN of its sign", "[numeric]", float16, bfloat16,
                   float8_e4m3) {
  magnitude_table<TestType> const table;
  for (std::uint32_t const magnitude :
       {0x7F800001u, 0x7F801FFFu, 0x7F80FFFFu, 0x7FBFFFFFu, 0x7FC00000u, 0x7FFFFFFFu}) {
    for (std::uint32_t const sign : {0u, 0x80000000u}) {
      CAPTURE(magnitude, sign);
      float const x = with_bits(sign | magnitude);
      std::uint32_t const expected = (sign != 0 ? table.sign_bit : 0u) | definition<TestType>::quiet_nan;
      CHECK(from_float<TestType>(x).bits == expected);
      CHECK(from_float_saturate<TestType>(x).bits == expected);
      CHECK(from_float_down<TestType>(x).bits == expected);
      CHECK(from_float_up<TestType>(x).bits == expected);
      CHECK(is_nan(from_float<TestType>(x)));
    }
  }
}

TEMPLATE_TEST_CASE("max_finite is the end of the table", "[numeric]", float16, bfloat16, float8_e4m3) {
  magnitude_table<TestType> const table;
  CHECK(static_cast<double>(max_finite<TestType>) == table.rows.back().value);
  CHECK(table.rows.back().value == definition<TestType>::max);
  CHECK(table.rows[1].value == definition<TestType>::smallest);
}

TEST_CASE("E4M3 overflows to NaN above the middle between 448 and 480", "[numeric]") {
  CHECK(from_float<float8_e4m3>(448.0f).bits == 0x7E);
  CHECK(from_float<float8_e4m3>(463.9f).bits == 0x7E);
  CHECK(from_float<float8_e4m3>(464.0f).bits == 0x7E);  // a tie, and 448 has the even mantissa
  CHECK(from_float<float8_e4m3>(464.1f).bits == 0x7F);
  CHECK(from_float<float8_e4m3>(-1000.0f).bits == 0xFF);
  CHECK(from_float_saturate<float8_e4m3>(464.1f).bits == 0x7E);
  CHECK(from_float_saturate<float8_e4m3>(-1e30f).bits == 0xFE);
}

TEST_CASE("float16 has the values everybody knows", "[numeric]") {
  CHECK(from_float<float16>(1.0f).bits == 0x3C00);
  CHECK(from_float<float16>(-2.0f).bits == 0xC000);
  CHECK(from_float<float16>(0.1f).bits == 0x2E66);
  CHECK(from_float<float16>(65519.996f).bits == 0x7BFF);
  CHECK(from_float<float16>(65520.0f).bits == 0x7C00);
  CHECK(from_float<float16>(0x1p-25f).bits == 0x0000);  // tie with zero
  CHECK(from_float<float16>(0x1.000002p-25f).bits == 0x0001);
  CHECK(from_float<float16>(0x1.FFFp-15f).bits == 0x0400);  // a denormal carries into the normals
}

TEST_CASE("float stores itself, NaN made quiet", "[numeric]") {
  std::mt19937 generator(7u);
  std::size_t wrong = 0;
  float const infinity = std::numeric_limits<float>::infinity();
  auto const check = [&](float x) {
    std::uint32_t const bits = bits_of(x);
    std::uint32_t const sign = bits & 0x80000000u;
    bool const nan = x != x;
    std::uint32_t const kept = nan ? sign | 0x7FC00000u : bits;
    std::uint32_t const finite = std::fabs(x) == infinity ? sign | 0x7F7FFFFFu : kept;
    bool good = nan ? std::isnan(to_float(x)) : bits_of(to_float(x)) == bits;
    good = good && bits_of(from_float<float>(x)) == kept && bits_of(from_float_saturate<float>(x)) == finite;
    good = good && bits_of(from_float_down<float>(x)) == finite && bits_of(from_float_up<float>(x)) == finite;
    good = good && is_nan(x) == nan && is_finite(x) == (!nan && std::fabs(x) < infinity);
    wrong += good ? 0u : 1u;
  };
  for (int i = 0; i < 100000; ++i)
    check(with_bits(static_cast<std::uint32_t>(generator())));
  for (std::uint32_t const m :
       {0u, 1u, 0x007FFFFFu, 0x00800000u, 0x7F7FFFFFu, 0x7F800000u, 0x7F800001u, 0x7FFFFFFFu}) {
    check(with_bits(m));
    check(with_bits(m | 0x80000000u));
  }
  CHECK(wrong == 0);
  CHECK(max_finite<float> == std::numeric_limits<float>::max());
}

TEST_CASE("stored types have names", "[numeric]") {
  CHECK(std::string(storage_name<float>()) == "f32");
  CHECK(std::string(storage_name<float16>()) == "f16");
  CHECK(std::string(storage_name<bfloat16>()) == "bf16");
  CHECK(std::string(storage_name<float8_e4m3>()) == "e4m3");
}

TEST_CASE("conversions are constant expressions", "[numeric]") {
  STATIC_REQUIRE(to_float(float16{0x0001}) == 0x1p-24f);
  STATIC_REQUIRE(to_float(bfloat16{0x0001}) == 0x1p-133f);
  STATIC_REQUIRE(to_float(float8_e4m3{0x01}) == 0x1p-9f);
  STATIC_REQUIRE(from_float<float16>(1.0f / 3.0f) == float16{0x3555});
  STATIC_REQUIRE(from_float<bfloat16>(1.0f / 3.0f) == bfloat16{0x3EAB});
  STATIC_REQUIRE(from_float_down<bfloat16>(1.0f / 3.0f) == bfloat16{0x3EAA});
  STATIC_REQUIRE(from_float_up<float16>(1.0f / 3.0f) == float16{0x3556});
  STATIC_REQUIRE(from_float_saturate<float8_e4m3>(1e9f) == float8_e4m3{0x7E});
  STATIC_REQUIRE(max_finite<float16> == 65504.0f);
  STATIC_REQUIRE(is_nan(float8_e4m3{0xFF}));
  STATIC_REQUIRE(!is_finite(bfloat16{0xFF80}));
  STATIC_REQUIRE(storage_name<bfloat16>()[0] == 'b');
  STATIC_REQUIRE(!storage_float<double>);
  STATIC_REQUIRE(!storage_float<std::uint16_t>);
  STATIC_REQUIRE(!storage_float<float16 const>);
}
