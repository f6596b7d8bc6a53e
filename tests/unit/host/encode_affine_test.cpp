// SPDX-License-Identifier: Apache-2.0
//! @file host::encode of affine codes: every width, in the arithmetic of KIVI and in binary32.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

template <int Bits, class Grouping>
using kivi_side = composed<affine<Bits, float16, kivi_convention>, Grouping>;

}  // namespace

TEST_CASE("bytes of KIVI's codes per channel", "[host][encode]") {
  test::check_encode_everywhere(kivi_side<2, per_channel<128>>{}, 1);
  test::check_encode_everywhere(kivi_side<2, per_channel<32>>{}, 2);
  test::check_encode_everywhere(kivi_side<1, per_channel<8>>{}, 3);
  test::check_encode_everywhere(kivi_side<3, per_channel<64>>{}, 4);
}

TEST_CASE("bytes of KIVI's codes per token", "[host][encode]") {
  test::check_encode_everywhere(kivi_side<2, per_token<128>>{}, 5);
  test::check_encode_everywhere(kivi_side<2, per_token<32>>{}, 6);
  test::check_encode_everywhere(kivi_side<4, per_token<64>>{}, 7);
  test::check_encode_everywhere(kivi_side<8, per_row>{}, 8);
  test::check_encode_everywhere(kivi_side<2, per_token<256, head_crossing::across_heads>>{}, 9);
}

TEST_CASE("bytes of affine codes in binary32", "[host][encode]") {
  test::check_encode_everywhere(composed<affine<2>, per_channel<16>>{}, 10);
  test::check_encode_everywhere(composed<affine<8>, per_channel<32>>{}, 11);
  test::check_encode_everywhere(composed<affine<1, bfloat16>, per_token<64>>{}, 12);
  test::check_encode_everywhere(composed<affine<3, float>, per_token<48>>{}, 13);
}
