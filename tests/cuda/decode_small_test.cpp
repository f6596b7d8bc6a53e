// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention on the smallest tiles: quick to compile, so that planted bugs and slow sanitizers
//! can afford it.
#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

constexpr double bound = 1e-3;

using ott = schemes::ott_type<2, 32>;
using decoder = device::decoder<ott, 64, 64, float16, float>;

std::vector<kv_cache<ott>> ott_caches(std::vector<int> const& lengths, int heads = 2) {
  ott scheme = schemes::ott<2, 32>();
  scheme.isolate.sinks = 5;
  return caches_of(scheme, heads, {64, 64}, lengths);
}

}  // namespace

TEST_CASE("small tiles: batches, drafts and windows", "[cuda][decode]") {
  // 16 slots of 1 KiB, two chunks to a tile: from 8 tiles of a warp on, slots and stages are used again.
  host_batch<ott> batch(ott_caches({0, 2, 63, 200, 2700}));
  for (int const blocks : {1, 13}) {
    decode_outcome const r = run_decode<decoder>(batch, {.query_heads = 6, .queries = 2, .blocks = blocks});
    CHECK(r.output < bound);
    CHECK(r.lse < 2e-3);
  }
  host_batch<ott> even(ott_caches({400, 400}, 1));  // two of the blocks begin where a sequence does
  CHECK(run_decode<decoder>(even, {.blocks = 6}).output < bound);
  host_batch<ott> few(ott_caches({300, 97}, 1));
  for (int const window : {1, 70, 150}) {
    attention_options o;
    o.window = window;
    CHECK(run_decode<decoder>(few, {.query_heads = 3, .queries = 4, .options = o}).output < bound);
  }
}

TEST_CASE("small tiles: soft caps, sinks, scales and parts of fixed size", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches({400, 90}));
  attention_options capped;
  capped.soft_cap = 2.0f;
  CHECK(run_decode<decoder>(batch, {.options = capped}).output < bound);
  decode_outcome const r = run_decode<decoder>(batch, {.part = 2, .blocks = 3, .sink = 3.0f});
  CHECK(r.output < bound);
  CHECK(r.lse < 2e-3);
}
