// SPDX-License-Identifier: Apache-2.0
//! @file Any chunking of the same rows gives the same bytes, a token's bytes do not depend on its neighbours'
//! heads, and no tracer changes a byte.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Longest interesting length: two flushes and a rest.
template <class Scheme>
std::int64_t interesting(Scheme const& scheme) {
  return 2 * static_cast<std::int64_t>(scheme.flush.block > 1 ? scheme.flush.block : 8) +
         scheme.flush.recent + 3;
}

}  // namespace

TEST_CASE("every split into two appends gives the same file", "[cache][chunking]") {
  test::each_scheme([](auto const& scheme) {
    std::int64_t const n = interesting(scheme);
    test::layer_rows const rows = test::random_layer(3, 1, n, 64, 4, 5);
    auto const empty = test::made(scheme, 1, {64, scheme.append_tokens > 32 ? 128 : 32});
    auto whole = empty;
    test::append(whole, rows, 0, n);
    auto const expected = test::saved(whole);
    int different = 0;
    auto growing = empty;  // one token at a time; also the first part of the next split
    for (std::int64_t at = 0; at <= n; ++at) {
      if (at > 0) test::append(growing, rows, at - 1, at);
      if (scheme.flush.block > 1 && at % 3 != 0 && n - at > 3) continue;  // group-tiled: every third suffices
      auto parts = growing;
      test::append(parts, rows, at, n);
      if (test::saved(parts) != expected) ++different;
    }
    CAPTURE(scheme.name, n);
    CHECK(different == 0);
    CHECK(test::saved(growing) == expected);
  });
}

TEST_CASE("every split into two appends, small groups, exhaustively", "[cache][chunking]") {
  using keys_type = composed<affine<2, float16, kivi_convention>, per_channel<8>, identity, fragment>;
  using values_type = composed<affine<2, float16, kivi_convention>, per_token<16>, identity, fragment>;
  kv_scheme<keys_type, values_type, token_pool<>> const scheme{
      .flush = {5, 16}, .isolate = {.capacity = 2, .auxiliary = 3, .sinks = 2}};
  test::layer_rows const rows = test::random_layer(5, 2, 75, 64, 4, 6);
  auto const expected = test::saved(test::filled(scheme, rows, 32));
  for (std::int64_t at = 0; at <= 75; ++at) {
    auto parts = test::made(scheme, 2, {64, 32});
    test::append(parts, rows, 0, at);
    test::append(parts, rows, at, 75);
    CAPTURE(at);
    CHECK(test::saved(parts) == expected);
  }
}

TEST_CASE("random chunkings give the same file", "[cache][chunking]") {
  unsigned const seed = GENERATE(11u, 12u, 13u);
  test::each_scheme([&](auto const& scheme) {
    std::int64_t const n = 300;
    test::layer_rows const rows = test::random_layer(seed, 2, n, 64, 4, 7);
    auto const empty = test::made(scheme, 2, {64, 128});
    auto whole = empty, parts = empty;
    test::append(whole, rows, 0, n);
    std::mt19937 engine{seed};
    for (std::int64_t at = 0; at < n;) {
      std::int64_t const end = std::min<std::int64_t>(n, at + static_cast<std::int64_t>(engine() % 60));
      test::append(parts, rows, at, end);  // empty chunks too
      at = end;
    }
    CAPTURE(scheme.name, seed);
    CHECK(test::saved(parts) == test::saved(whole));
  });
}

TEST_CASE("a head alone gives the same bytes as in a layer", "[cache][chunking]") {
  test::each_scheme([](auto const& scheme) {
    // NQKV's groups of 256 channels hold four heads of 64; other schemes decide per head.
    int const together = decltype(scheme.key)::grouping_type::head_span(64);
    test::layer_rows const rows = test::random_layer(6, 2 * together, 170, 64, 4, 4);
    auto const layer = test::filled(scheme, rows, 128);
    bool same = layer.tiles() > 0 || scheme.flush.block == 0;
    for (int first = 0; first < 2 * together; first += together) {
      auto const alone = test::filled(scheme, rows.head(first, together), 128);
      for (int h = 0; h < together; ++h) {
        for (std::int64_t tile = 0; tile < layer.tiles(); ++tile) {
          same = same && std::memcmp(layer.blob(tile, first + h), alone.blob(tile, h),
                                     test::size(layer.blob_parts().bytes)) == 0;
        }
      }
    }
    CAPTURE(scheme.name);
    CHECK(same);
  });
}

TEST_CASE("a token alone gives the same bytes as among others, row-independent schemes",
          "[cache][chunking]") {
  test::each_scheme([](auto const& scheme) {
    if constexpr (std::decay_t<decltype(scheme)>::row_independent) {
      test::layer_rows const rows = test::random_layer(8, 4, 40, 64);
      auto const all = test::filled(scheme, rows, 32);
      for (std::int64_t const t : {0, 1, 31, 32, 39}) {
        auto alone = test::made(scheme, 4, {64, 32});
        for (std::int64_t i = 0; i < t; ++i)
          test::append(alone, rows, 0, 1);  // the same slot, other neighbours
        test::append(alone, rows, t, t + 1);
        std::vector<float> k(64), v(64), k2(64), v2(64);
        for (int h = 0; h < 4; ++h) {
          REQUIRE(all.read(h, t, k.data(), v.data()) == status::ok);
          REQUIRE(alone.read(h, t, k2.data(), v2.data()) == status::ok);
          CHECK(test::same_bits(k, k2));
          CHECK(test::same_bits(v, v2));
        }
      }
    }
  });
}

TEST_CASE("tracing never changes a byte of a cache", "[cache][trace]") {
  test::each_scheme([](auto const& scheme) {
    test::layer_rows const rows = test::random_layer(4, 2, 200, 64, 3, 4);
    auto plain = test::made(scheme, 2, {64, 128});
    auto traced = plain, prefilled = plain, traced_prefill = plain;
    test::append(plain, rows, 0, 200);
    std::vector<float> maxima(2 * 64, 0.0f), norms(2 * 200, -1.0f);
    error_tracer errors;
    channel_absmax_tracer channels{side::key, maxima.data()};
    row_norm_tracer row_norms{side::key, norms.data(), 200};
    tracer_pair<channel_absmax_tracer, row_norm_tracer> two{channels, row_norms};
    tracer_pair<error_tracer, decltype(two)> all{errors, two};
    REQUIRE(traced.append(rows.key_rows(), rows.value_rows(), 200, all) == status::ok);
    REQUIRE(prefilled.prefill(rows.key_rows(), rows.value_rows(), 200) == status::ok);
    REQUIRE(traced_prefill.prefill(rows.key_rows(), rows.value_rows(), 200, all) == status::ok);
    CAPTURE(scheme.name);
    CHECK(test::saved(traced) == test::saved(plain));
    CHECK(test::saved(traced_prefill) == test::saved(prefilled));
    // The tracers did see what was encoded.
    std::int64_t encoded = 0;
    for (float const n : norms)
      encoded += n >= 0.0f ? 1 : 0;
    CHECK(encoded == 2 * traced.tile_slots());
    CHECK((errors.count[0] > 0) == (traced.tile_slots() > 0));
    if (traced.tile_slots() > 0) CHECK(errors.relative(side::key) > 0.0);
  });
}

TEST_CASE("attention with a tracer gives the same bits and shows every visible logit once",
          "[attention][trace]") {
  struct score_counter {
    std::vector<int> seen;
    std::int64_t tokens;
    void on_score(score_coordinate c, float) {
      ++seen[test::size((c.query_head * 2 + c.query) * tokens + c.token)];
    }
  };
  test::layer_rows const rows = test::random_layer(4, 2, 200, 64, 3, 4);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const q = test::random_queries(5, 4, 2, 64);
  auto const plain = test::run_attention(cache.view(), q, 4, 2);
  score_counter counter{std::vector<int>(4 * 2 * 200, 0), 200};
  std::vector<float> o(4 * 2 * 64), lse(8), work(test::size(attend_workspace(cache.view(), 4, 2)));
  REQUIRE(attend(cache.view(), hnd_rows(q.data(), 2, 64), 4, 2, hnd_rows(o.data(), 2, 64), lse.data(), {},
                 work, counter) == status::ok);
  CHECK(test::same_bits(o, plain.output));
  CHECK(test::same_bits(lse, plain.lse));
  bool once = true;
  for (int i = 0; i < 8; ++i) {
    for (int t = 0; t < 200; ++t) {
      bool const visible = t <= 198 + i % 2;
      once = once && counter.seen[test::size(i * 200 + t)] == (visible ? 1 : 0);
    }
  }
  CHECK(once);
}

TEST_CASE("capacity 0 equals plain block quantization byte for byte", "[cache][outlier]") {
  auto const compare = [](auto const& traced, auto const& plain) {
    test::layer_rows const rows = test::random_layer(21, 2, 700, 64, 4, 6);
    auto a = test::made(traced, 2, {64, 128});
    auto b = test::made(plain, 2, {64, 128});
    bool const at_once = GENERATE(false, true);
    if (at_once) {
      REQUIRE(a.prefill(rows.key_rows(), rows.value_rows(), 700) == status::ok);
      REQUIRE(b.prefill(rows.key_rows(), rows.value_rows(), 700) == status::ok);
    } else {
      test::append(a, rows, 0, 700);
      test::append(b, rows, 0, 700);
    }
    REQUIRE(a.tiles() == b.tiles());
    REQUIRE(a.tiles() > 0);
    REQUIRE(a.tail_tokens() == b.tail_tokens());
    REQUIRE(a.blob_parts().bytes == b.blob_parts().bytes);
    bool same = true;
    for (std::int64_t tile = 0; tile < a.tiles(); ++tile) {
      for (int h = 0; h < 2; ++h) {
        same = same && std::memcmp(a.blob(tile, h), b.blob(tile, h), test::size(a.blob_parts().bytes)) == 0;
      }
    }
    CHECK(same);
    CHECK(a.bytes_used() == b.bytes_used());
    auto const q = test::random_queries(5, 4, 2, 64);
    CHECK(test::same_bits(test::run_attention(a.view(), q, 4, 2).output,
                          test::run_attention(b.view(), q, 4, 2).output));
  };
  SECTION("groups of 32") {
    auto plain = schemes::kivi<2, 32>();
    plain.flush = {32, 32};
    compare(schemes::ott<2, 32>(0), plain);
  }
  SECTION("groups of 128") {
    auto plain = schemes::kivi<2, 128>();
    plain.flush = {32, 128};
    compare(schemes::ott<2, 128>(0), plain);
  }
}
