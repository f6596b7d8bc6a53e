// SPDX-License-Identifier: Apache-2.0
//! @file host::attend with codebooks, symmetric codes and transforms equals the double reference.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

template <class Scheme>
void check(Scheme const& scheme, int dim, int tile_tokens, std::int64_t tokens, double tolerance = 5e-4) {
  test::layer_rows const rows = test::random_layer(11, 2, tokens, dim, 4, 3);
  auto const cache = test::filled(scheme, rows, tile_tokens);
  test::check_host_attention(cache, test::random_queries(5, 6, 1, dim), 6, 1, {}, tolerance);
}

template <class Codec>
using both_sides = kv_scheme<composed<Codec, per_channel<32>>, composed<Codec, per_token<64>>>;
using rotated = kv_scheme<composed<symmetric<8, bfloat16>, per_row, hadamard<64>>,
                          composed<symmetric<4, float>, per_token<32>, hadamard<64>>>;

}  // namespace

TEST_CASE("host attention: NQKV and QServe", "[host]") {
  check(schemes::nqkv4(), 128, 128, 300);
  check(schemes::nqkv4(), 64, 32, 300);
  check(schemes::qserve4(), 128, 64, 300);
}

TEST_CASE("host attention: codebooks of 2 and 3 bits", "[host]") {
  check(both_sides<nf2<>>{}, 128, 128, 300);
  check(both_sides<lloyd_max<3>>{}, 192, 64, 300);
  check(both_sides<lloyd_max<3>>{}, 96, 32, 300);
}

TEST_CASE("host attention: symmetric codes, bf16 and f32 parameters, a rotation", "[host]") {
  check(rotated{}, 128, 128, 300);
  check(rotated{}, 64, 32, 70);
}
