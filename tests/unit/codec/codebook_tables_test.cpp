// SPDX-License-Identifier: Apache-2.0
//! @file Codebooks: levels, thresholds at the last bit, ties, scales.
#include <cmath>
#include <limits>
#include <vector>

#include "kvcrumb/reference/codebooks.hpp"
#include "kvcrumb/reference/quantize_nf4.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;
namespace ref = kvcrumb::reference;

namespace {

float above(float x) { return std::nextafter(x, std::numeric_limits<float>::infinity()); }
float below(float x) { return std::nextafter(x, -std::numeric_limits<float>::infinity()); }

//! Levels ascend with the code and every level is nearest to itself.
template <class Table>
void check_ascending(Table const& table) {
  for (unsigned code = 0; code < (1u << Table::bits); ++code) {
    CAPTURE(Table::name, code);
    CHECK(table.nearest(table.level(code)) == code);
    if (code > 0) CHECK(table.level(code) > table.level(code - 1));
  }
}

}  // namespace

TEST_CASE("NF4 levels and thresholds are the published ones", "[codec][codebook][nf4]") {
  nf4_table const table;
  check_ascending(table);
  for (unsigned code = 0; code < 16; ++code) {
    CHECK(static_cast<double>(table.level(code)) == ref::to_fp32(ref::nf4_levels[code]));
  }
  for (unsigned i = 0; i < 15; ++i) {
    auto const threshold = static_cast<float>(ref::nf4_thresholds[i]);
    CAPTURE(i, threshold);
    CHECK(table.nearest(threshold) == i);  // strict: the threshold itself belongs below
    CHECK(table.nearest(below(threshold)) == i);
    CHECK(table.nearest(above(threshold)) == i + 1);
    double const middle =
        0.5 * (static_cast<double>(table.level(i)) + static_cast<double>(table.level(i + 1)));
    CHECK(std::fabs(static_cast<double>(threshold) - middle) < 6e-8);
  }
  CHECK(table.nearest(-5.0f) == 0);
  CHECK(table.nearest(5.0f) == 15);
  CHECK(table.nearest(-0.0f) == 7);
}

TEST_CASE("NF4 groups equal the reference blocks", "[codec][codebook][nf4]") {
  number_source source(41);
  for (int trial = 0; trial < 100; ++trial) {
    for (std::size_t const n : {1u, 64u, 256u}) {
      auto const x = source.bells(n, std::ldexp(1.0f, trial % 9 - 4), trial % 3 == 0 ? 0.5f : 0.0f);
      auto const g = encode_group(nf4<>{}, x);
      auto const expected = ref::nf4_block(doubles(x));
      CHECK(static_cast<double>(g.params.value[0]) == expected.absmax);
      CHECK(g.codes == expected.codes);
    }
  }
  auto const zeros = encode_group(nf4<>{}, std::vector<float>(8, 0.0f));
  CHECK(zeros.codes == std::vector<int>(8, 7));
  CHECK(zeros.decoded == std::vector<float>(8, 0.0f));
}

TEST_CASE("NF2 and NF3 follow the construction of NF4", "[codec][codebook]") {
  auto const check = [](auto table) {
    check_ascending(table);
    auto const levels = ref::normal_float_levels(table.bits);
    for (unsigned i = 0; i < levels.size(); ++i) {
      CAPTURE(table.name, i);
      CHECK(std::fabs(static_cast<double>(table.level(i)) - levels[i]) < 1.5e-7);
    }
    for (unsigned i = 0; i + 1 < levels.size(); ++i) {
      double const middle = 0.5 * (levels[i] + levels[i + 1]);
      CAPTURE(table.name, i, middle);
      CHECK(table.nearest(static_cast<float>(middle - 3e-7)) == i);
      CHECK(table.nearest(static_cast<float>(middle + 3e-7)) == i + 1);
    }
    CHECK(table.max_level() == 1.0f);
    CHECK(table.nearest(0.0f) == (1u << table.bits) / 2 - 1);
  };
  check(nf2_table{});
  check(nf3_table{});
  // -0.5 and 0.1689576 + 0.5 lie exactly between levels: strict thresholds give the lower one.
  CHECK(nf2_table{}.nearest(-0.5f) == 0);
  CHECK(nf2_table{}.nearest(above(-0.5f)) == 1);
}

TEST_CASE("E2M1 ties go to the even mantissa", "[codec][codebook][e2m1]") {
  e2m1_table const table;
  float const magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  for (unsigned i = 0; i < 8; ++i) {
    CHECK(table.level(i) == magnitudes[i]);
    CHECK(table.level(i + 8) == -magnitudes[i]);
    CHECK(table.nearest(magnitudes[i]) == i);
    if (i > 0) CHECK(table.nearest(-magnitudes[i]) == i + 8);
  }
  for (unsigned i = 0; i < 7; ++i) {
    float const middle = 0.5f * (magnitudes[i] + magnitudes[i + 1]);
    unsigned const even = i % 2 == 0 ? i : i + 1;
    CAPTURE(middle);
    CHECK(table.nearest(middle) == even);
    CHECK(table.nearest(below(middle)) == i);
    CHECK(table.nearest(above(middle)) == i + 1);
    CHECK(table.nearest(-middle) == (even | 8u));
    CHECK(table.nearest(-below(middle)) == (i | 8u));
    CHECK(table.nearest(-above(middle)) == ((i + 1) | 8u));
  }
  CHECK(table.nearest(1e9f) == 7);
  CHECK(table.nearest(-1e9f) == 15);
  CHECK(table.nearest(-0.0f) == 0);
  CHECK(table.max_level() == 6.0f);
  // NVFP4: sixteen values, scale absmax / 6 rounded to E4M3.
  auto const g = encode_group(e2m1<>{}, {-12.0f, 6.0f, 1.0f, 0.4f});
  CHECK(g.params.value[0] == 2.0f);
  CHECK(g.codes == std::vector<int>{15, 5, 1, 0});
  CHECK(g.decoded == std::vector<float>{-12.0f, 6.0f, 1.0f, 0.0f});
  CHECK(encode_group(e2m1<>{}, {7.0f}).params.value[0] == 1.125f);  // 1.16667 -> 1.125 (step 1/8)
  CHECK(encode_group(e2m1<>{}, {1e6f}).params.value[0] == 448.0f);
}

TEST_CASE("user tables: nearest level, ties to the lower one", "[codec][codebook][user]") {
  user_table<2> const table{{-2.0f, 0.0f, 1.0f, 5.0f}};
  REQUIRE(table.is_valid());
  check_ascending(table);
  CHECK(table.max_level() == 5.0f);
  CHECK(table.nearest(-1.0f) == 0);
  CHECK(table.nearest(above(-1.0f)) == 1);
  CHECK(table.nearest(0.5f) == 1);
  CHECK(table.nearest(3.0f) == 2);
  CHECK(table.nearest(above(3.0f)) == 3);
  CHECK(table.nearest(-1e30f) == 0);
  CHECK(table.nearest(1e30f) == 3);
  CHECK((user_table<1>{{-7.0f, 1.0f}}).max_level() == 7.0f);
  user_table<8> wide;
  for (int i = 0; i < 256; ++i)
    wide.levels[i] = static_cast<float>(i * i) - 100.0f;
  CHECK(wide.is_valid());
  check_ascending(wide);
}

TEST_CASE("user tables that cannot work are refused", "[codec][codebook][user]") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  CHECK(!(user_table<1>{}).is_valid());                          // never filled
  CHECK(!(user_table<2>{{0.0f, 1.0f, 1.0f, 2.0f}}).is_valid());  // equal neighbours
  CHECK(!(user_table<2>{{0.0f, 2.0f, 1.0f, 3.0f}}).is_valid());  // not ascending
  CHECK(!(user_table<2>{{0.0f, 1.0f, nan, 3.0f}}).is_valid());
  CHECK(!(user_table<2>{{nan, 1.0f, 2.0f, 3.0f}}).is_valid());
  CHECK(!(user_table<2>{{0.0f, 1.0f, 2.0f, inf}}).is_valid());
  CHECK(!(user_table<2>{{-inf, 1.0f, 2.0f, 3.0f}}).is_valid());
  CHECK((user_table<1>{{0.0f, 1.0f}}).is_valid());
  CHECK((user_table<1>{{-1.0f, 0.0f}}).is_valid());
  codebook<user_table<2>> a{{{-1.0f, 0.0f, 0.5f, 1.0f}}}, b{{{-1.0f, 0.0f, 0.25f, 1.0f}}};
  CHECK(a.id() != b.id());
  CHECK(a.id() == codebook<user_table<2>>{{{-1.0f, 0.0f, 0.5f, 1.0f}}}.id());
}

TEST_CASE("codebook scales are the absolute maximum or the root mean square", "[codec][codebook]") {
  std::vector<float> const x{3.0f, -4.0f, 0.0f, 0.0f};
  CHECK(encode_group(nf4<float>{}, x).params.value[0] == 4.0f);
  CHECK(encode_group(lloyd_max<2, float>{}, x).params.value[0] == 2.5f);  // sqrt(25 / 4)
  CHECK(encode_group(e2m1<float>{}, x).params.value[0] == static_cast<float>(ref::to_fp32(4.0 / 6.0)));
  number_source source(43);
  for (int trial = 0; trial < 50; ++trial) {
    auto const y = source.bells(16, 0.7f);
    double sums[16];
    for (std::size_t i = 0; i < 16; ++i)
      sums[i] = ref::to_fp32(static_cast<double>(y[i]) * static_cast<double>(y[i]));
    for (int width = 8; width >= 1; width /= 2) {  // neighbouring pairs
      for (int i = 0; i < width; ++i)
        sums[i] = ref::to_fp32(sums[2 * i] + sums[2 * i + 1]);
    }
    double const root = ref::to_fp32(std::sqrt(ref::to_fp32(sums[0] / 16.0)));
    CHECK(static_cast<double>(encode_group(lloyd_max<4, float>{}, y).params.value[0]) == root);
    CHECK(static_cast<double>(encode_group(lloyd_max<4>{}, y).params.value[0]) == ref::to_fp16(root));
  }
}
