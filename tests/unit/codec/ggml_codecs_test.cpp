// SPDX-License-Identifier: Apache-2.0
//! @file The ggml codecs and the symmetric codec: bytes worked out on paper, and the independent reference.
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvcrumb/layout/ggml_block.hpp"
#include "kvcrumb/reference/quantize_ggml.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

using q8 = symmetric<8, float16, symmetric_rule::ggml_q8_0>;
using q4 = symmetric<4, float16, symmetric_rule::ggml_q4_0>;

//! Scale and codes of one block as ggml_block lays them out.
template <class Codec>
std::vector<std::uint8_t> block_bytes(std::vector<float> const& x) {
  section_spec const s{{32, 32}, side::key, Codec::bits, false, 32, 1, 2};
  std::vector<std::byte> section(static_cast<std::size_t>(ggml_block::section_bytes(s)));
  auto const g = encode_group(Codec{}, x);
  std::uint32_t const scale = stored_bits(from_float<float16>(g.params.value[0]));
  section[0] = static_cast<std::byte>(scale & 0xFFu);
  section[1] = static_cast<std::byte>(scale >> 8);
  for (int j = 0; j < 32; ++j) {
    ggml_block::store(s, section.data(), 0, j, static_cast<unsigned>(g.codes[static_cast<std::size_t>(j)]));
  }
  std::vector<std::uint8_t> bytes;
  for (std::int64_t i = 0; i < ggml_block::block_bytes(s); ++i) {
    bytes.push_back(std::to_integer<std::uint8_t>(section[static_cast<std::size_t>(i)]));
  }
  return bytes;
}

std::vector<float> padded(std::vector<float> x) {
  x.resize(32, 0.0f);
  return x;
}

std::vector<std::vector<float>> blocks() {
  number_source source(31);
  std::vector<std::vector<float>> all;
  for (int trial = 0; trial < 200; ++trial) {
    all.push_back(source.bells(32, std::ldexp(1.0f, trial % 17 - 8), trial % 3 == 0 ? source.bell() : 0.0f));
    all.push_back(halves(source.bells(32)));
  }
  all.push_back(padded({}));
  all.push_back(std::vector<float>(32, -0.0f));
  all.push_back(std::vector<float>(32, 3.0f));
  all.push_back(std::vector<float>(32, -3.0f));
  all.push_back(padded({4.0f, -4.0f}));  // the first of equal magnitudes decides
  all.push_back(padded({-4.0f, 4.0f}));
  all.push_back(padded({1.0f, 2.0f, 4.0f, -4.0f, 4.0f}));
  all.push_back(padded({65504.0f, -65504.0f, 1.0f}));
  all.push_back(padded({0x1p-24f, -0x1p-25f}));
  all.push_back(padded({0x1p-120f, -0x1p-121f}));
  all.push_back(padded({0x1p-130f, -0x1p-131f, 0x1p-130f}));  // denormal: 1 / d overflows for q8_0
  all.push_back(padded({0x1p-149f, -0x1p-149f}));
  all.push_back(std::vector<float>(32, -0x1p-140f));
  return all;
}

}  // namespace

TEST_CASE("a q8_0 block worked out on paper", "[codec][ggml]") {
  // max |x| = 127, d = 1, code = x rounded with halves away from zero. fp16(1) = 0x3C00.
  std::vector<float> const x = padded({127.0f, -127.0f, 0.5f, -0.5f, 1.5f, -1.5f, 2.5f, -2.5f, 126.5f,
                                       -126.5f, 0.49f, -0.49f, 64.0f, -64.0f, 1.0f, -1.0f});
  std::vector<std::uint8_t> const expected{0x00, 0x3C,              //
                                           0x7F, 0x81, 0x01, 0xFF,  // 127 -127 1 -1
                                           0x02, 0xFE, 0x03, 0xFD,  // 2 -2 3 -3
                                           0x7F, 0x81, 0x00, 0x00,  // 127 -127 0 0
                                           0x40, 0xC0, 0x01, 0xFF,  // 64 -64 1 -1
                                           0,    0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  CHECK(block_bytes<q8>(x) == expected);
}

TEST_CASE("q8_0 codes use the scale before it is rounded", "[codec][ggml]") {
  // max 100: d = 0.78740160, fp16(d) = 0.78759766. 1/d = 1.27. x = 39.76 * 1.27 = 50.495 -> 50; x = 98.8 ->
  // 125.476 -> 125; x = 98.82 -> 125.5014 -> 126, but 98.82 / 0.78759766 = 125.4702 would be 125.
  auto const g = encode_group(q8{}, padded({100.0f, 98.82f, 98.8f}));
  CHECK(g.params.value[0] == 0.78759765625f);
  CHECK(g.codes[0] - 128 == 127);
  CHECK(g.codes[1] - 128 == 126);
  CHECK(g.codes[2] - 128 == 125);
}

TEST_CASE("a q4_0 block worked out on paper", "[codec][ggml]") {
  // Extreme -8, d = 1: code = trunc(x + 8.5), at most 15; channel j in the low nibble of byte j, j + 16 in
  // the high one.
  std::vector<float> x(32, 0.0f);  // code 8
  x[0] = -8.0f;                    // 0.5 -> 0
  x[1] = 7.0f;                     // 15.5 -> 15
  x[2] = 7.75f;                    // 16.25 -> 15
  x[3] = -7.5f;                    // 1.0 -> 1
  x[4] = 0.5f;                     // 9.0 -> 9
  x[5] = -0.5f;                    // 8.0 -> 8
  x[16] = 1.0f;                    // 9.5 -> 9
  x[17] = -1.0f;                   // 7.5 -> 7
  x[31] = 6.0f;                    // 14.5 -> 14
  std::vector<std::uint8_t> expected(18, 0x88);
  expected[0] = 0x00;
  expected[1] = 0x3C;
  expected[2] = 0x90;  // x[0], x[16]
  expected[3] = 0x7F;  // x[1], x[17]
  expected[4] = 0x8F;
  expected[5] = 0x81;
  expected[6] = 0x89;
  expected[7] = 0x88;
  expected[17] = 0xE8;  // x[15], x[31]
  CHECK(block_bytes<q4>(x) == expected);
  // The mirrored block has extreme +8 and d = -1, fp16 0xBC00: the same codes.
  for (float& v : x)
    v = -v;
  expected[1] = 0xBC;
  CHECK(block_bytes<q4>(x) == expected);
}

TEST_CASE("a q4_0 block of zeros has the scale -0", "[codec][ggml]") {
  std::vector<std::uint8_t> expected(18, 0x88);
  expected[0] = 0x00;
  expected[1] = 0x80;
  CHECK(block_bytes<q4>(padded({})) == expected);
}

TEST_CASE("q8_0 and q4_0 bytes equal the reference blocks", "[codec][ggml]") {
  int index = 0;
  for (auto const& x : blocks()) {
    CAPTURE(index++, x[0], x[1]);
    CHECK(block_bytes<q8>(x) == reference::ggml_q8_0(doubles(x)).bytes);
    CHECK(block_bytes<q4>(x) == reference::ggml_q4_0(doubles(x)).bytes);
  }
}

TEST_CASE("symmetric codes: the stored scale reaches the largest value", "[codec][symmetric]") {
  number_source source(33);
  for (int trial = 0; trial < 200; ++trial) {
    auto const x = source.bells(24, std::ldexp(1.0f, trial % 11 - 5));
    auto const compare = [&](auto codec, reference::float_format const& format) {
      int const top = (1 << (codec.bits - 1)) - 1;
      double largest = 0.0;
      for (float const v : x)
        largest = std::fmax(largest, std::fabs(static_cast<double>(v)));
      double const scale =
          reference::round_to(format, reference::to_fp32(largest / top), reference::rounding::up).value;
      auto const g = encode_group(codec, x);
      CHECK(static_cast<double>(g.params.value[0]) == scale);
      for (std::size_t i = 0; i < x.size(); ++i) {
        double const t = reference::round_half_even(reference::to_fp32(static_cast<double>(x[i]) / scale));
        double const code = std::fmin(std::fmax(t, -top), top);
        CHECK(g.codes[i] == static_cast<int>(code) + (1 << (codec.bits - 1)));
        CHECK(static_cast<double>(g.decoded[i]) == reference::to_fp32(code * scale));
      }
    };
    compare(symmetric<2>{}, reference::fp16_format);
    compare(symmetric<4>{}, reference::fp16_format);
    compare(symmetric<8, bfloat16>{}, reference::bf16_format);
    compare(symmetric<5, float>{}, reference::fp32_format);
    compare(symmetric<4, float8_e4m3>{}, reference::e4m3_format);
  }
}

TEST_CASE("symmetric halves go to the even code", "[codec][symmetric]") {
  auto const g = encode_group(symmetric<4>{}, {7.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f});  // scale 1
  CHECK(g.codes == std::vector<int>{15, 8, 10, 10, 8, 6, 6});
}
