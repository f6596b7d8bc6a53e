// SPDX-License-Identifier: Apache-2.0
//! @file Laws of every codec: idempotent, monotone, within half a step, no NaN out of finite input, damage
//! contained.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

inline constexpr affine_options point_up{.zero = zero_form::point, .params = param_rounding::outward};
inline constexpr affine_options half_up_wide{.round = rounding::half_up};

using uniform_codecs =
    std::tuple<affine<1>, affine<2>, affine<3>, affine<4>, affine<5>, affine<6>, affine<7>, affine<8>,
               affine<2, bfloat16>, affine<4, float>, affine<4, float8_e4m3>, affine<4, float, half_up_wide>,
               affine<2, float16, kivi_convention>, affine<4, float16, kivi_convention>,
               affine<4, float16, skvq_convention>, affine<2, float16, kitty_convention>,
               affine<4, float16, vllm_convention>, affine<4, float16, bitdecoding_convention>,
               affine<4, float16, qserve_convention>, affine<8, float16, qserve_convention>,
               affine<4, float16, rotatekv_convention>, affine<2, float16, midrise_convention>,
               affine<4, float, point_up>, symmetric<2>, symmetric<3>, symmetric<4>, symmetric<8>,
               symmetric<4, bfloat16>, symmetric<8, float>, symmetric<8, float16, symmetric_rule::ggml_q8_0>,
               symmetric<4, float16, symmetric_rule::ggml_q4_0>>;

using codebook_codecs =
    std::tuple<nf4<>, nf3<>, nf2<>, nf4<float>, nf4<bfloat16>, e2m1<>, e2m1<float16>, lloyd_max<1>,
               lloyd_max<2>, lloyd_max<3>, lloyd_max<4>, lloyd_max<4, float8_e4m3>>;

template <class A, class B>
struct joined;
template <class... A, class... B>
struct joined<std::tuple<A...>, std::tuple<B...>> {
  using type = std::tuple<A..., B...>;
};
using all_codecs = joined<uniform_codecs, codebook_codecs>::type;

template <class C>
inline constexpr bool is_e2m1 = std::is_same_v<C, e2m1<>> || std::is_same_v<C, e2m1<float16>>;

//! Codes in the order of their levels.
template <class C>
std::vector<unsigned> codes_by_level(C const& codec) {
  std::vector<unsigned> codes;
  for (int c = 0; c <= C::levels; ++c)
    codes.push_back(static_cast<unsigned>(c));
  std::stable_sort(codes.begin(), codes.end(),
                   [&](unsigned a, unsigned b) { return codec.unit(a) < codec.unit(b); });
  return codes;
}

std::vector<std::vector<float>> finite_groups() {
  float const big = std::numeric_limits<float>::max();
  float const tiny = std::numeric_limits<float>::denorm_min();
  float const small = std::numeric_limits<float>::min();
  number_source source(3);
  return {source.bells(32),
          source.bells(1),
          source.bells(32, 1e-3f, 60000.0f),
          source.bells(32, 1.0f, 1e6f),
          source.bells(32, 1e-6f, 1e3f),
          source.bells(32, 1e30f),
          source.bells(32, 1e-42f),
          std::vector<float>(32, 0.0f),
          std::vector<float>(32, -0.0f),
          {0.0f, -0.0f, 0.0f, -0.0f},
          std::vector<float>(32, 1.0f),
          std::vector<float>(32, -7.25f),
          std::vector<float>(32, 65504.0f),
          std::vector<float>(32, -70000.0f),
          std::vector<float>(32, big),
          std::vector<float>(32, -big),
          std::vector<float>(32, tiny),
          std::vector<float>(32, -small),
          {0.0f, tiny},
          {-tiny, tiny, 0.0f},
          {0.0f, small},
          {1.0f, tiny},
          {1.0f, 1.0f + 0x1p-23f},
          {65504.0f, -65504.0f},
          {65505.0f, 65535.0f},
          {70000.0f, -70000.0f, 0.0f},
          {1e20f, 1.0f, -1.0f},
          {big, 0.0f},
          {-big, 0.0f},
          {big, -big},
          {big, -big, 0.0f, 1.0f, -1.0f, tiny},
          {big, big * 0.5f, -big * 0.25f},
          {1e38f, 1e38f, -1e38f}};
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("no codec makes a NaN of finite input", "[codec]", all_codecs) {
  TestType const codec{};
  int index = 0;
  for (auto const& x : finite_groups()) {
    CAPTURE(TestType::name, TestType::bits, index++, x[0], x.size());
    auto const g = encode_group(codec, x);
    float largest = 0.0f;
    for (float const v : x)
      largest = std::max(largest, std::fabs(v));
    for (int plane = 0; plane < TestType::planes; ++plane)
      CHECK(std::isfinite(g.params.value[plane]));
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(g.codes[i] >= 0);
      CHECK(g.codes[i] <= TestType::levels);
      CHECK(!std::isnan(g.decoded[i]));
      if (largest <= 0x1p125f) CHECK(std::isfinite(g.decoded[i]));
    }
    // What the codes of others decode to under these parameters stays finite too.
    for (int code = 0; code <= TestType::levels; ++code) {
      float const v = decode(codec, static_cast<unsigned>(code), g.params);
      CHECK(!std::isnan(v));
      if (largest <= 0x1p120f) CHECK(std::isfinite(v));
    }
  }
}

TEMPLATE_LIST_TEST_CASE("statistics merged by pairs, as a warp does, give the same parameters", "[codec]",
                        all_codecs) {
  TestType const codec{};
  number_source source(4);
  std::vector<std::vector<float>> groups{
      {0.0f, -0.0f, 0.0f}, {-0.0f, 0.0f}, {4.0f, -4.0f, 4.0f}, {-4.0f, 4.0f, 1.0f}};
  for (std::size_t const n : {1u, 5u, 32u, 100u})
    groups.push_back(source.bells(n));
  groups.push_back({1.0f, float_from_bits(0x7FC00000u), 2.0f});
  for (auto const& x : groups) {
    int const n = static_cast<int>(x.size());
    auto const pairs = tree_fold(
        n, [&](int i) { return codec.lift(x[static_cast<std::size_t>(i)]); },
        [](auto a, auto b) { return TestType::merge(a, b); });
    group_params const a = codec.fit(pairs, n), b = codec.fit(collect(codec, x.data(), n), n);
    CAPTURE(TestType::name, n, x[0]);
    CHECK(bits_of(a.value[0]) == bits_of(b.value[0]));
    CHECK(bits_of(a.value[1]) == bits_of(b.value[1]));
    CHECK(bits_of(a.work) == bits_of(b.work));
  }
}

TEMPLATE_LIST_TEST_CASE("encoding what was decoded gives the code back", "[codec]", all_codecs) {
  TestType const codec{};
  number_source source(5);
  for (int trial = 0; trial < 40; ++trial) {
    auto const x = source.bells(64, std::ldexp(1.0f, trial % 5 - 2));
    group_params const p = codec.fit(collect(codec, x.data(), 64), 64);
    CAPTURE(TestType::name, TestType::bits, trial, p.value[0], p.value[1]);
    for (int c = 0; c <= TestType::levels; ++c) {
      auto const code = static_cast<unsigned>(c);
      if (is_e2m1<TestType> && c == 8) continue;  // -0 decodes to a zero, whose code is 0
      bool const lowest = TestType::bits > 1 && std::string(TestType::name) == "symmetric" && c == 0;
      if (lowest || (std::string(TestType::name) == "ggml_q8_0" && c == 0))
        continue;  // -2^(b-1) is never written
      CHECK(codec.encode(decode(codec, code, p), p) == code);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("codes grow with the value", "[codec]", all_codecs) {
  TestType const codec{};
  number_source source(6);
  auto x = source.bells(64);
  group_params const p = codec.fit(collect(codec, x.data(), 64), 64);
  auto many = source.bells(4000, 2.0f);
  std::sort(many.begin(), many.end());
  bool const falling = codec.linear(p).gain < 0.0f;  // q4_0 with a positive extreme has a negative scale
  if (falling) std::reverse(many.begin(), many.end());
  float previous = -std::numeric_limits<float>::infinity();
  int wrong = 0;
  for (float const v : many) {
    float const level = codec.unit(codec.encode(v, p));
    wrong += level < previous ? 1 : 0;
    previous = level;
  }
  CHECK(wrong == 0);
  auto const order = codes_by_level(codec);
  CHECK(codec.unit(codec.encode(falling ? 1e9f : -1e9f, p)) <= codec.unit(order[1]));
  CHECK(codec.unit(codec.encode(falling ? -1e9f : 1e9f, p)) == codec.unit(order.back()));
}

TEMPLATE_LIST_TEST_CASE("uniform codes err by half a step of the rounded scale at most", "[codec]",
                        uniform_codecs) {
  TestType const codec{};
  number_source source(8);
  for (int trial = 0; trial < 100; ++trial) {
    auto const x = halves(source.bells(32, std::ldexp(1.0f, trial % 9 - 4), trial % 2 == 0 ? 0.0f : 1.0f));
    auto const g = encode_group(codec, x);
    double const scale = std::fabs(static_cast<double>(codec.linear(g.params).gain));
    CAPTURE(TestType::name, TestType::bits, trial, scale);
    float largest = 0.0f;
    for (float const v : x)
      largest = std::max(largest, std::fabs(v));
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(g.decoded[i]) - static_cast<double>(x[i])));
    }
    // Parameters rounded to nearest miss the maximum by levels * 2^-11 of a step; binary16 arithmetic loses
    // as much again in the difference and the quotient; a rounded minimum or zero point half an fp16 step of
    // the offset. q4_0 and the rounded point cut one side by up to half a step more.
    std::string const name = TestType::name;
    bool cut_side = name == "ggml_q4_0";
    bool nearest = name == "ggml_q8_0" || cut_side;
    if constexpr (requires { TestType::options; }) {
      cut_side = TestType::options.zero == zero_form::point_rounded;
      nearest = TestType::options.params == param_rounding::nearest;
    }
    double const rounding_loss = nearest ? 3.0 * static_cast<double>(TestType::levels) * 0x1p-11 * scale +
                                               static_cast<double>(largest) * 0x1p-10
                                         : static_cast<double>(largest) * 1e-6;
    CHECK(worst <= scale * (cut_side ? 1.0 : 0.5) * (1.0 + 1e-5) + rounding_loss);
  }
}

TEMPLATE_LIST_TEST_CASE("a NaN or an infinity poisons its group", "[codec]", all_codecs) {
  TestType const codec{};
  number_source source(9);
  for (std::uint32_t const bits : {0x7FC00000u, 0xFFC00000u, 0x7F800001u, 0x7F800000u, 0xFF800000u}) {
    for (std::size_t const at : {0u, 13u, 31u}) {
      auto x = source.bells(32);
      std::memcpy(&x[at], &bits, sizeof bits);
      auto const g = encode_group(codec, x);
      CAPTURE(TestType::name, bits, at);
      for (int plane = 0; plane < TestType::planes; ++plane)
        CHECK(bits_of(g.params.value[plane]) == 0x7FC00000u);
      for (std::size_t i = 0; i < x.size(); ++i) {
        CHECK(g.codes[i] == g.codes[0]);  // one code for all of them, so that bytes do not depend on payloads
        CHECK(std::isnan(g.decoded[i]));
      }
    }
  }
}

TEMPLATE_LIST_TEST_CASE("constant groups decode to the constant", "[codec]", uniform_codecs) {
  TestType const codec{};
  for (float const value : {0.0f, 1.0f, -2.0f, 0.5f, 448.0f, -256.0f}) {
    auto const g = encode_group(codec, std::vector<float>(32, value));
    CAPTURE(TestType::name, TestType::bits, value);
    // A symmetric scale is value / (2^(b-1) - 1) rounded: within its rounding; a minimum or a point is exact.
    float const relative = std::string(TestType::name) == "affine" ? 0.0f : 0x1p-7f;
    for (float const v : g.decoded)
      CHECK(std::fabs(v - value) <= relative * std::fabs(value));
  }
}

TEST_CASE("raw values are the bits of their type", "[codec][raw]") {
  raw<float16> const half{};
  raw<bfloat16> const brain{};
  raw<float8_e4m3> const eight{};
  number_source source(10);
  for (float const x : source.bells(500, 3.0f)) {
    double const wide = static_cast<double>(x);
    CHECK(half.encode(x, {}) == reference::fp16_bits(wide));
    CHECK(brain.encode(x, {}) == reference::bf16_bits(wide));
    CHECK(eight.encode(x, {}) == reference::e4m3_bits(wide));
    CHECK(static_cast<double>(decode(half, half.encode(x, {}), {})) == reference::to_fp16(wide));
    CHECK(static_cast<double>(decode(eight, eight.encode(x, {}), {})) == reference::to_e4m3(wide));
  }
  CHECK(half.encode(1e9f, {}) == 0x7BFFu);
  CHECK(half.encode(-1e9f, {}) == 0xFBFFu);
  CHECK(eight.encode(1000.0f, {}) == 0x7Eu);
  CHECK(std::isnan(decode(half, half.encode(std::nanf(""), {}), {})));
  CHECK(std::isnan(decode(eight, eight.encode(std::nanf(""), {}), {})));
  STATIC_REQUIRE(raw<float16>::bits == 16);
  STATIC_REQUIRE(raw<float8_e4m3>::bits == 8);
  STATIC_REQUIRE(raw<float16>::planes == 0);
}

TEST_CASE("descriptions tell codecs apart", "[codec]") {
  auto const text = [](auto codec) {
    description d;
    decltype(codec)::describe(d);
    CHECK(!d.overflowed);
    CHECK(d.text[d.length] == '\0');
    return std::string(d.text);
  };
  std::vector<std::string> const texts{text(affine<2>{}),
                                       text(affine<3>{}),
                                       text(affine<2, bfloat16>{}),
                                       text(affine<2, float>{}),
                                       text(affine<2, float8_e4m3>{}),
                                       text(affine<2, float16, kivi_convention>{}),
                                       text(affine<2, float16, skvq_convention>{}),
                                       text(affine<2, float16, kitty_convention>{}),
                                       text(affine<2, float16, vllm_convention>{}),
                                       text(affine<2, float16, bitdecoding_convention>{}),
                                       text(affine<2, float16, qserve_convention>{}),
                                       text(affine<2, float16, rotatekv_convention>{}),
                                       text(affine<2, float16, midrise_convention>{}),
                                       text(symmetric<2>{}),
                                       text(symmetric<4>{}),
                                       text(symmetric<4, bfloat16>{}),
                                       text(symmetric<8, float16, symmetric_rule::ggml_q8_0>{}),
                                       text(symmetric<8>{}),
                                       text(symmetric<4, float16, symmetric_rule::ggml_q4_0>{}),
                                       text(raw<float16>{}),
                                       text(raw<float8_e4m3>{}),
                                       text(nf4<>{}),
                                       text(nf3<>{}),
                                       text(nf2<>{}),
                                       text(nf4<float>{}),
                                       text(codebook<nf4_table, float16, codebook_scale::rms>{}),
                                       text(e2m1<>{}),
                                       text(lloyd_max<2>{}),
                                       text(lloyd_max<3>{})};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      CHECK(texts[i] != texts[j]);
  }
  CHECK(texts[5] == "affine2(minimum,half_even,f16,binary16,nearest)");
}
