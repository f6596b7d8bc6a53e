// SPDX-License-Identifier: Apache-2.0
//! @file Every published convention of the affine codec against its definition in double precision, with
//! exact halves.
#include <cmath>
#include <functional>
#include <vector>

#include "kvcrumb/reference/quantize_kivi.hpp"
#include "kvcrumb/reference/quantize_outward.hpp"
#include "kvcrumb/reference/quantize_qserve.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;
namespace ref = kvcrumb::reference;

namespace {

struct expected_group {
  double scale = 0.0, second = 0.0;
  std::vector<int> codes;
  std::vector<double> decoded;
};

enum class form { minimum, range_first, middle, zero_point, zero_point_rounded };

//! One convention, written from its definition: fp32 steps, fp16 parameters rounded to nearest.
expected_group by_definition(std::vector<float> const& x, int bits, form which, double floor_value,
                             std::function<double(double)> const& round) {
  double low = static_cast<double>(x[0]), high = low;
  for (float const v : x) {
    low = std::fmin(low, static_cast<double>(v));
    high = std::fmax(high, static_cast<double>(v));
  }
  double const top = static_cast<double>((1 << bits) - 1);
  double const cells = which == form::middle ? top + 1.0 : top;
  double const range = ref::to_fp32(high - low);
  expected_group g;
  g.scale = ref::to_fp16(ref::to_fp32(range / cells));
  if (g.scale < floor_value) g.scale = ref::round_to(ref::fp16_format, floor_value, ref::rounding::up).value;
  bool const point = which == form::zero_point || which == form::zero_point_rounded;
  if (point) {
    double z = ref::to_fp32(ref::to_fp32(-top * low) / range);
    if (which == form::zero_point_rounded) z = ref::round_half_even(z);
    g.second = ref::to_fp16(z);
  } else {
    g.second = ref::to_fp16(low);
  }
  for (float const v : x) {
    double t = 0.0;
    if (point) {
      t = ref::to_fp32(ref::to_fp32(static_cast<double>(v) / g.scale) + g.second);
    } else {
      double const above = ref::to_fp32(static_cast<double>(v) - g.second);
      t = which == form::range_first ? ref::to_fp32(ref::to_fp32(above * top) / range)
                                     : ref::to_fp32(above / g.scale);
    }
    int const code = static_cast<int>(std::fmin(std::fmax(round(t), 0.0), top));
    g.codes.push_back(code);
    double const c = static_cast<double>(code);
    g.decoded.push_back(point                   ? (c - g.second) * g.scale
                        : which == form::middle ? (c + 0.5) * g.scale + g.second
                                                : c * g.scale + g.second);
  }
  return g;
}

void check_equal(encoded_group const& actual, expected_group const& expected) {
  CHECK(static_cast<double>(actual.params.value[0]) == expected.scale);
  CHECK(static_cast<double>(actual.params.value[1]) == expected.second);
  CHECK(actual.codes == expected.codes);
  double worst = 0.0;
  for (std::size_t i = 0; i < expected.decoded.size(); ++i) {
    double const size = std::fabs(expected.decoded[i]) +
                        std::fabs(expected.second) * std::fabs(expected.scale) + std::fabs(expected.second);
    worst = std::fmax(
        worst, std::fabs(static_cast<double>(actual.decoded[i]) - expected.decoded[i]) / (size + 1e-30));
  }
  CHECK(worst < 4e-7);
}

//! Groups of all kinds that have a range: bells, offsets, outliers, fp16 numbers, quotients at exact halves.
std::vector<std::vector<float>> groups_with_range(int bits) {
  number_source source(static_cast<std::uint64_t>(bits) + 40);
  std::vector<std::vector<float>> groups;
  for (std::size_t const n : {2u, 3u, 31u, 32u, 128u}) {
    for (float const offset : {0.0f, 3.0f, -17.5f}) {
      groups.push_back(source.bells(n, 0.75f, offset));
      groups.push_back(halves(source.bells(n, 2.0f, offset)));
    }
    auto spiked = source.bells(n);
    spiked[0] = 300.0f;
    groups.push_back(spiked);
  }
  // min 0, scale exactly 2^e: every quotient k + 1/2 is exact, and its neighbours are one ulp away.
  for (float const unit : {1.0f, 0.25f, 8.0f}) {
    int const top = (1 << bits) - 1;
    std::vector<float> x{0.0f, unit * static_cast<float>(top)};
    for (int k = 0; k < top; ++k) {
      float const half = unit * (static_cast<float>(k) + 0.5f);
      x.push_back(half);
      x.push_back(std::nextafter(half, 0.0f));
      x.push_back(std::nextafter(half, 1e9f));
    }
    groups.push_back(x);
    for (float& v : x)
      v -= unit * 2.0f;  // the minimum is negative: a zero point of 2
    groups.push_back(x);
  }
  return groups;
}

double half_even(double t) { return ref::round_half_even(t); }
double half_up(double t) { return std::floor(t + 0.5); }
double half_away(double t) { return ref::round_half_away(t); }
double cut(double t) { return std::floor(t); }

template <int Bits>
void check_all_conventions() {
  CAPTURE(Bits);
  for (auto const& x : groups_with_range(Bits)) {
    CAPTURE(x.size(), x[0], x[1]);
    check_equal(encode_group(affine<Bits, float16, skvq_convention>{}, x),
                by_definition(x, Bits, form::minimum, 1e-5, half_even));
    check_equal(encode_group(affine<Bits, float16, kitty_convention>{}, x),
                by_definition(x, Bits, form::minimum, 1e-6, half_up));
    check_equal(encode_group(affine<Bits, float16, vllm_convention>{}, x),
                by_definition(x, Bits, form::minimum, 1e-8, half_up));
    check_equal(encode_group(affine<Bits, float16, bitdecoding_convention>{}, x),
                by_definition(x, Bits, form::range_first, 0.0, half_away));
    check_equal(encode_group(affine<Bits, float16, qserve_convention>{}, x),
                by_definition(x, Bits, form::zero_point, 0.0, half_even));
    check_equal(encode_group(affine<Bits, float16, rotatekv_convention>{}, x),
                by_definition(x, Bits, form::zero_point_rounded, 0.0, half_even));
    check_equal(encode_group(affine<Bits, float16, midrise_convention>{}, x),
                by_definition(x, Bits, form::middle, 0.0, cut));
  }
}

}  // namespace

TEST_CASE("the published conventions are followed to the bit", "[codec][affine]") {
  check_all_conventions<1>();
  check_all_conventions<2>();
  check_all_conventions<3>();
  check_all_conventions<4>();
  check_all_conventions<8>();
}

TEST_CASE("exact halves tell the rounding rules apart", "[codec][affine]") {
  std::vector<float> const x{0.0f, 0.5f, 1.5f, 2.5f, 3.0f};  // minimum 0, scale 1
  using codes = std::vector<int>;
  CHECK(encode_group(affine<2, float16, skvq_convention>{}, x).codes == codes{0, 0, 2, 2, 3});
  CHECK(encode_group(affine<2, float16, kitty_convention>{}, x).codes == codes{0, 1, 2, 3, 3});
  CHECK(encode_group(affine<2, float16, bitdecoding_convention>{}, x).codes == codes{0, 1, 2, 3, 3});
  CHECK(encode_group(affine<2>{}, x).codes == codes{0, 0, 2, 2, 3});
  std::vector<float> const cells{0.0f, 0.5f, 1.0f, 1.5f, 2.5f, 3.5f, 4.0f};  // four cells of width 1
  CHECK(encode_group(affine<2, float16, midrise_convention>{}, cells).codes == codes{0, 0, 1, 1, 2, 3, 3});
  CHECK(encode_group(affine<2, float16, midrise_convention>{}, cells).decoded[0] == 0.5f);
}

TEST_CASE("the two forms of the division differ where the scale is rounded", "[codec][affine]") {
  // Range 1, three steps: the stored scale is 0.333252, above it lies 0.49995 / 0.333252 = 1.5002; by the
  // range 1.49985.
  std::vector<float> const x{0.0f, 0.49995f, 1.0f};
  CHECK(encode_group(affine<2, float16, kitty_convention>{}, x).codes == std::vector<int>{0, 2, 3});
  CHECK(encode_group(affine<2, float16, bitdecoding_convention>{}, x).codes == std::vector<int>{0, 1, 3});
}

TEST_CASE("zero points are kept unrounded or rounded as published", "[codec][affine]") {
  std::vector<float> const x{-1.0f, 0.0f, 1.0f, 2.0f, 29.0f};  // range 30, scale 2, point 0.5
  auto const qserve = encode_group(affine<4, float16, qserve_convention>{}, x);
  CHECK(qserve.params.value[1] == 0.5f);
  CHECK(qserve.codes == std::vector<int>{0, 0, 1, 2, 15});
  CHECK(qserve.decoded == std::vector<float>{-1.0f, -1.0f, 1.0f, 3.0f, 29.0f});
  std::vector<float> const y{-3.0f, 0.0f, 27.0f};  // range 30, scale 2, point 1.5 -> 2
  auto const rotate = encode_group(affine<4, float16, rotatekv_convention>{}, y);
  CHECK(rotate.params.value[1] == 2.0f);
  CHECK(rotate.codes == std::vector<int>{0, 2, 15});  // 0.5 -> 0; 2; 15.5 -> 15
  CHECK(rotate.decoded == std::vector<float>{-4.0f, 0.0f, 26.0f});
}

TEST_CASE("scale floors hold for constant groups", "[codec][affine]") {
  std::vector<float> const x(32, 2.5f);
  // The smallest fp16 numbers not below 1e-5, 1e-6, 1e-8.
  CHECK(encode_group(affine<2, float16, skvq_convention>{}, x).params.value[0] == 168.0f * 0x1p-24f);
  CHECK(encode_group(affine<2, float16, kitty_convention>{}, x).params.value[0] == 17.0f * 0x1p-24f);
  CHECK(encode_group(affine<2, float16, vllm_convention>{}, x).params.value[0] == 0x1p-24f);
  CHECK(encode_group(affine<2, float, affine_options{.floor = scale_floor::e6}>{}, x).params.value[0] ==
        1e-6f);
  CHECK(encode_group(affine<2, float16, skvq_convention>{}, x).decoded == x);
  CHECK(encode_group(affine<2, float16, kitty_convention>{}, x).decoded == x);
  CHECK(encode_group(affine<2, float16, vllm_convention>{}, x).decoded == x);
  // A range above the floor is not touched.
  std::vector<float> const y{0.0f, 3.0f};
  CHECK(encode_group(affine<2, float16, skvq_convention>{}, y).params.value[0] == 1.0f);
}

namespace {

template <int Bits>
void check_kivi(std::vector<float> const& x) {
  CAPTURE(Bits, x.size(), x[0]);
  auto const actual = encode_group(affine<Bits, float16, kivi_convention>{}, x);
  auto const expected = ref::kivi_group(doubles(x), Bits);
  CHECK(static_cast<double>(actual.params.value[0]) == expected.scale);
  CHECK(static_cast<double>(actual.params.value[1]) == expected.mn);
  if (expected.mn == 0.0)
    CHECK(bits_of(actual.params.value[1]) == 0u);  // a minimum of zero is +0, whatever its signs
  CHECK(actual.codes == expected.codes);
}

}  // namespace

TEST_CASE("KIVI's codes, scales and minima equal the reference to the bit", "[codec][affine][kivi]") {
  number_source source(7);
  for (int trial = 0; trial < 60; ++trial) {
    for (std::size_t const n : {1u, 2u, 7u, 32u, 128u}) {
      float const scale = std::ldexp(1.0f, static_cast<int>(source.bits() % 20) - 10);
      float const offset = trial % 3 == 0 ? 0.0f : source.bell() * 4.0f * scale;
      auto const x = halves(source.bells(n, scale, offset));
      check_kivi<1>(x);
      check_kivi<2>(x);
      check_kivi<4>(x);
      check_kivi<8>(x);
    }
  }
}

TEST_CASE("KIVI's special groups equal the reference to the bit", "[codec][affine][kivi]") {
  float const tiny = 0x1p-24f;
  std::vector<std::vector<float>> const groups{
      {0.0f, 0.5f, 1.0f, 1.5f, 2.5f, 3.0f},         // exact halves, scale 1
      {-3.0f, -2.5f, -1.5f, -0.5f, 0.0f},           // the same below zero
      std::vector<float>(32, 0.0f),                 // constant
      std::vector<float>(32, -3.5f),                //
      std::vector<float>(32, 65504.0f),             //
      {0.0f, -0.0f, 0.0f},                          // signed zeros
      {-0.0f, 0.0f},                                //
      {0.0f, tiny},                                 // denormals: the scale underflows at 2 bits and more
      {0.0f, tiny, 2 * tiny, 3 * tiny, 5 * tiny},   //
      {-1023 * tiny, 1023 * tiny, 0.0f},            //
      {32.0f * tiny, 1.0f, 0.5f},                   //
      {0.0f, 65504.0f, 32752.0f},                   // the whole positive range
      {-65504.0f, 0.0f, -16376.0f},                 //
      {-32752.0f, 32752.0f, 1.0f, 1000.0f},         // range 65504
      {2048.0f, -1.0f, 681.5f},                     // a range that fp16 rounds
      {0.0f, 1284.0f / 512.0f, 3082.0f / 1024.0f},  // a quotient that fp16 rounds to a half
      {-15.0f / 16384.0f, 1284.0f / 512.0f, 1541.0f / 512.0f},  // a difference that fp16 rounds
  };
  for (auto const& x : groups) {
    check_kivi<1>(x);
    check_kivi<2>(x);
    check_kivi<3>(x);
    check_kivi<4>(x);
    check_kivi<8>(x);
  }
}

TEST_CASE("KIVI saturates where the range of a group leaves fp16", "[codec][affine][kivi]") {
  auto const wide = encode_group(affine<2, float16, kivi_convention>{}, {-65504.0f, 0.0f, 65504.0f});
  CHECK(wide.params.value[1] == -65504.0f);
  CHECK(static_cast<double>(wide.params.value[0]) == ref::to_fp16(65504.0 / 3.0));
  CHECK(wide.codes == std::vector<int>{0, 3, 3});
  auto const beyond = encode_group(affine<2, float16, kivi_convention>{}, {-1e6f, 0.0f, 1e6f});
  CHECK(beyond.params.value[1] == -65504.0f);
  for (float const v : beyond.decoded)
    CHECK(std::fabs(v) <= 65504.0f);
}

TEST_CASE("QServe rows equal the reference to the bit", "[codec][affine][qserve]") {
  number_source source(11);
  for (int trial = 0; trial < 100; ++trial) {
    for (std::size_t const n : {2u, 64u, 128u}) {
      float const scale = std::ldexp(1.0f, static_cast<int>(source.bits() % 12) - 6);
      auto const x = source.bells(n, scale, trial % 2 == 0 ? 0.0f : source.bell() * 8.0f * scale);
      auto const actual = encode_group(affine<4, float16, qserve_convention>{}, x);
      auto const expected = ref::qserve_kv4_row(doubles(x));
      CHECK(static_cast<double>(actual.params.value[0]) == expected.scale);
      CHECK(static_cast<double>(actual.params.value[1]) == expected.zero);
      CHECK(actual.codes == expected.codes);
    }
  }
}

TEST_CASE("constant rows of the zero-point form decode exactly", "[codec][affine][qserve]") {
  for (float const value : {3.0f, -2.5f, 0.0f, 65504.0f, -65504.0f, 0x1p-24f}) {
    std::vector<float> const x(16, value);
    CAPTURE(value);
    auto const actual = encode_group(affine<4, float16, qserve_convention>{}, x);
    auto const expected = ref::qserve_kv4_row(doubles(x));
    CHECK(static_cast<double>(actual.params.value[0]) == expected.scale);
    CHECK(static_cast<double>(actual.params.value[1]) == expected.zero);
    CHECK(actual.codes == expected.codes);
    CHECK(actual.decoded == x);
  }
}

TEST_CASE("a zero point that fp16 cannot hold becomes a constant within the range",
          "[codec][affine][qserve]") {
  // 15 * 1000 / 0.1 = 150000 > 65504.
  for (float const sign : {1.0f, -1.0f}) {
    std::vector<float> const x{sign * 1000.0f, sign * 1000.1f, sign * 1000.05f};
    auto const actual = encode_group(affine<4, float16, qserve_convention>{}, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      // The constant itself is rounded to fp16: half a step of 0.5 at 1000.
      CHECK(std::fabs(actual.decoded[i] - x[i]) <= 0.1f + 0.25f);
    }
  }
}

TEST_CASE("outward parameters equal the reference to the bit", "[codec][affine][outward]") {
  number_source source(19);
  for (int trial = 0; trial < 60; ++trial) {
    for (std::size_t const n : {1u, 2u, 32u, 128u}) {
      float const offset = trial % 4 == 0 ? 0.0f : trial % 4 == 1 ? 1000.0f : -30.0f;
      auto const x = source.bells(n, std::ldexp(1.0f, trial % 7 - 3), offset);
      auto const compare = [&](auto codec, ref::float_format const& stored) {
        auto const actual = encode_group(codec, x);
        auto const expected = ref::outward_group(doubles(x), codec.bits, stored);
        CHECK(static_cast<double>(actual.params.value[0]) == expected.scale);
        CHECK(static_cast<double>(actual.params.value[1]) == expected.mn);
        CHECK(actual.codes == expected.codes);
      };
      compare(affine<1>{}, ref::fp16_format);
      compare(affine<2>{}, ref::fp16_format);
      compare(affine<5>{}, ref::fp16_format);
      compare(affine<4, bfloat16>{}, ref::bf16_format);
      compare(affine<8, float>{}, ref::fp32_format);
      compare(affine<3, float8_e4m3>{}, ref::e4m3_format);
    }
  }
}

TEST_CASE("codes are computed against rounded parameters", "[codec][affine][outward]") {
  // Group 1000.3 .. 1003.3 with bf16 parameters (step 4 at 1000): the minimum goes down to 1000, the scale up
  // from 1.1 to 1.1015625. From the unrounded pair (1000.3, 1) the codes would be 0 1 2 3; against the
  // rounded one 1000.9 (0.817 steps) has code 1 and not 0 or 1 by chance.
  std::vector<float> const x{1000.3f, 1000.9f, 1001.8f, 1003.3f};
  auto const bf = encode_group(affine<2, bfloat16>{}, x);
  CHECK(bf.params.value[1] == 1000.0f);
  CHECK(bf.params.value[0] > 1.1f);
  CHECK(bf.params.value[0] < 1.11f);
  CHECK(bf.codes == std::vector<int>{0, 1, 2, 3});
  // The maximum is reached: minimum + 3 * scale >= x, because both were rounded outward.
  for (float const offset : {0.0f, 100.3f, -777.7f, 12345.678f, -3e5f}) {
    for (float const width : {0.01f, 1.0f, 50.0f}) {
      std::vector<float> y{offset};
      for (int i = 1; i < 16; ++i)
        y.push_back(offset + width * static_cast<float>(i) / 15.0f);
      auto const reaches = [&](auto codec) {
        auto const g = encode_group(codec, y);
        CAPTURE(offset, width, g.params.value[0], g.params.value[1]);
        double const top =
            static_cast<double>(g.params.value[0]) * codec.levels + static_cast<double>(g.params.value[1]);
        CHECK(top >= static_cast<double>(y.back()) * (1.0 - (y.back() > 0 ? 2e-7 : -2e-7)));
        CHECK(g.params.value[1] <= y.front());
        // Half a step of the rounded scale, plus what fp32 loses in the subtraction and the decoding sum.
        double const slack = 2e-7 * (std::fabs(static_cast<double>(offset)) + 1.0);
        for (std::size_t i = 0; i < y.size(); ++i) {
          double const error = std::fabs(static_cast<double>(g.decoded[i]) - static_cast<double>(y[i]));
          CHECK(error <= 0.5 * static_cast<double>(g.params.value[0]) * (1 + 1e-5) + slack);
        }
      };
      reaches(affine<4, bfloat16>{});
      reaches(affine<4, float>{});
      if (std::fabs(offset) < 60000.0f) reaches(affine<4, float16>{});
      if (std::fabs(offset) < 400.0f) reaches(affine<4, float8_e4m3>{});
    }
  }
}
