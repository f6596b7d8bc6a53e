// SPDX-License-Identifier: Apache-2.0
//! @file host::encode from rows of every type and order, through transforms, and at every slot.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("rows of other types", "[host][encode]") {
  composed<affine<2, float16, kivi_convention>, per_channel<32>> const keys;
  composed<affine<2>, per_token<64>> const values;
  test::check_encode_everywhere<float>(keys, 61, 128);
  test::check_encode_everywhere<bfloat16>(keys, 62, 128);
  test::check_encode_everywhere<float>(values, 63, 128);
  test::check_encode_everywhere<bfloat16>(values, 64, 128);
  test::check_encode_everywhere<float8_e4m3>(values, 65, 64);
  // Groups as small as the patches of the rows: some are positive throughout, and binary16 cannot hold their
  // minima.
  test::check_encode_everywhere<float>(composed<affine<2>, per_channel<8>>{}, 90, 128);
}

TEST_CASE("rows that are transformed", "[host][encode]") {
  test::check_encode_everywhere(composed<affine<4, float16, rotatekv_convention>, per_row, hadamard<>>{}, 66,
                                128);
  test::check_encode_everywhere(composed<affine<2>, per_channel<32>, hadamard<>>{}, 67, 128);
}

TEST_CASE("rows in the order of tokens", "[host][encode]") {
  for (unsigned seed = 70; seed < 74; ++seed) {
    test::check_encode<composed<affine<2, float16, kivi_convention>, per_channel<64>>, float16>(
        {}, {side::key, {128, 128}, 3, 64, 64, true, true}, seed);
    test::check_encode<composed<nf4<>, per_token<256, head_crossing::across_heads>>, float16>(
        {}, {side::value, {64, 32}, 7, 13, 5, true, true}, seed);
  }
}

TEST_CASE("single tokens at every slot", "[host][encode]") {
  unsigned seed = 80;
  for (int slot = 0; slot < 64; ++slot) {
    for (side const which : {side::key, side::value}) {
      test::check_encode<composed<affine<2, float16, kivi_convention>, per_token<32>>, float16>(
          {}, {which, {96, 64}, 2, 1, slot, false}, ++seed);
      test::check_encode<composed<affine<3, float16, kivi_convention>, per_row>, float16>(
          {}, {which, {64, 64}, 1, 2, slot < 63 ? slot : 62, false}, ++seed);
    }
  }
}
