// SPDX-License-Identifier: Apache-2.0
//! @file host::attend with affine codes equals the double reference on the decoded cache.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

template <class Scheme>
void check(Scheme const& scheme, int dim, int tile_tokens, std::int64_t tokens, int query_heads = 6,
           int queries = 1) {
  test::layer_rows const rows = test::random_layer(7, 2, tokens, dim, 4, 3);
  auto const cache = test::filled(scheme, rows, tile_tokens);
  test::check_host_attention(cache, test::random_queries(3, query_heads, queries, dim), query_heads, queries);
}

//! Values with parameters per channel, keys per token: the groupings the other way round.
template <int Bits>
using exchanged = kv_scheme<composed<affine<Bits, float16, qserve_convention>, per_token<64>>,
                            composed<affine<Bits, float16, midrise_convention>, per_channel<32>>>;

}  // namespace

TEST_CASE("host attention: OTT", "[host]") {
  check(schemes::ott<2, 128>(), 128, 128, 700);
  check(schemes::ott<2, 128>(), 64, 128, 300, 2);
  check(schemes::ott<2, 32>(), 96, 32, 333);
  check(schemes::ott<2, 32>(), 192, 64, 333, 4);
  check(schemes::ott<2, 32>(), 256, 128, 333);
}

TEST_CASE("host attention: KIVI at 1, 3, 4 and 8 bits", "[host]") {
  check(schemes::kivi<1, 8>(), 96, 32, 200);
  check(schemes::kivi<1, 8>(), 192, 128, 300);
  check(schemes::kivi<3, 64>(), 128, 128, 400);
  check(schemes::kivi<3, 64>(), 96, 64, 400);
  check(schemes::kivi<4, 16>(), 64, 64, 400, 10);
  check(schemes::kivi<8, 32>(), 256, 128, 300, 8);
}

TEST_CASE("host attention: keys per token, values per channel", "[host]") {
  for (int const dim : {64, 96, 128}) {
    check(exchanged<2>{}, dim, 32, 250);
    check(exchanged<3>{}, dim, 64, 250);
    check(exchanged<4>{}, dim, 128, 250);
  }
}
