// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention of stored floats on small tiles, in which every slot of the ring is used again;
//! overflows.
#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

template <class Scheme>
void check(host_batch<Scheme>& batch) {
  using decoder = device::decoder<Scheme, 64, 64, float16, float>;
  STATIC_REQUIRE(decoder::supports() == status::ok);
  decode_outcome const r = run_decode<decoder>(batch, {.query_heads = 4, .blocks = 2});
  CHECK(r.output < 1e-3);
  CHECK(r.lse < 2e-3);
}

}  // namespace

TEST_CASE("small tiles: stored keys, packed values", "[cuda][decode]") {
  // 4 slots of 4 KiB: two chunks of keys and one of values to a tile, so that a slot is used again after a
  // tile and parameters are copied ahead of their codes.
  using scheme = kv_scheme<composed<raw<float16>, per_row>, composed<affine<8>, per_row>>;
  host_batch<scheme> batch(caches_of(scheme{}, 2, {64, 64}, {900}));
  check(batch);
}

TEST_CASE("small tiles: gains that overflow with the bias of the weights", "[cuda][decode]") {
  using scheme = kv_scheme<composed<affine<2>, per_row>, composed<affine<2>, per_row>>;
  layer_rows rows = random_layer(4, 1, 200, 64);
  for (float& v : rows.values)
    v = half(std::clamp(v * 20000.0f, -60000.0f, 60000.0f));
  host_batch<scheme> batch({filled(scheme{}, rows, 64)});
  check(batch);
}
