// SPDX-License-Identifier: Apache-2.0
//! @file kv_cache::append and prefill with host::vector_encoder: everything that a file holds is the same as
//! without it.
#include "kvcrumb/host/vector_encoder.hpp"
#include "support/cache_fixture.hpp"
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Keys and values [head][token][dim] as numbers of another type.
template <class To>
struct input_rows {
  std::int64_t tokens;
  int dim;
  std::vector<To> keys, values;
  explicit input_rows(test::layer_rows const& rows) : tokens(rows.tokens), dim(rows.dim) {
    for (float const x : rows.keys)
      keys.push_back(from_float<To>(x));
    for (float const x : rows.values)
      values.push_back(from_float<To>(x));
  }
  rows_view<To const> from(std::vector<To> const& all, std::int64_t begin) const {
    return {all.data() + begin * dim, tokens * dim, dim};
  }
  template <class Cache, class... With>
  void append(Cache& cache, std::int64_t begin, std::int64_t end, With&... with) const {
    REQUIRE(cache.append(from(keys, begin), from(values, begin), end - begin, with...) == status::ok);
  }
  template <class Cache, class... With>
  void prefill(Cache& cache, std::int64_t end, With&... with) const {
    REQUIRE(cache.prefill(from(keys, 0), from(values, 0), end, with...) == status::ok);
  }
};

//! One call, chunks of several sizes, and a prompt with tokens behind it.
template <class Row = float16, class Input = float, class Scheme>
void check_appends(Scheme const& scheme, test::layer_rows const& rows, int tile_tokens) {
  input_rows<Input> const input(rows);
  std::int64_t const prompt = rows.tokens - 70;
  auto const made = [&] { return test::made<Scheme, Row>(scheme, rows.heads, {rows.dim, tile_tokens}); };
  auto streamed = made(), prompted = made();
  input.append(streamed, 0, rows.tokens);
  input.prefill(prompted, prompt);
  input.append(prompted, prompt, rows.tokens);
  REQUIRE(streamed.size() == rows.tokens);
  for (host::execution const& how : test::all_instruction_sets()) {
    host::vector_encoder encoder{how};
    for (std::int64_t const chunk : {rows.tokens, std::int64_t{1}, std::int64_t{53}, std::int64_t{128}}) {
      CAPTURE(scheme.name, rows.dim, tile_tokens, chunk, host::to_string(how.isa));
      auto cache = made();
      for (std::int64_t i = 0; i < rows.tokens; i += chunk)
        input.append(cache, i, std::min(i + chunk, rows.tokens), encoder);
      CHECK(test::saved(cache) == test::saved(streamed));
    }
    CAPTURE(scheme.name, rows.dim, tile_tokens, host::to_string(how.isa));
    auto cache = made();
    input.prefill(cache, prompt, encoder);
    input.append(cache, prompt, rows.tokens, encoder);
    CHECK(test::saved(cache) == test::saved(prompted));
  }
}

//! Isolates by the first channel, which no kernel does.
struct first_channel {
  static constexpr char const* name = "first_channel";
  static constexpr selection how = selection::smallest;
  constexpr int sink_tokens() const noexcept { return 1; }
  constexpr int pool_capacity() const noexcept { return 2; }
  constexpr int aux_capacity() const noexcept { return 4; }
  constexpr pool_scope scope() const noexcept { return pool_scope::per_head; }
  float score(float const* row, int) const noexcept { return row[0]; }
};

template <class Key, class Value, class Isolate>
kv_scheme<Key, Value, Isolate> isolating(kv_scheme<Key, Value> const& scheme, Isolate const& isolate) {
  return {.name = "isolating",
          .flush = scheme.flush,
          .isolate = isolate,
          .key = scheme.key,
          .value = scheme.value};
}

}  // namespace

TEST_CASE("a cache filled with vector instructions is the same cache", "[host][encode][cache]") {
  test::layer_rows const rows = test::random_layer(1, 3, 330, 64, 3, 5);
  test::each_scheme([&](auto const& scheme) { check_appends(scheme, rows, 128); });
}

TEST_CASE("vector_encoder: types of rows and of the cache, head sizes, tiles", "[host][encode][cache]") {
  test::layer_rows const rows = test::random_layer(2, 2, 300, 96, 3, 5);
  check_appends<bfloat16, float16>(schemes::ott<2, 32>(), rows, 64);
  check_appends<float, bfloat16>(schemes::ott<4, 32>(), rows, 64);
  check_appends<float16, float16>(schemes::ott<2, 32>(), rows, 128);
  check_appends<bfloat16, bfloat16>(schemes::qserve4(), rows, 32);
  check_appends<float, float16>(schemes::nqkv4(), test::random_layer(6, 4, 300, 64), 64);
  check_appends<float8_e4m3, float>(schemes::kivi<4, 32>(), rows, 32);
  check_appends(schemes::kivi<2, 64>(), test::random_layer(3, 1, 270, 256, 3, 5), 64);
}

TEST_CASE("vector_encoder: sinks, pools of a layer, lists, windows, tokens that leave the pool",
          "[host][encode][cache]") {
  test::layer_rows const rows = test::random_layer(4, 3, 400, 64, 3, 9);
  auto ott = schemes::ott<2, 32>(2);
  ott.isolate.sinks = 5;
  check_appends(ott, rows, 128);
  ott.isolate.across = pool_scope::per_layer;
  check_appends(ott, rows, 128);
  ott.isolate.capacity = 0;
  check_appends(ott, rows, 128);
  auto qserve = isolating(schemes::qserve4(), token_pool<l2_score>{.capacity = 4, .auxiliary = 3});
  check_appends(qserve, rows, 64);
  qserve.flush = {20, 7};  // blocks that do not divide a tile
  check_appends(qserve, rows, 64);
  qserve.flush = {3, 100};
  check_appends(qserve, rows, 64);
  check_appends(isolating(schemes::kivi<2, 32>(), first_channel{}), rows, 64);
  check_appends(isolating(schemes::nqkv4(), token_pool<negated<l1_score>>{.capacity = 3}), rows, 32);

  auto const listed = isolating(schemes::kivi<2, 32>(), external{.capacity = 6, .sinks = 2});
  std::vector<std::int64_t> const positions{2, 33, 34, 250, 399};
  auto expected = test::made(listed, 3, {64, 64});
  REQUIRE(expected.isolate(positions) == status::ok);
  test::append(expected, rows, 0, 400);
  for (host::execution const& how : test::all_instruction_sets()) {
    host::vector_encoder encoder{how};
    auto cache = test::made(listed, 3, {64, 64});
    REQUIRE(cache.isolate(positions) == status::ok);
    REQUIRE(cache.append(rows.key_rows(), rows.value_rows(), 400, encoder) == status::ok);
    CHECK(test::saved(cache) == test::saved(expected));
  }
}

TEST_CASE("an encoder that cannot encode a cache leaves it as it is", "[host][encode][cache][checks]") {
  test::layer_rows const rows = test::random_layer(5, 2, 200, 64);
  auto const refused = [&](auto const& scheme, host::execution const& how, auto row, int dim = 64) {
    kv_cache<std::decay_t<decltype(scheme)>, decltype(row)> cache;
    REQUIRE(cache.create(scheme, {2, {dim, 64}}, cache) == status::ok);
    host::vector_encoder encoder{how};
    rows_view<float const> const k = rows.key_rows(), v = rows.value_rows();
    status const appended = cache.append(k, v, 100, encoder);
    CHECK(cache.size() == (appended == status::ok ? 100 : 0));
    return appended;
  };
  host::execution const portable{host::instruction_set::portable};
  CHECK(refused(schemes::kivi<2, 32>(), portable, float16{}) == status::unsupported);
  for (host::execution how : test::all_instruction_sets()) {
    how.allow_slow = false;
    if (how.isa == host::instruction_set::portable || how.emulate_amx) continue;
    CAPTURE(host::to_string(how.isa));
    CHECK(refused(schemes::q8_0(), how, float16{}) == status::unsupported);  // a layout without kernels
    CHECK(refused(schemes::kivi<2, 32>(), how, float8_e4m3{}) == status::unsupported);  // rows of 8 bits
    CHECK(refused(isolating(schemes::kivi<2, 32>(), first_channel{}), how, float16{}) == status::unsupported);
    kv_cache<schemes::ott_type<2, 32>> cache = test::made(schemes::ott<2, 32>(), 2, {64, 64});
    host::vector_encoder encoder{how};
    CHECK(cache.append(rows.key_rows(), rows.value_rows(), 200, encoder) == status::ok);
    std::vector<std::byte> const before = test::saved(cache);
    std::vector<float> bad(test::size(64 * 2), 1.0f);
    bad[100] = std::nanf("");
    CHECK(cache.append(hnd_rows(bad.data(), 1, 64), rows.value_rows(), 1, encoder) == status::not_finite);
    CHECK(test::saved(cache) == before);
  }
}
