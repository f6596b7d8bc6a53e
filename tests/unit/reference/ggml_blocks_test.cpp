// SPDX-License-Identifier: Apache-2.0
//! @file The reference q8_0 and q4_0 blocks against values and bytes worked out on paper.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "kvcrumb/reference/quantize_ggml.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;

namespace {

// 32 numbers: the given ones, then zeros.
std::vector<double> block_of(std::initializer_list<double> first) {
  std::vector<double> x(first);
  x.resize(32, 0.0);
  return x;
}

}  // namespace

TEST_CASE("q8_0 rounds halves away from zero and stores scale and signed bytes", "[reference][ggml]") {
  // d = 127 / 127 = 1 = fp16 0x3C00. 62.5 -> 63 = 0x3F, -62.5 -> -63 = 0xC1, 0.25 -> 0, -127 -> 0x81.
  auto const block = ref::ggml_q8_0(block_of({127.0, 62.5, -62.5, 0.25, -127.0}));
  CHECK(block.scale == 1.0);
  CHECK(block.codes[0] == 127);
  CHECK(block.codes[1] == 63);
  CHECK(block.codes[2] == -63);
  CHECK(block.codes[3] == 0);
  CHECK(block.xhat[2] == -63.0);
  REQUIRE(block.bytes.size() == 34);
  std::vector<std::uint8_t> expected{0x00, 0x3C, 0x7F, 0x3F, 0xC1, 0x00, 0x81};
  expected.resize(34, 0x00);
  CHECK(block.bytes == expected);
}

TEST_CASE("q8_0 multiplies by the rounded inverse", "[reference][ggml]") {
  // d = 5207 / 127 = 41. 1 / 41 = 13094412.49 * 2^-29 -> 13094412 * 2^-29. 20.5 times that is 268435446 *
  // 2^-29, 10 steps below 1/2, and rounds to 1/2 - 2^-25: code 0. A division would give exactly 1/2: code 1.
  auto const block = ref::ggml_q8_0(block_of({5207.0, 20.5}));
  CHECK(block.scale == 41.0);
  CHECK(block.codes[0] == 127);
  CHECK(block.codes[1] == 0);
}

TEST_CASE("q8_0 codes come from the scale before it is rounded", "[reference][ggml]") {
  // d = 1 + 2^-12, stored as 1. 63.5078125 / d = 63.4923 -> 63; against the stored scale it would be 64.
  auto const block = ref::ggml_q8_0(block_of({127.0 * (1.0 + 0x1p-12), 63.5078125}));
  CHECK(block.scale == 1.0);
  CHECK(block.codes[1] == 63);
  CHECK(block.xhat[0] == 127.0);
}

TEST_CASE("a q8_0 block of zeros is all zero bytes", "[reference][ggml]") {
  auto const block = ref::ggml_q8_0(block_of({}));
  CHECK(block.bytes == std::vector<std::uint8_t>(34, 0x00));
  CHECK(block.xhat == std::array<double, 32>{});
  // The inverse of d = 1e-40 / 127 overflows fp32: defined as zeros here.
  auto const tiny = ref::ggml_q8_0(block_of({ref::to_fp32(1e-40)}));
  CHECK(tiny.codes == std::array<int, 32>{});
  CHECK(tiny.bytes == std::vector<std::uint8_t>(34, 0x00));
}

TEST_CASE("q4_0 puts the number of largest magnitude on code 0", "[reference][ggml]") {
  // extreme -8, d = 1. -8 -> 0.5 -> 0; 7 -> 15.5 -> 15; 0.5 -> 9 -> 9; -0.5 -> 8 -> 8; 7.9 -> 16.4 -> 15.
  auto x = block_of({-8.0, 7.0, 0.5, -0.5, 7.875});
  x[16] = 1.0;  // 9.5 -> 9, high half of the first byte
  auto const block = ref::ggml_q4_0(x);
  CHECK(block.scale == 1.0);
  CHECK(block.codes[0] == 0);
  CHECK(block.codes[1] == 15);
  CHECK(block.codes[2] == 9);
  CHECK(block.codes[3] == 8);
  CHECK(block.codes[4] == 15);
  CHECK(block.codes[16] == 9);
  CHECK(block.xhat[0] == -8.0);
  CHECK(block.xhat[1] == 7.0);
  CHECK(block.xhat[16] == 1.0);
  std::vector<std::uint8_t> expected{0x00, 0x3C, 0x90, 0x8F, 0x89, 0x88, 0x8F};
  expected.resize(18, 0x88);
  CHECK(block.bytes == expected);
}

TEST_CASE("of equal magnitudes the first decides the sign of q4_0's scale", "[reference][ggml]") {
  // extreme 8, d = -1: 8 -> 0.5 -> 0 -> 8; -8 -> 16.5 -> 15 -> -7.
  auto const positive = ref::ggml_q4_0(block_of({8.0, -8.0}));
  CHECK(positive.scale == -1.0);
  CHECK(positive.codes[0] == 0);
  CHECK(positive.codes[1] == 15);
  CHECK(positive.xhat[0] == 8.0);
  CHECK(positive.xhat[1] == -7.0);
  CHECK(positive.bytes[0] == 0x00);
  CHECK(positive.bytes[1] == 0xBC);
  CHECK(ref::ggml_q4_0(block_of({-8.0, 8.0})).scale == 1.0);
}

TEST_CASE("q4_0 codes come from the scale before it is rounded", "[reference][ggml]") {
  // d = 1 + 2^-12, stored as 1. 2.5005 / d = 2.49989, + 8.5 = 10.99989 -> 10; against 1 it would be 11.
  auto const block = ref::ggml_q4_0(block_of({-8.0 * (1.0 + 0x1p-12), ref::to_fp32(2.5005)}));
  CHECK(block.scale == 1.0);
  CHECK(block.codes[1] == 10);
}

TEST_CASE("a q4_0 block of zeros has the scale -0 and the code 8", "[reference][ggml]") {
  std::vector<std::uint8_t> expected{0x00, 0x80};
  expected.resize(18, 0x88);
  CHECK(ref::ggml_q4_0(block_of({})).bytes == expected);
}
