// SPDX-License-Identifier: Apache-2.0
//! @file Sinks and the caller's list of tokens to keep exact.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using listed_type = kv_scheme<composed<affine<2, float16, kivi_convention>, per_channel<8>>,
                              composed<affine<2, float16, kivi_convention>, per_token<32>>, external>;

template <class Cache>
std::vector<std::int64_t> pool_of(Cache const& cache, int head) {
  std::vector<std::int64_t> p;
  for (scored_token const& t : cache.pool(head))
    p.push_back(t.position);
  std::sort(p.begin(), p.end());
  return p;
}

using positions = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("announced positions stay exact in every head, whatever the chunks", "[cache][external]") {
  test::layer_rows const rows = test::random_layer(1, 3, 60, 64, 3, 4);
  listed_type const scheme{.flush = {4, 8}, .isolate = {.capacity = 5, .sinks = 2}};
  auto cache = test::made(scheme, 3, {64, 32});
  positions const list{9, 3, 25, 3};  // unordered, one twice
  REQUIRE(cache.isolate(list) == status::ok);
  auto singly = cache;
  test::append(cache, rows, 0, 60);
  for (std::int64_t t = 0; t < 60; ++t)
    test::append(singly, rows, t, t + 1);
  CHECK(test::saved(cache) == test::saved(singly));
  std::vector<float> k(64), v(64);
  token_place place{};
  for (int h = 0; h < 3; ++h) {
    CHECK(pool_of(cache, h) == positions{3, 9, 25});
    for (std::int64_t const t : {3, 9, 25}) {
      REQUIRE(cache.read(h, t, k.data(), v.data(), &place) == status::ok);
      CHECK(place == token_place::pool);
      CHECK(std::memcmp(k.data(), rows.key(h, t), 256) == 0);
      CHECK(std::memcmp(v.data(), rows.value(h, t), 256) == 0);
    }
  }
}

TEST_CASE("announcements come before the tokens are encoded", "[cache][external]") {
  test::layer_rows const rows = test::random_layer(1, 1, 60, 64);
  listed_type const scheme{.flush = {4, 8}, .isolate = {.capacity = 3}};
  auto cache = test::made(scheme, 1, {64, 32});
  test::append(cache, rows, 0, 20);  // 16 encoded
  REQUIRE(cache.tile_slots() == 16);
  auto const before = test::saved(cache);
  CHECK(cache.isolate(positions{15}) == status::out_of_range);
  CHECK(cache.isolate(positions{30, 15}) == status::out_of_range);
  CHECK(cache.isolate(positions{-1}) == status::out_of_range);
  CHECK(cache.isolate(positions{20, 21, 22, 23}) == status::bad_window);
  CHECK(test::saved(cache) == before);
  CHECK(cache.isolate(positions{}) == status::ok);
  CHECK(cache.isolate(positions{16}) == status::ok);  // still in the tail
  CHECK(cache.isolate(positions{16, 40}) == status::ok);
  CHECK(cache.isolate(positions{50, 51}) == status::bad_window);
  CHECK(cache.isolate(positions{59}) == status::ok);
  test::append(cache, rows, 20, 60);
  CHECK(pool_of(cache, 0) == positions{16, 40});  // 59 is in the tail
  CHECK(cache.isolate(positions{59}) == status::ok);
  CHECK(cache.isolate(positions{70}) == status::bad_window);  // the capacity is for the whole sequence
}

TEST_CASE("a position among the sinks is kept there", "[cache][external]") {
  test::layer_rows const rows = test::random_layer(1, 1, 30, 64);
  listed_type const scheme{.flush = {0, 8}, .isolate = {.capacity = 4, .sinks = 3}};
  auto cache = test::made(scheme, 1, {64, 32});
  REQUIRE(cache.isolate(positions{1, 5}) == status::ok);
  test::append(cache, rows, 0, 30);
  CHECK(cache.sink_tokens() == 3);
  CHECK(pool_of(cache, 0) == positions{5});
}

TEST_CASE("the list survives a file, and clear forgets it", "[cache][external][save]") {
  test::layer_rows const rows = test::random_layer(1, 1, 60, 64);
  listed_type const scheme{.flush = {4, 8}, .isolate = {.capacity = 3}};
  auto cache = test::made(scheme, 1, {64, 32});
  REQUIRE(cache.isolate(positions{3, 33}) == status::ok);
  test::append(cache, rows, 0, 20);
  kv_cache<listed_type> other;
  auto const file = test::saved(cache);
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  test::append(cache, rows, 20, 60);
  test::append(other, rows, 20, 60);
  CHECK(pool_of(other, 0) == positions{3, 33});
  CHECK(test::saved(cache) == test::saved(other));
  cache.clear();
  test::append(cache, rows, 0, 60);
  CHECK(pool_of(cache, 0).empty());
}

TEST_CASE("a row-independent list follows a rollback", "[cache][external][truncate]") {
  test::layer_rows const rows = test::random_layer(1, 2, 40, 64);
  kv_scheme<schemes::q8_0_type::key_type, schemes::q8_0_type::value_type, external> scheme;
  scheme.isolate.capacity = 3;
  auto cache = test::made(scheme, 2, {64, 32});
  REQUIRE(cache.isolate(positions{5, 20, 30}) == status::ok);
  test::append(cache, rows, 0, 25);
  REQUIRE(cache.truncate(10) == status::ok);
  CHECK(pool_of(cache, 1) == positions{5});
  test::append(cache, rows, 10, 40);
  CHECK(pool_of(cache, 1) == positions{5, 20, 30});
}

TEST_CASE("the first tokens are sinks", "[cache][prefix]") {
  test::layer_rows const rows = test::random_layer(1, 2, 50, 64);
  kv_scheme<listed_type::key_type, listed_type::value_type, prefix<6>> scheme;
  auto cache = test::made(scheme, 2, {64, 32});
  test::append(cache, rows, 0, 4);
  CHECK((cache.sink_tokens() == 4 && cache.size() == 4));
  test::append(cache, rows, 4, 50);
  CHECK(cache.sink_tokens() == 6);
  CHECK(cache.tile_slots() == 40);
  CHECK(cache.tail_tokens() == 4);
  std::vector<float> k(64), v(64);
  for (std::int64_t t = 0; t < 6; ++t) {
    REQUIRE(cache.read(1, t, k.data(), v.data()) == status::ok);
    CHECK(std::memcmp(k.data(), rows.key(1, t), 256) == 0);
    CHECK(std::memcmp(v.data(), rows.value(1, t), 256) == 0);
  }
  CHECK(cache.view().tile_first == 6);
}
