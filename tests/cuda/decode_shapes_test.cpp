// SPDX-License-Identifier: Apache-2.0
//! @file Lengths, batches, paging, grouped queries, drafts, windows, caps, sinks, splits and bad arguments.
#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

using ott = schemes::ott_type<2, 128>;
using decoder = device::decoder<ott, 128, 128, float16, float>;
using wide_decoder [[maybe_unused]] = device::decoder<ott, 128, 128, float16, float, 2>;
using row_scheme = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
using row_decoder = device::decoder<row_scheme, 64, 32, float16, float>;
constexpr double bound = 1e-3;

std::vector<kv_cache<ott>> ott_caches(std::vector<int> const& lengths, int heads = 2) {
  return caches_of(schemes::ott<2, 128>(), heads, {128, 128}, lengths);
}

}  // namespace

TEST_CASE("lengths from nothing to a tile and more, alone and in a batch", "[cuda][decode]") {
  std::vector<int> const lengths{0, 1, 31, 32, 33, 127, 128, 129, 160, 161, 287, 288, 289, 700};
  host_batch<ott> batch(ott_caches(lengths));
  decode_outcome const r = run_decode<decoder>(batch, {.blocks = 7});
  CHECK(r.output < bound);
  CHECK(r.lse < 2e-3);
  for (int i = 0; i < 4 * 128; ++i)
    REQUIRE(r.o[size(i)] == 0.0f);  // the sequence without tokens
  for (int i = 0; i < 4; ++i)
    REQUIRE(r.l[size(i)] == negative_infinity);

  host_batch<row_scheme> rows(caches_of(row_scheme{}, 2, {64, 32}, {0, 1, 31, 32, 33, 64, 65, 200}));
  decode_outcome const s = run_decode<row_decoder>(rows, {.blocks = 3});
  CHECK(s.output < bound);
  CHECK(s.lse < 2e-3);
}

TEST_CASE("pages by table, lists and contiguous, with joint and separate strides", "[cuda][decode]") {
  for (page_form const pages : {page_form::paged, page_form::listed, page_form::contiguous}) {
    for (bool const separate : {false, true}) {
      host_batch<ott> batch(ott_caches({300, 0, 500}), {.pages = pages, .separate = separate});
      CHECK(run_decode<decoder>(batch, {}).output < bound);
    }
  }
}

TEST_CASE("any number of query heads per kv head, and drafts", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches({420, 300}, 1));
  for (int const ratio : {1, 3, 5, 6, 12, 16}) {
    for (int const queries : {1, 3, 8}) {
      INFO("ratio " << ratio << " queries " << queries);
      CHECK(run_decode<decoder>(batch, {.query_heads = ratio, .queries = queries}).output < bound);
#if !defined(KVCRUMB_SIMT_LIGHT)
      CHECK(run_decode<wide_decoder>(batch, {.query_heads = ratio, .queries = queries}).output < bound);
#endif
    }
  }
}

TEST_CASE("windows, soft caps, sink logits and scales", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches({700, 130}));
  for (int const window : {1, 20, 33, 100, 200, 300, 5000}) {
    INFO("window " << window);
    attention_options o;
    o.window = window;
    CHECK(run_decode<decoder>(batch, {.queries = 4, .options = o}).output < bound);
  }
  attention_options capped;
  capped.soft_cap = 3.0f;
  CHECK(run_decode<decoder>(batch, {.options = capped}).output < bound);
  CHECK(run_decode<decoder>(batch, {.sink = 4.0f}).output < bound);
  attention_options scaled;
  scaled.softmax_scale = 0.02f;
  CHECK(run_decode<decoder>(batch, {.options = scaled}).output < bound);

  host_batch<row_scheme> rows(caches_of(row_scheme{}, 1, {64, 32}, {200, 70}));  // drafts inside tiles
  for (int const window : {0, 5, 40}) {
    attention_options o;
    o.window = window;
    CHECK(run_decode<row_decoder>(rows, {.queries = 8, .options = o}).output < bound);
  }
}

TEST_CASE("any number of blocks, and parts of fixed size", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches({900, 0, 140, 400}));
  for (int const blocks : {1, 2, 3, 8, 40}) {
    INFO("blocks " << blocks);
    CHECK(run_decode<decoder>(batch, {.blocks = blocks}).output < bound);
    for (int const part : {1, 2, 100})
      CHECK(run_decode<decoder>(batch, {.part = part, .blocks = blocks}).output < bound);
  }
}

TEST_CASE("with parts of fixed size a result does not depend on the batch or the grid", "[cuda][decode]") {
  host_batch<ott> alone(ott_caches({650}));
  host_batch<ott> among(ott_caches({650, 300, 700}));
  decode_outcome const a = run_decode<decoder>(alone, {.part = 2, .blocks = 3});
  decode_outcome const b = run_decode<decoder>(among, {.part = 2, .blocks = 9});
  CHECK(std::equal(a.o.begin(), a.o.end(), b.o.begin()));
  CHECK(std::equal(a.l.begin(), a.l.end(), b.l.begin()));
  decode_outcome const again = run_decode<decoder>(alone, {.blocks = 3});
  decode_outcome const twice = run_decode<decoder>(alone, {.blocks = 3});
  CHECK(again.o == twice.o);
}

TEST_CASE("a few tokens that outweigh all others cost no accuracy", "[cuda][decode]") {
  // Keys of three tokens point where all queries do, 15 nats above the rest.
  int const n = 600, dim = 128;
  layer_rows rows = random_layer(3, 1, n, dim);
  for (int const t : {5, 300, 599}) {
    for (int d = 0; d < dim; ++d)
      rows.keys[size(rows.at(0, t) + d)] = half(d % 2 == 0 ? 1.5 : -1.5);
  }
  for (float& v : rows.values)
    v = half(v * 0.1);
  using scheme = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
  using four = device::decoder<scheme, 128, 128, float16, float>;
  host_batch<scheme> batch({filled(scheme{}, rows, 128)});
  CHECK(run_decode<four>(batch, {.query_size = 4.0f}).output < 2e-3);
}

TEST_CASE("values of any size stay finite", "[cuda][decode]") {
  using scheme = kv_scheme<composed<affine<2>, per_row>, composed<affine<2>, per_row>>;
  using two = device::decoder<scheme, 128, 128, float16, float>;
  layer_rows rows = random_layer(4, 1, 300, 128);
  for (float& v : rows.values)
    v = half(std::clamp(v * 20000.0f, -60000.0f, 60000.0f));  // gains far above 2^8
  host_batch<scheme> batch({filled(scheme{}, rows, 128)});
  CHECK(run_decode<two>(batch, {}).output < bound);
}

TEST_CASE("bf16 queries of any magnitude", "[cuda][decode]") {
  using bf = device::decoder<row_scheme, 64, 32, bfloat16, float>;
  host_batch<row_scheme> batch(caches_of(row_scheme{}, 1, {64, 32}, {100}));
  for (float const factor : {1e-3f, 1.0f, 1e4f}) {
    attention_options o;
    o.softmax_scale = 0.125f / factor;
    CHECK(run_decode<bf, row_scheme, bfloat16>(batch, {.options = o, .query_size = factor}).output < bound);
  }
}

TEST_CASE("bad arguments launch nothing", "[cuda][decode]") {
  host_batch<ott> batch(ott_caches({300}));
  ott const scheme = schemes::ott<2, 128>();
  std::vector<float16> q(4 * 128);
  std::vector<float> o(4 * 128, 7.0f);
  decoder::request_type good;
  good.cache = batch.view();
  good.q = {q.data(), 512, 128, 128};
  good.o = {o.data(), 512, 128, 128};
  good.query_heads = 4;
  good.options.blocks = 3;
  std::int64_t bytes = 0;
  REQUIRE(decoder::workspace(good, bytes) == cudaSuccess);
  aligned_array<std::byte> workspace(bytes);
  auto const refused = [&](status why, auto change) {
    decoder::request_type r = good;
    change(r);
    CHECK(decoder::check(scheme, r) == why);
    CHECK(decoder::attend(scheme, r, workspace.data(), bytes) == cudaErrorInvalidValue);
  };
  using request = decoder::request_type;
  refused(status::bad_head_dim, [](request& r) { r.cache.shape.head_dim = 64; });
  refused(status::bad_tile_tokens, [](request& r) { r.cache.shape.tile_tokens = 64; });
  refused(status::bad_shape, [](request& r) { r.query_heads = 3; });
  refused(status::bad_shape, [](request& r) { r.queries = 9; });
  refused(status::bad_shape, [](request& r) { r.queries = 0; });
  refused(status::out_of_range, [](request& r) { r.options.softmax_scale = -1.0f; });
  refused(status::out_of_range, [](request& r) { r.options.soft_cap = std::nanf(""); });
  refused(status::bad_window, [](request& r) { r.options.window = -1; });
  refused(status::bad_window, [](request& r) { r.options.tiles_per_part = 2; });
  refused(status::null_pointer, [](request& r) { r.cache.tokens = nullptr; });
  refused(status::null_pointer, [](request& r) { r.cache.keys.data = nullptr; });
  refused(status::misaligned, [](request& r) { r.cache.keys.data += 8; });
  refused(status::misaligned, [](request& r) { r.cache.values.stride_page += 8; });
  refused(status::bad_stride, [](request& r) { r.cache.keys.stride_head = 4096; });
  refused(status::misaligned, [](request& r) { ++r.cache.tail_keys.data; });
  refused(status::bad_stride, [](request& r) { r.cache.tail_values.stride_token = 120; });
  refused(status::bad_window, [](request& r) { r.cache.tail_capacity = 0; });
  refused(status::null_pointer, [](request& r) { r.cache.pool.counts = nullptr; });
  refused(status::null_pointer, [](request& r) { r.q.data = nullptr; });
  refused(status::bad_stride, [](request& r) { r.o.stride_head = 64; });
  refused(status::bad_stride, [](request& r) { r.cache.tail_keys.stride_head = 0; });
  auto const refused_of_two = [&](status why, auto change) {
    refused(why, [&](request& r) {
      r.cache.sequences = 2;
      change(r);
    });
  };
  refused_of_two(status::bad_stride, [](request& r) { r.q.stride_sequence = 0; });
  refused_of_two(status::bad_stride, [](request& r) { r.cache.pool.keys.stride_sequence = 0; });
  refused_of_two(status::bad_stride, [](request& r) { r.cache.pages.stride = 0; });
  refused_of_two(status::size_overflow, [](request& r) {
    r.cache.pages = {.stride = (std::int64_t{1} << 30) + 1};  // page numbers are 32 bits
  });
  std::int32_t const list[] = {0, 3};
  refused(status::null_pointer, [&](request& r) { r.cache.pages.last_page_len = list; });
  refused(status::null_pointer, [&](request& r) {  // sinks, tail and `encoded` need lengths
    r.cache.pages.indptr = r.cache.pages.last_page_len = list;
    r.cache.tokens = nullptr;
  });
  decoder::request_type none = good;
  none.cache.kv_heads = 0;
  CHECK(decoder::workspace(none, bytes) == cudaErrorInvalidValue);
  CHECK(decoder::attend(scheme, good, workspace.data(), bytes - 16) == cudaErrorInvalidValue);
  CHECK(decoder::attend(scheme, good, nullptr, bytes) == cudaErrorInvalidValue);
  CHECK(decoder::attend(scheme, good, workspace.data() + 8, bytes) == cudaErrorInvalidValue);
  CHECK(std::all_of(o.begin(), o.end(), [](float x) { return x == 7.0f; }));
  good.cache.sequences = 0;
  CHECK(decoder::attend(scheme, good, workspace.data(), bytes) == cudaSuccess);
}
