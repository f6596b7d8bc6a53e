// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention of one scheme of every kind on the smallest tiles.
#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

template <class Key, class Value>
using both = kv_scheme<Key, Value>;
template <class Codec, class Grouping, class Transform = identity>
using same = kv_scheme<composed<Codec, Grouping, Transform>, composed<Codec, Grouping, Transform>>;
using midrise = both<composed<affine<4, float16, midrise_convention>, per_channel<32>>,
                     composed<affine<3>, per_token<32>>>;
using symmetric_rotated = both<composed<symmetric<3>, per_channel<32>, hadamard<>>,
                               composed<symmetric<4>, per_token<32>, hadamard<>>>;

template <class Scheme>
void check(Scheme const& scheme = {}) {
  using decoder = device::decoder<Scheme, 64, 32, float16, float>;
  STATIC_REQUIRE(decoder::supports() == status::ok);
  host_batch<Scheme> batch(caches_of(scheme, 2, {64, 32}, {430, 416}));
  decode_outcome const r = run_decode<decoder>(batch, {.query_heads = 4, .queries = 3, .blocks = 1});
  CHECK(r.output < 1e-3);
  CHECK(r.lse < 2e-3);
}

}  // namespace

TEST_CASE("small tiles: three bits, half a step added to the keys", "[cuda][decode]") { check<midrise>(); }
TEST_CASE("small tiles: symmetric codes, rotated", "[cuda][decode]") { check<symmetric_rotated>(); }
TEST_CASE("small tiles: zero points per token", "[cuda][decode]") {
  check<same<affine<8, float16, qserve_convention>, per_token<32>>>();
}
TEST_CASE("small tiles: levels of a table", "[cuda][decode]") {
  check<both<composed<lloyd_max<4>, per_row>, composed<lloyd_max<3>, per_row>>>();
}
