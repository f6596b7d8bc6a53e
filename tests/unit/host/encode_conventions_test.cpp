// SPDX-License-Identifier: Apache-2.0
//! @file host::encode of affine codes in the published conventions.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("bytes of codes with a minimum", "[host][encode]") {
  test::check_encode_everywhere(composed<affine<2, float16, skvq_convention>, per_token<64>>{}, 21);
  test::check_encode_everywhere(composed<affine<2, float16, kitty_convention>, per_channel<32>>{}, 22);
  test::check_encode_everywhere(composed<affine<4, float16, vllm_convention>, per_row>{}, 23);
  test::check_encode_everywhere(composed<affine<2, float16, midrise_convention>, per_channel<64>>{}, 24);
  test::check_encode_everywhere(composed<affine<4, bfloat16, midrise_convention>, per_channel<64>>{}, 25);
}

TEST_CASE("bytes of codes by the range and by a zero point", "[host][encode]") {
  test::check_encode_everywhere(composed<affine<2, float16, bitdecoding_convention>, per_channel<32>>{}, 26);
  test::check_encode_everywhere(composed<affine<4, float16, bitdecoding_convention>, per_token<128>>{}, 27);
  test::check_encode_everywhere(composed<affine<4, float16, qserve_convention>, per_row>{}, 28);
  test::check_encode_everywhere(composed<affine<2, float16, rotatekv_convention>, per_channel<32>>{}, 29);
  test::check_encode_everywhere(composed<affine<1, bfloat16, qserve_convention>, per_token<32>>{}, 30);
}
