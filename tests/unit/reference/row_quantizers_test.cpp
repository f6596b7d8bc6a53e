// SPDX-License-Identifier: Apache-2.0
//! @file The QServe, NF4/NQKV and outward affine reference quantizers against values worked out on paper.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

#include "kvcrumb/reference/quantize_nf4.hpp"
#include "kvcrumb/reference/quantize_outward.hpp"
#include "kvcrumb/reference/quantize_qserve.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;

using codes = std::vector<int>;
using numbers = std::vector<double>;

TEST_CASE("QServe keeps its zero point unrounded", "[reference][qserve]") {
  // range 30, scale 2, zero = 15 / 30 = 0.5. x = 0: 0.5 -> 0 -> -1; x = 1: 1 -> 1; x = 2: 1.5 -> 2 -> 3.
  auto const row = ref::qserve_kv4_row(numbers{-1.0, 0.0, 1.0, 2.0, 29.0});
  CHECK(row.scale == 2.0);
  CHECK(row.zero == 0.5);
  CHECK(row.codes == codes{0, 0, 1, 2, 15});
  CHECK(row.xhat == numbers{-1.0, -1.0, 1.0, 3.0, 29.0});
}

TEST_CASE("QServe rounds scale and zero point to fp16", "[reference][qserve]") {
  // range 7: scale = 0.466667 -> 1911 / 4096 (1911.47 steps); zero = 15 / 7 = 2.142857 -> 1097 / 512 (1097.14
  // steps). x = -1: -2.143380 + 2.142578 = -0.0008 -> 0. x = 6: 12.860 + 2.143 = 15.003 -> 15. x = 3:
  // 6.430141 + 2.142578 = 8.5727 -> 9.
  auto const row = ref::qserve_kv4_row(numbers{-1.0, 6.0, 3.0});
  CHECK(row.scale == 1911.0 / 4096.0);
  CHECK(row.zero == 1097.0 / 512.0);
  CHECK(row.codes == codes{0, 15, 9});
  CHECK(row.xhat[0] == -1097.0 / 512.0 * 1911.0 / 4096.0);
}

TEST_CASE("QServe computes codes against the rounded scale", "[reference][qserve]") {
  // min 1, max 4: scale = 0.2 -> 1638 / 8192, zero = -15 / 3 = -5. x = 3.8996: with the stored scale
  // 19.50276 - 5 = 14.50276 -> 15; with 0.2 it would be 19.498 - 5 = 14.498 -> 14.
  double const x = ref::to_fp32(3.8996);
  auto const row = ref::qserve_kv4_row(numbers{1.0, 4.0, x});
  CHECK(row.scale == 1638.0 / 8192.0);
  CHECK(row.zero == -5.0);
  CHECK(row.codes == codes{0, 15, 15});
}

TEST_CASE("constant rows of QServe decode exactly", "[reference][qserve]") {
  auto const positive = ref::qserve_kv4_row(numbers(3, 3.0));
  CHECK(positive.scale == 3.0);
  CHECK(positive.zero == 0.0);
  CHECK(positive.codes == codes(3, 1));
  CHECK(positive.xhat == numbers(3, 3.0));
  auto const negative = ref::qserve_kv4_row(numbers(3, -2.5));
  CHECK(negative.scale == 2.5);
  CHECK(negative.zero == 1.0);
  CHECK(negative.codes == codes(3, 0));
  CHECK(negative.xhat == numbers(3, -2.5));
  auto const zero = ref::qserve_kv4_row(numbers(3, 0.0));
  CHECK(zero.scale == 0.0);
  CHECK(zero.zero == 0.0);
  CHECK(zero.codes == codes(3, 0));
  CHECK(zero.xhat == numbers(3, 0.0));
}

TEST_CASE("a row too narrow for QServe's parameters counts as constant", "[reference][qserve]") {
  // zero = -15 * 1000 / 0.125 = -120000 overflows fp16; the one value is 1000.0625, in fp16 (step 0.5) 1000.
  auto const offset = ref::qserve_kv4_row(numbers{1000.0, 1000.125});
  CHECK(offset.scale == 1000.0);
  CHECK(offset.codes == codes{1, 1});
  CHECK(offset.xhat == numbers{1000.0, 1000.0});
  // scale = 2^-24 / 15 underflows fp16; the one value, 2^-25, is a tie that goes to 0.
  auto const tiny = ref::qserve_kv4_row(numbers{0.0, 0x1p-24});
  CHECK(tiny.scale == 0.0);
  CHECK(tiny.codes == codes{0, 0});
  CHECK(tiny.xhat == numbers{0.0, 0.0});
}

TEST_CASE("NF4 takes the nearest level of the scaled number", "[reference][nf4]") {
  // absmax 4; ratios 1, -0.5, 0, 0.25, -1 -> levels 15, 2 (-0.525), 7 (0), 10 (0.246), 0.
  auto const block = ref::nf4_block(numbers{4.0, -2.0, 0.0, 1.0, -4.0});
  CHECK(block.absmax == 4.0);
  CHECK(block.codes == codes{15, 2, 7, 10, 0});
  CHECK(block.xhat == numbers{4.0, -4.0 * 0.5250730514526367, 0.0, 4.0 * 0.24611230194568634, -4.0});
}

TEST_CASE("NF4 thresholds are strict and lie in the middle of two levels", "[reference][nf4]") {
  for (std::size_t i = 0; i < 15; ++i) {
    CAPTURE(i);
    double const threshold = ref::to_fp32(ref::nf4_thresholds[i]);
    double const next = static_cast<double>(std::nextafterf(static_cast<float>(threshold), 2.0f));
    CHECK(ref::nf4_code(threshold) == static_cast<int>(i));
    CHECK(ref::nf4_code(next) == static_cast<int>(i) + 1);
    double const middle = 0.5 * (ref::nf4_levels[i] + ref::nf4_levels[i + 1]);
    CHECK(std::fabs(ref::nf4_thresholds[i] - middle) < 1e-7);
  }
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(ref::nf4_code(ref::nf4_levels[i]) == static_cast<int>(i));
    CHECK(ref::to_fp32(ref::nf4_levels[i]) == ref::nf4_levels[i]);
  }
}

TEST_CASE("NF4 codes are computed against the rounded constant", "[reference][nf4]") {
  // fp16(1.0004) = 1. 0.8615 / 1 lies above the last threshold 0.861478; 0.8615 / 1.0004 = 0.86116 would not.
  auto const block = ref::nf4_block(numbers{ref::to_fp32(1.0004), ref::to_fp32(0.8615)});
  CHECK(block.absmax == 1.0);
  CHECK(block.codes == codes{15, 15});
}

TEST_CASE("an NF4 block of zeros has the zero code", "[reference][nf4]") {
  auto const zeros = ref::nf4_block(numbers(4, 0.0));
  CHECK(zeros.absmax == 0.0);
  CHECK(zeros.codes == codes(4, 7));
  CHECK(zeros.xhat == numbers(4, 0.0));
  CHECK(ref::nf4_block(numbers{0x1p-30, -0x1p-30}).codes == codes{7, 7});  // the constant underflows fp16
}

TEST_CASE("NQKV blocks run over the concatenated heads and may end short", "[reference][nf4]") {
  // Two heads, two tokens, dim 3; token 1 is {3, 4, 8 | -2, 1, 0}; blocks of 4: {3, 4, 8, -2} and {1, 0}.
  // Ratios of block 0: 0.375 (12: 0.338 ... threshold 0.389 above -> code 11), 0.5 (0.4407, threshold 0.5017
  // -> 12), 1, -0.25 (-0.284, threshold -0.2346 above -> code 4).
  numbers const x{0, 0, 0, 3, 4, 8, 0, 0, 0, -2, 1, 0};
  auto const token = ref::concatenated_heads(x, 2, 2, 3, 1);
  CHECK(token == numbers{3, 4, 8, -2, 1, 0});
  auto const row = ref::nqkv_row(token, 4);
  CHECK(row.absmax == numbers{8.0, 1.0});
  CHECK(row.codes == codes{11, 12, 15, 4, 15, 7});
  REQUIRE(row.xhat.size() == 6);
  CHECK(row.xhat[0] == 8.0 * 0.33791524171829224);
  CHECK(row.xhat[4] == 1.0);

  // The published block is 256 channels.
  numbers wide(300, 1.0);
  wide[255] = 2.0;
  wide[256] = 4.0;
  CHECK(ref::nqkv_row(wide).absmax == numbers{2.0, 4.0});
}

TEST_CASE("outward parameters of fp16 numbers are the plain ones", "[reference][outward]") {
  auto const group = ref::outward_group(numbers{1.0, 1.5, 2.5, 3.5, 4.0}, 2);
  CHECK(group.mn == 1.0);
  CHECK(group.scale == 1.0);
  CHECK(group.codes == codes{0, 0, 2, 2, 3});  // halves to even
  CHECK(group.xhat == numbers{1.0, 1.0, 3.0, 3.0, 4.0});
}

TEST_CASE("the outward minimum is rounded down and the scale up", "[reference][outward]") {
  // 1/3: 1365.33 steps of 2^-12 -> 1365. range = 1 - 1365 / 4096 = 2731 / 4096; / 3 = 0.22224935, 1820.67
  // steps of 2^-13 -> 1821. Code of 1: 0.66674805 / 0.22229004 = 2.9995 -> 3.
  auto const positive = ref::outward_group(numbers{ref::to_fp32(1.0 / 3.0), 1.0}, 2);
  CHECK(positive.mn == 1365.0 / 4096.0);
  CHECK(positive.scale == 1821.0 / 8192.0);
  CHECK(positive.codes == codes{0, 3});
  CHECK(positive.xhat == numbers{1365.0 / 4096.0, 1365.0 / 4096.0 + 3.0 * 1821.0 / 8192.0});
  // -1/3: down is away from zero.
  CHECK(ref::outward_group(numbers{ref::to_fp32(-1.0 / 3.0), 1.0}, 2).mn == -1366.0 / 4096.0);
  // The same in e4m3: 1/3 = 1.333 * 2^-2 -> 1.25 * 2^-2 = 0.3125; (1 - 0.3125) / 3 = 0.229167 = 1.8333 * 2^-3
  // -> 1.875 * 2^-3 = 0.234375.
  auto const small = ref::outward_group(numbers{ref::to_fp32(1.0 / 3.0), 1.0}, 2, ref::e4m3_format);
  CHECK(small.mn == 0.3125);
  CHECK(small.scale == 0.234375);
  // 1/3 is 1365.33 steps of 2^-12: up, although the lower neighbour is nearer.
  CHECK(ref::outward_group(numbers{0.0, 1.0}, 2).scale == 1366.0 / 4096.0);
}

TEST_CASE("the outward scale spans from the stored minimum", "[reference][outward]") {
  // e4m3: 0.37 = 1.48 * 2^-2 -> 1.375 * 2^-2 = 0.34375. 0.98 - 0.34375 = 1.2725 / 2 -> 1.375 / 2. From 0.37
  // itself it would be 1.22 / 2 -> 1.25 / 2.
  auto const group = ref::outward_group(numbers{ref::to_fp32(0.37), ref::to_fp32(0.98)}, 1, ref::e4m3_format);
  CHECK(group.mn == 0.34375);
  CHECK(group.scale == 0.6875);
}

TEST_CASE("outward differences are rounded to fp32", "[reference][outward]") {
  // 3 + 2^-30 -> 3, so the scale is 1 and not the next number above.
  CHECK(ref::outward_group(numbers{-3.0, 0x1p-30}, 2).scale == 1.0);
  // scale = 4.03125 / 3 = 1.34375. x - mn = 2.015625 - 0.9e-7 -> 2.015625, the quotient is 1.5 and its even
  // neighbour 2. From the unrounded difference the quotient would be 1.5 - 0.7e-7, code 1.
  auto const group = ref::outward_group(numbers{-2.015625, -0x1.8p-24, 2.015625}, 2);
  CHECK(group.scale == 1.34375);
  CHECK(group.codes == codes{0, 2, 3});
}

TEST_CASE("a constant outward group of an fp16 number decodes exactly", "[reference][outward]") {
  auto const group = ref::outward_group(numbers(3, -2.5), 4);
  CHECK(group.scale == 0.0);
  CHECK(group.codes == codes(3, 0));
  CHECK(group.xhat == numbers(3, -2.5));
}

TEST_CASE("outward groups err by half a step at most", "[reference][outward]") {
  // The subtraction, the division and the quotient round in fp32: 1e-6 of a step per unit of code covers
  // them.
  std::mt19937 generator(11);
  std::normal_distribution<double> normal;
  int const bits = GENERATE(1, 2, 4, 8);
  double worst = 0.0;
  for (int trial = 0; trial < 200; ++trial) {
    numbers x(16);
    for (double& value : x) { value = ref::to_fp32(normal(generator)); }
    auto const group = ref::outward_group(x, bits);
    for (std::size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::fabs(group.xhat[i] - x[i]) / group.scale);
    }
  }
  CHECK(worst <= 0.5 + 1e-4);
}
