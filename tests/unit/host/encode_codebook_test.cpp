// SPDX-License-Identifier: Apache-2.0
//! @file host::encode of codebooks and symmetric codes.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("bytes of codebooks", "[host][encode]") {
  test::check_encode_everywhere(composed<nf4<>, per_token<256, head_crossing::across_heads>>{}, 41);
  test::check_encode_everywhere(composed<nf2<bfloat16>, per_channel<32>>{}, 42);
  test::check_encode_everywhere(composed<lloyd_max<3>, per_token<128, head_crossing::across_heads>>{}, 43);
  test::check_encode_everywhere(composed<lloyd_max<4, float>, per_channel<16>>{}, 44);
  test::check_encode_everywhere(composed<e2m1<float16>, per_token<16>>{}, 45);
  composed<codebook<user_table<3>>, per_row> user;
  for (int i = 0; i < 8; ++i)
    user.codec.table.levels[i] = static_cast<float>(i * i) - 9.5f;
  test::check_encode_everywhere(user, 46);
}

TEST_CASE("bytes of symmetric codes", "[host][encode]") {
  test::check_encode_everywhere(composed<symmetric<2>, per_channel<32>>{}, 51);
  test::check_encode_everywhere(composed<symmetric<8, bfloat16>, per_token<32>>{}, 52);
  test::check_encode_everywhere(composed<symmetric<8, float16, symmetric_rule::ggml_q8_0>, per_token<32>>{},
                                53);
  test::check_encode_everywhere(composed<symmetric<4, float16, symmetric_rule::ggml_q4_0>, per_token<32>>{},
                                54);
  test::check_encode_everywhere(composed<symmetric<4, float16, symmetric_rule::ggml_q4_0>, per_channel<8>>{},
                                55);
}

TEST_CASE("steps of a codebook begin where the table says", "[host][encode]") {
  auto const check = [](auto const& table) {
    host::codebook_steps const steps = host::codebook_steps::of(table);
    constexpr int count = 1 << std::remove_cvref_t<decltype(table)>::bits;
    for (int rank = 0; rank + 1 < count; ++rank) {
      CHECK(static_cast<float>(table.nearest(host::codebook_steps::at(steps.above[rank]))) ==
            steps.code[rank]);
      CHECK(static_cast<float>(table.nearest(host::codebook_steps::at(steps.above[rank] + 1))) ==
            steps.code[rank + 1]);
    }
    return steps.in_order;
  };
  CHECK(check(nf4_table{}));
  CHECK(check(nf3_table{}));
  CHECK(check(lloyd_max_table<2>{}));
  CHECK_FALSE(check(e2m1_table{}));
}
