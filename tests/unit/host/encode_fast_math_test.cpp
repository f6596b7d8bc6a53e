// SPDX-License-Identifier: Apache-2.0
//! @file host::encode and scores under -ffast-math: no flag changes a byte.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("bytes of host::encode do not depend on fast-math", "[host][encode]") {
  test::check_encode_everywhere(composed<affine<2, float16, kivi_convention>, per_channel<32>>{}, 61);
  test::check_encode_everywhere(composed<affine<4, float16, qserve_convention>, per_row>{}, 62);
  test::check_encode_everywhere(composed<lloyd_max<3>, per_token<128, head_crossing::across_heads>>{}, 63);
}

TEMPLATE_TEST_CASE("scores do not depend on fast-math", "[host][encode]", l1_score, l2_score, absmax_score) {
  test::check_scores<TestType, float16>({}, 96, 128, 64);
  test::check_scores<TestType, float>({}, 128, 37, 65);
}
