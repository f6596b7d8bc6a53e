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

TEST_CASE("small tiles: a NaN is seen, wherever it is and however the work is cut", "[cuda][decode]") {
  auto const is_nan = [](float x) { return std::isnan(x); };
  auto const is_finite = [](float x) { return std::isfinite(x); };
  host_batch<ott> batch(ott_caches({400, 90}));
  for (int const blocks : {1, 40}) {
    decode_outcome const query = run_decode<decoder>(batch, {.blocks = blocks, .nan_head = 2});
    auto const row = query.o.begin() + 2 * 64;
    CHECK((std::all_of(row, row + 64, is_nan) && is_nan(query.l[2])));
    CHECK((std::all_of(query.o.begin(), row, is_finite) && std::all_of(row + 64, query.o.end(), is_finite)));
  }
  // The parameters of all groups of tile 2 of the first sequence: most warps see nothing else.
  batch_cache const& c = batch.view();
  using section = decoder::config::blob::key;
  std::byte* const tile = c.keys.section(c.pages.page(0, 2), 1);
  std::fill(tile + section::code_bytes, tile + section::code_bytes + section::param_bytes, std::byte{0xFF});
  for (int const blocks : {1, 40}) {
    decode_outcome const key = run_decode<decoder>(batch, {.blocks = blocks});
    auto const head = key.o.begin() + 2 * 64;  // query heads 2 and 3 read kv head 1
    CHECK((std::all_of(head, head + 2 * 64, is_nan) && is_nan(key.l[2]) && is_nan(key.l[3])));
    CHECK((std::all_of(key.o.begin(), head, is_finite) && is_finite(key.l[1])));
  }
}

TEST_CASE("small tiles: hundreds of parts of one segment, one of them NaN", "[cuda][decode]") {
  using rows4 = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
  using rows_decoder = device::decoder<rows4, 64, 32, float16, float>;
  // 150 parts and one of a single token: each of the four warps that join them has more than it has lanes.
  host_batch<rows4> rows(caches_of(rows4{}, 1, {64, 32}, {150 * 32 + 1, 40}));
  for (float const size : {0.5f, 4.0f}) {  // all parts count, a few do
    decode_outcome const r =
        run_decode<rows_decoder>(rows, {.query_heads = 2, .part = 1, .query_size = size});
    CHECK(r.output < bound);
    CHECK(r.lse < 2e-3);
  }
  // More blocks than there is work for: what the workspace held before means nothing.
  for (int const fill : {0x11, 0xFF})
    CHECK(run_decode<rows_decoder>(rows, {.query_heads = 2, .blocks = 60, .fill = fill}).output < bound);
  batch_cache const& c = rows.view();
  using section = rows_decoder::config::blob::key;
  std::byte* const tile = c.keys.section(c.pages.page(0, 77), 0);
  std::fill(tile + section::code_bytes, tile + section::code_bytes + section::param_bytes, std::byte{0xFF});
  decode_outcome const r = run_decode<rows_decoder>(rows, {.query_heads = 2, .part = 1});
  auto const second = r.o.begin() + 2 * 64;
  CHECK(std::all_of(r.o.begin(), second, [](float x) { return std::isnan(x); }));
  CHECK(std::all_of(second, r.o.end(), [](float x) { return std::isfinite(x); }));
}

TEST_CASE("small tiles: the largest window and the largest part mean all tokens", "[cuda][decode]") {
  using rows4 = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
  using rows_decoder = device::decoder<rows4, 64, 32, float16, float>;
  int const largest = std::numeric_limits<int>::max();
  host_batch<rows4> rows(caches_of(rows4{}, 1, {64, 32}, {300, 1}));  // seven queries before the first token
  attention_options o;
  o.window = largest;
  decode_outcome const windowed = run_decode<rows_decoder>(rows, {.queries = 8, .options = o}),
                       all = run_decode<rows_decoder>(rows, {.queries = 8});
  CHECK((windowed.o == all.o && windowed.l == all.l));
  CHECK(run_decode<rows_decoder>(rows, {.part = largest}).output < bound);
}

TEST_CASE("small tiles: more results to join than blocks for them", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches(std::vector<int>(33, 140), 4));
  decode_outcome const r = run_decode<decoder>(batch, {.query_heads = 32, .blocks = 100});
  CHECK(r.output < bound);
  CHECK(r.lse < 2e-3);
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
