// SPDX-License-Identifier: Apache-2.0
//! @file reference::kivi_group and KIVI's packed words against values worked out on paper.
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvcrumb/reference/quantize_kivi.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;

using codes = std::vector<int>;
using numbers = std::vector<double>;

TEST_CASE("KIVI rounds halves to even", "[reference][kivi]") {
  // min 0, max 3, scale 3 / 3 = 1; 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
  numbers const x{0.0, 0.5, 1.5, 2.5, 3.0};
  auto const group = ref::kivi_group(x, 2);
  CHECK(group.mn == 0.0);
  CHECK(group.scale == 1.0);
  CHECK(group.codes == codes{0, 0, 2, 2, 3});
  CHECK(group.xhat == numbers{0.0, 0.0, 2.0, 2.0, 3.0});
}

TEST_CASE("KIVI's range and scale are rounded to fp16", "[reference][kivi]") {
  // range = 2049 -> 2048 (step 2, tie to even); scale = 2048 / 3 = 682.67 -> 682.5 (step 0.5).
  // 2048: t = 2049 -> 2048, 2048 / 682.5 = 3.0007 -> 3. Decoded 3 * 682.5 - 1 = 2046.5.
  numbers const x{2048.0, -1.0, 681.5};
  auto const group = ref::kivi_group(x, 2);
  CHECK(group.mn == -1.0);
  CHECK(group.scale == 682.5);
  CHECK(group.codes == codes{3, 0, 1});
  CHECK(group.xhat == numbers{2046.5, -1.0, 681.5});
}

TEST_CASE("KIVI's quotient is rounded to fp16 before it is rounded to a code", "[reference][kivi]") {
  // scale = (3082 / 1024) / 3 = 1027.33 / 1024 -> 1027 / 1024. x = 1284 / 512: the quotient 2.50049 rounds to
  // 2.5 in fp16 (step 1 / 512), whose even neighbour is 2; without that rounding the code would be 3.
  numbers const x{0.0, 1284.0 / 512.0, 3082.0 / 1024.0};
  auto const group = ref::kivi_group(x, 2);
  CHECK(group.scale == 1027.0 / 1024.0);
  CHECK(group.codes == codes{0, 2, 3});
  CHECK(group.xhat == numbers{0.0, 2054.0 / 1024.0, 3081.0 / 1024.0});
}

TEST_CASE("KIVI's difference is rounded to fp16 before the division", "[reference][kivi]") {
  // min = -15 / 16384. The difference (1284 + 0.46875) / 512 -> 1284 / 512, then as above 2.50049 -> 2.5 ->
  // 2. From the unrounded difference the quotient is 2.50140 -> 2.50195 -> 3. The range also loses its
  // 0.46875 / 512.
  numbers const x{-15.0 / 16384.0, 1284.0 / 512.0, 1541.0 / 512.0};
  auto const group = ref::kivi_group(x, 2);
  CHECK(group.scale == 1027.0 / 1024.0);
  CHECK(group.codes == codes{0, 2, 3});
}

TEST_CASE("a constant group of KIVI decodes exactly", "[reference][kivi]") {
  double const value = GENERATE(0.0, -3.5, 65504.0, 0x1p-24);
  auto const group = ref::kivi_group(numbers(5, value), 4);
  CHECK(group.codes == codes(5, 0));
  CHECK(group.scale == 0.0);
  CHECK(group.mn == value);
  CHECK(group.xhat == numbers(5, value));
}

TEST_CASE("a range below the smallest scale counts as constant", "[reference][kivi]") {
  // Range 1 step of 2^-24; divided by 15 it underflows to 0.
  numbers const x{0.0, 0x1p-24};
  auto const group = ref::kivi_group(x, 4);
  CHECK(group.scale == 0.0);
  CHECK(group.codes == codes{0, 0});
}

TEST_CASE("words are filled from their lowest bits", "[reference][kivi]") {
  CHECK(ref::pack_words(codes{1, 2, 3, 4, 5, 6, 7, 15}, 4) == std::vector<std::uint32_t>{0xF7654321u});
  CHECK(ref::pack_words(codes{255, 1, 0, 128}, 8) == std::vector<std::uint32_t>{0x800001FFu});
  codes two_bits(32, 0);
  two_bits[0] = 3;
  two_bits[15] = 2;  // bits 30 and 31 of the first word
  two_bits[17] = 1;  // bits 2 and 3 of the second
  CHECK(ref::pack_words(two_bits, 2) == std::vector<std::uint32_t>{0x80000003u, 0x00000004u});
}

TEST_CASE("KIVI packs keys along the tokens of a channel", "[reference][kivi]") {
  // 16 tokens, 2 channels, groups of 8 tokens. Channel 0: 0 1 2 3 0 1 2 3 ..., scale 1, every byte 3 2 1 0 =
  // 0xE4. Channel 1: eight times 5 (scale 0, codes 0), then 16 14 12 10 twice: min 10, scale 2, codes 3 2 1 0
  // = 0x1B.
  numbers x;
  for (int t = 0; t < 16; ++t) {
    x.push_back(t % 4);
    x.push_back(t < 8 ? 5.0 : 16.0 - 2.0 * (t % 4));
  }
  auto const packed = ref::kivi_pack_keys(x, 16, 2, 8, 2);
  CHECK(packed.words == std::vector<std::uint32_t>{0xE4E4E4E4u, 0x1B1B0000u});
  CHECK(packed.scale == numbers{1.0, 1.0, 0.0, 2.0});
  CHECK(packed.mn == numbers{0.0, 0.0, 5.0, 10.0});
  CHECK(packed.xhat == x);
}

TEST_CASE("KIVI packs values along the channels of a token", "[reference][kivi]") {
  // 2 tokens, 8 channels, groups of 4 channels, 4 bits. Token 0: both scales 1. Token 1: scale 2, then a
  // constant.
  numbers const x{0, 1, 2, 15, 15, 0, 7, 8,  //
                  0, 2, 4, 30, 3,  3, 3, 3};
  auto const packed = ref::kivi_pack_values(x, 2, 8, 4, 4);
  CHECK(packed.words == std::vector<std::uint32_t>{0x870FF210u, 0x0000F210u});
  CHECK(packed.scale == numbers{1.0, 1.0, 2.0, 0.0});
  CHECK(packed.mn == numbers{0.0, 0.0, 0.0, 3.0});
  CHECK(packed.xhat == x);
}
