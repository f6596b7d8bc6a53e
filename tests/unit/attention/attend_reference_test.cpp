// SPDX-License-Identifier: Apache-2.0
//! @file attend against the double reference on read() rows; the bound is derived in
//! support/cache_fixture.hpp.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Small groups on both layouts, so that every boundary is near.
template <class Layout>
using small_type =
    kv_scheme<composed<affine<2, float16, kivi_convention>, per_channel<16>, identity, Layout>,
              composed<affine<2, float16, kivi_convention>, per_token<32>, identity, Layout>, token_pool<>>;
template <class Layout = fragment>
small_type<Layout> small_scheme() {
  return {.name = "small", .flush = {5, 16}, .isolate = {.capacity = 2, .auxiliary = 3, .sinks = 2}};
}

}  // namespace

TEST_CASE("all named schemes and head sizes", "[attention]") {
  int const dim = GENERATE(64, 96, 128, 192, 256);
  test::each_scheme([&](auto const& scheme) {
    int const heads = 2;
    // NQKV's groups of 256 channels cannot be cut into heads of 96 or 192.
    if (scheme.supports({dim, 128}, heads) == status::bad_group) return;
    test::layer_rows const rows = test::random_layer(static_cast<unsigned>(dim), heads, 300, dim, 4, 5);
    auto const cache = test::filled(scheme, rows, 128);
    test::check_attention_of(cache, test::random_queries(7, 4, 2, dim), 4, 2);
  });
}

TEST_CASE("every ratio of query heads to kv heads", "[attention]") {
  int const ratio = GENERATE(1, 2, 3, 5, 6, 8, 12, 16);
  test::layer_rows const rows = test::random_layer(3, 3, 120, 64, 4, 5);
  test::check_attention_of(test::filled(small_scheme(), rows, 32), test::random_queries(7, 3 * ratio, 1, 64),
                           3 * ratio, 1);
  test::check_attention_of(test::filled(schemes::q8_0(), rows, 32), test::random_queries(8, 3 * ratio, 2, 64),
                           3 * ratio, 2);
}

TEST_CASE("lengths around every boundary", "[attention]") {
  // sinks 2, group 16 behind 5 recent tokens, tile 32
  std::int64_t const tokens =
      GENERATE(0, 1, 2, 3, 15, 16, 17, 22, 23, 24, 31, 32, 33, 38, 39, 55, 56, 65, 103, 200);
  test::layer_rows const rows = test::random_layer(9, 2, tokens, 64, 3, 6);
  int const queries = GENERATE(1, 3);
  test::check_attention_of(test::filled(small_scheme(), rows, 32), test::random_queries(7, 4, queries, 64), 4,
                           queries);
  test::check_attention_of(test::filled(small_scheme<linear>(), rows, 64),
                           test::random_queries(7, 4, queries, 64), 4, queries);
  test::check_attention_of(test::filled(schemes::qserve4(), rows, 32),
                           test::random_queries(7, 2, queries, 64), 2, queries);
}

TEST_CASE("one to eight queries, causal among them or not", "[attention]") {
  int const queries = GENERATE(1, 2, 3, 4, 5, 6, 7, 8);
  bool const causal = GENERATE(true, false);
  test::layer_rows const rows = test::random_layer(4, 2, 90, 64, 3, 6);
  attention_options options;
  options.causal = causal;
  auto const q = test::random_queries(5, 6, queries, 64);
  test::check_attention_of(test::filled(small_scheme(), rows, 32), q, 6, queries, options);
  test::check_attention_of(test::filled(schemes::nqkv4(), rows, 32), q, 6, queries, options);
  // The tail is shorter than the queries: some of them end inside the tiles.
  test::check_attention_of(test::filled(schemes::kivi<2, 32>(), test::random_layer(4, 2, 130, 64), 128), q, 6,
                           queries, options);
}

TEST_CASE("window, soft cap, scale and sink logits, alone and together", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 2, 150, 64, 3, 6);
  auto const traced = test::filled(small_scheme(), rows, 32);
  auto const plain = test::filled(schemes::fp8(), rows, 64);
  std::vector<float> const sinks{0.5f, -2.0f, 15.0f, 40.0f};
  auto const q = test::random_queries(5, 4, 3, 64, 2.0);
  for (std::int64_t const window : {0, 1, 2, 3, 5, 6, 31, 32, 60, 140, 147, 148, 149, 150, 1000}) {
    for (float const cap : {0.0f, 5.0f}) {
      for (bool const with_sinks : {false, true}) {
        for (float const scale : {0.0f, 0.3f, -0.2f}) {
          attention_options options;
          options.window = window;
          options.soft_cap = cap;
          options.softmax_scale = scale;
          options.causal = window % 2 == 0;
          if (with_sinks) options.sink_logits = sinks.data();
          CAPTURE(window, cap, with_sinks, scale);
          test::check_attention_of(traced, q, 4, 3, options);
          test::check_attention_of(plain, q, 4, 3, options);
        }
      }
    }
  }
}

TEST_CASE("queries at explicit positions", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 1, 100, 64, 3, 6);
  auto const cache = test::filled(small_scheme(), rows, 32);
  auto const q = test::random_queries(5, 2, 4, 64);
  for (std::int64_t const first : {0, 1, 2, 17, 50, 95, 99, 150, 5000}) {
    for (std::int64_t const window : {0, 4, 40}) {
      attention_options options;
      options.first_query = first;
      options.window = window;
      CAPTURE(first, window);
      test::check_attention_of(cache, q, 2, 4, options);
    }
  }
}

TEST_CASE("scale 0 means 1 / sqrt(head_dim)", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 1, 60, 64);
  auto const cache = test::filled(schemes::q8_0(), rows, 32);
  auto const q = test::random_queries(5, 2, 1, 64);
  attention_options options;
  options.softmax_scale = 0.125f;
  CHECK(test::same_bits(test::run_attention(cache.view(), q, 2, 1).output,
                        test::run_attention(cache.view(), q, 2, 1, options).output));
}

TEST_CASE("nothing to see: output 0 and log-sum-exp -inf", "[attention]") {
  auto const q = test::random_queries(5, 2, 3, 64);
  auto const is_nothing = [](test::attention_result const& r) {
    bool all = r.outcome == status::ok;
    for (float const x : r.output)
      all = all && x == 0.0f;
    for (float const x : r.lse)
      all = all && x == negative_infinity;
    return all;
  };
  test::each_scheme([&](auto const& scheme) {
    auto const empty = test::made(scheme, 1, {64, 128});
    CHECK(is_nothing(test::run_attention(empty.view(), q, 2, 3)));
  });
  kv_cache<schemes::q8_0_type> const never_made;
  auto const wide = test::random_queries(5, 1, 1, 128);
  CHECK(is_nothing(test::run_attention(never_made.view(), wide, 1, 1)));

  // A cache of two tokens and three queries: the first one stands before every token.
  auto const two = test::filled(schemes::q8_0(), test::random_layer(1, 1, 2, 64), 32);
  test::attention_result const r = test::run_attention(two.view(), q, 1, 3);
  CHECK(r.lse[0] == negative_infinity);
  CHECK(r.lse[1] > negative_infinity);
  for (std::size_t i = 0; i < 64; ++i)
    CHECK(r.output[i] == 0.0f);

  // A window that hides everything.
  attention_options options;
  options.first_query = 100;
  options.window = 10;
  CHECK(is_nothing(test::run_attention(two.view(), q, 2, 3, options)));

  // Only the sink logit: O = 0, LSE = sink.
  std::vector<float> const sinks{3.25f, negative_infinity};
  options.sink_logits = sinks.data();
  test::attention_result const s = test::run_attention(two.view(), q, 2, 3, options);
  CHECK((s.lse[0] == 3.25f && s.lse[2] == 3.25f && s.lse[3] == negative_infinity));
  for (float const x : s.output)
    CHECK(x == 0.0f);

  // Zero queries.
  CHECK(test::run_attention(two.view(), {}, 2, 0).outcome == status::ok);
}

TEST_CASE("a sink logit 15 nats above every score takes the weight", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 1, 80, 64);
  auto const cache = test::filled(small_scheme(), rows, 32);
  auto const q = test::random_queries(5, 1, 1, 64);
  float const top = test::run_attention(cache.view(), q, 1, 1).lse[0];
  std::vector<float> const sink{top + 15.0f};
  attention_options options;
  options.sink_logits = sink.data();
  test::check_attention_of(cache, q, 1, 1, options);
  test::attention_result const r = test::run_attention(cache.view(), q, 1, 1, options);
  CHECK(std::fabs(r.lse[0] - sink[0]) < 1e-5f);
  for (float const x : r.output)
    CHECK(std::fabs(x) < 4.0f * std::exp(-15.0f) * 1.01f);
}

TEST_CASE("parts joined by merge_outputs equal the whole", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 2, 290, 64, 3, 6);
  auto const cache = test::filled(small_scheme(), rows, 32);
  auto const q = test::random_queries(5, 4, 2, 64);
  std::vector<float> const sinks{0.5f, -2.0f, 3.0f, 1.0f};
  attention_options options;
  options.window = 200;
  options.sink_logits = sinks.data();
  auto const whole = test::run_attention(cache.view(), q, 4, 2, options);
  test::decoded_rows const decoded = test::decode_all(cache);
  test::attention_bound const bound = test::bound_of(decoded, 64, q, 0.0f);
  for (std::vector<std::int64_t> const& cuts : std::vector<std::vector<std::int64_t>>{
           {0, 1LL << 60}, {0, 4, 1LL << 60}, {0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 200}, {0, 8, 9}}) {
    std::vector<float> o, lse;
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      attention_options part = options;
      part.part = {cuts[i], cuts[i + 1], i == cuts.size() / 2 - 1};
      auto const r = test::run_attention(cache.view(), q, 4, 2, part);
      REQUIRE(r.outcome == status::ok);
      if (i == 0) {
        o = r.output;
        lse = r.lse;
        continue;
      }
      for (std::size_t row = 0; row < 8; ++row) {
        merge_outputs(o.data() + 64 * row, lse[row], r.output.data() + 64 * row, r.lse[row], 64);
      }
    }
    for (std::size_t i = 0; i < lse.size(); ++i) {
      CHECK(std::fabs(static_cast<double>(lse[i] - whole.lse[i])) <= 2.0 * bound.lse);
    }
    for (std::size_t i = 0; i < o.size(); ++i) {
      CHECK(std::fabs(static_cast<double>(o[i] - whole.output[i])) <= 2.0 * bound.output);
    }
  }
}

TEST_CASE("a constant added to every score changes nothing but the log-sum-exp", "[attention]") {
  // Channel 0 of every key is 1, so c times scale is added to every score by q[0] = c.
  test::layer_rows rows = test::random_layer(4, 1, 100, 64);
  for (std::size_t i = 0; i < rows.keys.size(); i += 64)
    rows.keys[i] = 1.0f;
  auto const cache = test::filled(schemes::fp16(), rows, 32);
  auto q = test::random_queries(5, 1, 1, 64);
  q[0] = 0.0f;
  auto const plain = test::run_attention(cache.view(), q, 1, 1);
  for (float const shift : {1.0f, -64.0f, 8.0e2f, -8.0e3f}) {
    q[0] = shift;
    auto const shifted = test::run_attention(cache.view(), q, 1, 1);
    // scores are rounded relative to the shift
    double const tolerance =
        64.0 * std::ldexp(1.0, -24) * (std::fabs(static_cast<double>(shift)) / 8.0 + 8.0);
    CHECK(std::fabs(static_cast<double>(shifted.lse[0] - plain.lse[0] - shift / 8.0f)) <= tolerance);
    for (std::size_t i = 0; i < 64; ++i) {
      CHECK(std::fabs(static_cast<double>(shifted.output[i] - plain.output[i])) <= 8.0 * tolerance);
    }
  }
}

TEST_CASE("huge scores of either sign do not overflow", "[attention]") {
  test::layer_rows rows = test::random_layer(4, 1, 100, 64);
  for (float& x : rows.keys)
    x = x < 0.0f ? -65504.0f : 65504.0f;
  for (float& x : rows.values)
    x = x < 0.0f ? -65504.0f : 65504.0f;
  test::each_scheme([&](auto const& scheme) {
    auto const cache = test::filled(scheme, rows, 128);
    for (float const size : {1.0e-3f, 1.0f, 1.0e4f, 65536.0f}) {
      for (float const scale : {0.0f, 1.0f, -3.0e38f}) {
        auto q = test::random_queries(5, 2, 1, 64);
        for (float& x : q)
          x = std::clamp(x * size, -65536.0f, 65536.0f);
        attention_options options;
        options.softmax_scale = scale;
        auto const r = test::run_attention(cache.view(), q, 2, 1, options);
        bool finite = r.outcome == status::ok;
        for (float const x : r.output)
          finite = finite && std::isfinite(x) && std::fabs(x) <= 65504.0f * 1.001f;
        for (float const x : r.lse)
          finite = finite && std::isfinite(x);
        CAPTURE(scheme.name, size, scale);
        CHECK(finite);
      }
    }
  });
}

TEST_CASE("the largest rows and queries that are taken give finite results", "[attention]") {
  // max_row_magnitude in rows of float32 beside packed ones, max_query_magnitude in the queries.
  kv_scheme<composed<affine<4, float>, per_token<32>>, composed<affine<4, float>, per_token<32>>, prefix<2>>
      scheme;
  scheme.flush = {5, 1};
  auto cache = test::made<decltype(scheme), float>(scheme, 1, {256, 32});
  test::layer_rows rows = test::random_layer(4, 1, 60, 256);
  for (float& x : rows.keys)
    x = x < 0.0f ? -max_row_magnitude : max_row_magnitude;
  for (float& x : rows.values)
    x = x < 0.0f ? -max_row_magnitude : max_row_magnitude;
  test::append(cache, rows, 0, 60);
  std::vector<float> const q(256, max_query_magnitude);
  for (float const cap : {0.0f, 30.0f}) {
    for (float const scale : {0.0f, 3.0e38f}) {
      attention_options options;
      options.soft_cap = cap;
      options.softmax_scale = scale;
      auto const r = test::run_attention(cache.view(), q, 1, 1, options);
      bool finite = r.outcome == status::ok && std::isfinite(r.lse[0]);
      for (float const x : r.output)
        finite = finite && std::isfinite(x);
      CAPTURE(cap, scale);
      CHECK(finite);
    }
  }
}

TEST_CASE("a range of heads writes its own rows only", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 3, 90, 64, 3, 4);
  auto const cache = test::filled(small_scheme(), rows, 32);
  auto const q = test::random_queries(5, 6, 2, 64);
  auto const whole = test::run_attention(cache.view(), q, 6, 2);
  std::vector<float> joined(whole.output.size()), lse(whole.lse.size());
  for (int const cut : {0, 1, 2, 3}) {
    for (int half = 0; half < 2; ++half) {
      attention_options options;
      options.part.first_head = half == 0 ? 0 : cut;
      options.part.end_head = half == 0 ? cut : 1000;
      auto const r = test::run_attention(cache.view(), q, 6, 2, options);  // starts out as NaN
      REQUIRE(r.outcome == status::ok);
      bool apart = true;
      for (std::size_t i = 0; i < r.output.size(); ++i) {
        bool const mine = (static_cast<int>(i / (4 * 64)) < cut) == (half == 0);
        apart = apart && std::isnan(r.output[i]) == !mine && std::isnan(r.lse[i / 64]) == !mine;
        if (mine) joined[i] = r.output[i];
        if (mine) lse[i / 64] = r.lse[i / 64];
      }
      CHECK(apart);
    }
    CHECK(test::same_bits(joined, whole.output));
    CHECK(test::same_bits(lse, whole.lse));
  }
}

TEST_CASE("queries of every storage type", "[attention]") {
  test::layer_rows const rows = test::random_layer(4, 1, 60, 64);
  auto const cache = test::filled(small_scheme(), rows, 32);
  auto const q = test::random_queries(5, 2, 1, 64);
  auto const with = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> stored;
    std::vector<float> rounded;
    for (float const x : q) {
      stored.push_back(from_float<T>(x));
      rounded.push_back(to_float(stored.back()));
    }
    std::vector<float> o(q.size()), work(test::size(attend_workspace(cache.view(), 2, 1)));
    REQUIRE(attend(cache.view(), hnd_rows(static_cast<T const*>(stored.data()), 1, 64), 2, 1,
                   hnd_rows(o.data(), 1, 64), nullptr, {}, work) == status::ok);
    CHECK(test::same_bits(o, test::run_attention(cache.view(), rounded, 2, 1).output));
  };
  with(float16{});
  with(bfloat16{});
  with(float8_e4m3{});
}

TEST_CASE("rows kept as float32 and bfloat16", "[attention]") {
  test::layer_rows rows = test::random_layer(4, 2, 70, 64, 3, 4);
  auto const with = [&](auto zero) {
    using T = decltype(zero);
    auto cache = test::made<small_type<fragment>, T>(small_scheme(), 2, {64, 32});
    test::append(cache, rows, 0, 70);
    test::check_attention_of(cache, test::random_queries(5, 4, 2, 64), 4, 2);
    std::vector<float> k(64), v(64);
    token_place place{};
    REQUIRE(cache.read(1, 69, k.data(), v.data(), &place) == status::ok);
    CHECK(place == token_place::tail);
    for (std::size_t d = 0; d < 64; ++d)
      CHECK(k[d] == to_float(from_float<T>(rows.key(1, 69)[d])));
  };
  with(float{});
  with(bfloat16{});
}
