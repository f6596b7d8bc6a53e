// SPDX-License-Identifier: Apache-2.0
//! @file Rollback and rewriting: what may be dropped, and that what follows equals never having appended it.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("group-tiled schemes drop tail tokens only", "[cache][truncate]") {
  test::layer_rows const rows = test::random_layer(1, 2, 100, 64, 3, 4);
  auto cache = test::filled(schemes::ott<2, 32>(), rows, 32);  // 64 encoded, 36 in the tail
  REQUIRE(cache.tile_slots() == 64);
  auto const before = test::saved(cache);
  CHECK(cache.truncate(101) == status::out_of_range);
  CHECK(cache.truncate(-1) == status::out_of_range);
  CHECK(cache.truncate(INT64_MIN) == status::out_of_range);
  for (std::int64_t const t : {0, 1, 31, 32, 63})
    CHECK(cache.truncate(t) == status::not_in_tail);
  CHECK(test::saved(cache) == before);
  CHECK(cache.truncate(100) == status::ok);
  CHECK(test::saved(cache) == before);
  REQUIRE(cache.truncate(97) == status::ok);
  CHECK(cache.size() == 97);
  test::append(cache, rows, 97, 100);
  CHECK(test::saved(cache) == before);
  REQUIRE(cache.truncate(64) == status::ok);  // the whole tail
  CHECK(cache.tail_tokens() == 0);
  CHECK(cache.truncate(63) == status::not_in_tail);
  test::append(cache, rows, 64, 100);
  CHECK(test::saved(cache) == before);
}

TEST_CASE("tail tokens taken back leave no trace", "[cache][truncate]") {
  test::layer_rows const rows = test::random_layer(1, 2, 300, 64, 3, 4),
                         rejected = test::random_layer(2, 2, 8, 64);
  test::each_scheme([&](auto const& scheme) {
    auto cache = test::made(scheme, 2, {64, 128});
    auto straight = cache;
    for (std::int64_t at = 0; at < 300; at += 3) {
      // Speculation that fails: up to 8 tokens, as far as no group closes.
      std::int64_t const room =
          scheme.flush.block <= 1 ? 8 : scheme.flush.recent + scheme.flush.block - 1 - cache.tail_tokens();
      std::int64_t const tried = std::min<std::int64_t>(room, 8);
      test::append(cache, rejected, 0, tried);
      REQUIRE(cache.truncate(at) == status::ok);
      test::append(cache, rows, at, at + 3);
      test::append(straight, rows, at, at + 3);
    }
    CAPTURE(scheme.name);
    CHECK(test::saved(cache) == test::saved(straight));
  });
}

TEST_CASE("row-independent schemes drop any tokens and forget them", "[cache][truncate]") {
  test::layer_rows const rows = test::random_layer(1, 4, 100, 64),
                         rejected = test::random_layer(2, 4, 100, 64);
  auto const check = [&](auto const& scheme) {
    for (std::int64_t const keep : {0, 1, 31, 32, 33, 63, 64, 65, 96, 99, 100}) {
      auto cache = test::made(scheme, 4, {64, 32});
      auto straight = cache;
      test::append(cache, rows, 0, keep);
      test::append(cache, rejected, 0, 100 - keep);
      REQUIRE(cache.truncate(keep) == status::ok);
      test::append(straight, rows, 0, keep);
      CAPTURE(scheme.name, keep);
      CHECK(cache.size() == keep);
      CHECK(cache.tiles() == straight.tiles());
      CHECK(test::saved(cache) == test::saved(straight));
      CHECK(cache.bytes_used() == straight.bytes_used());
      test::append(cache, rows, keep, 100);
      test::append(straight, rows, keep, 100);
      CHECK(test::saved(cache) == test::saved(straight));
    }
  };
  check(schemes::nqkv4());
  check(schemes::qserve4());
  check(schemes::q8_0());
  check(schemes::q4_0());
  check(schemes::fp16());
  check(schemes::fp8());
  check(kv_scheme<composed<affine<3>, per_token<32>, hadamard<>>, composed<affine<2>, per_token<64>>,
                  prefix<5>>{});
}

TEST_CASE("dropping isolated tokens of a row-independent pool", "[cache][truncate]") {
  // Scores fall with the position, so every token pushes an older one out until the auxiliary pool is full.
  test::layer_rows rows = test::random_layer(1, 1, 10, 64);
  for (std::int64_t t = 0; t < 10; ++t) {
    for (int d = 0; d < 64; ++d)
      rows.keys[test::size(rows.at(0, t) + d)] = static_cast<float>(20 - t);
  }
  kv_scheme<schemes::qserve4_type<>::key_type, schemes::qserve4_type<>::value_type, token_pool<>> scheme;
  scheme.isolate = {.capacity = 2, .auxiliary = 4};
  auto cache = test::filled(scheme, rows, 32);
  REQUIRE(cache.pool(0).size() == 2);
  REQUIRE(cache.auxiliary(0).size() == 4);
  CHECK(cache.pool(0)[1].position == 5);
  REQUIRE(cache.truncate(5) == status::ok);  // token 5 was in the pool, token 4 stays, 0 to 3 stay auxiliary
  REQUIRE(cache.pool(0).size() == 1);
  CHECK(cache.pool(0)[0].position == 4);
  CHECK(cache.auxiliary(0).size() == 4);
  REQUIRE(cache.truncate(2) == status::ok);
  CHECK(cache.pool(0).empty());
  REQUIRE(cache.auxiliary(0).size() == 2);
  CHECK(cache.auxiliary(0)[0].position == 0);
  CHECK(cache.auxiliary(0)[1].position == 1);
  test::append(cache, rows, 2, 4);
  CHECK(cache.pool(0).size() == 2);
  std::vector<float> k(64), v(64);
  for (std::int64_t t = 0; t < 4; ++t) {
    REQUIRE(cache.read(0, t, k.data(), v.data()) == status::ok);
    CHECK(k[0] == static_cast<float>(20 - t));
  }
}

TEST_CASE("sinks are dropped last", "[cache][truncate]") {
  test::layer_rows const rows = test::random_layer(1, 1, 20, 64);
  kv_scheme<schemes::q8_0_type::key_type, schemes::q8_0_type::value_type, prefix<4>> const scheme;
  auto cache = test::filled(scheme, rows, 32);
  auto const whole = test::saved(cache);
  CHECK(cache.sink_tokens() == 4);
  REQUIRE(cache.truncate(4) == status::ok);
  CHECK((cache.sink_tokens() == 4 && cache.tile_slots() == 0));
  REQUIRE(cache.truncate(1) == status::ok);
  CHECK(cache.sink_tokens() == 1);
  test::append(cache, rows, 1, 20);
  CHECK(test::saved(cache) == whole);
  // Group-tiled: sinks go only while nothing is encoded.
  kv_scheme<schemes::kivi_type<2, 32>::key_type, schemes::kivi_type<2, 32>::value_type, prefix<4>> const
      tiled;
  auto grouped = test::filled(tiled, rows, 32);
  REQUIRE(grouped.truncate(2) == status::ok);
  CHECK((grouped.sink_tokens() == 2 && grouped.size() == 2));
  test::append(grouped, rows, 2, 20);
  CHECK(test::saved(grouped) == test::saved(test::filled(tiled, rows, 32)));
}

TEST_CASE("rewriting a token equals having appended the other one", "[cache][rewrite]") {
  test::layer_rows const rows = test::random_layer(1, 4, 70, 64);
  test::layer_rows wrong = rows;
  for (std::int64_t const t : {0, 3, 31, 40, 66, 69}) {
    for (int h = 0; h < 4; ++h) {
      for (int d = 0; d < 64; ++d) {
        wrong.keys[test::size(wrong.at(h, t) + d)] = static_cast<float>(d - 30);
        wrong.values[test::size(wrong.at(h, t) + d)] = 11.0f;
      }
    }
  }
  auto const check = [&](auto const& scheme) {
    auto cache = test::filled(scheme, wrong, 32);
    for (std::int64_t const t : {0, 3, 31, 40, 66, 69}) {
      REQUIRE(cache.rewrite(t, rows.key_rows(t), rows.value_rows(t)) == status::ok);
    }
    CAPTURE(scheme.name);
    CHECK(test::saved(cache) == test::saved(test::filled(scheme, rows, 32)));
    auto const before = test::saved(cache);
    CHECK(cache.rewrite(70, rows.key_rows(), rows.value_rows()) == status::out_of_range);
    CHECK(cache.rewrite(-1, rows.key_rows(), rows.value_rows()) == status::out_of_range);
    CHECK(cache.rewrite(3, rows_view<float const>{}, rows.value_rows()) == status::null_pointer);
    test::layer_rows bad = rows;
    bad.values[70 * 64] = std::nanf("");
    CHECK(cache.rewrite(3, bad.key_rows(), bad.value_rows()) == status::not_finite);
    CHECK(test::saved(cache) == before);
  };
  check(schemes::nqkv4());
  check(schemes::qserve4());
  check(schemes::q8_0());
  check(schemes::fp16());
  kv_scheme<schemes::q4_0_type::key_type, schemes::q4_0_type::value_type, prefix<2>> windowed;
  windowed.flush = {5, 1};
  check(windowed);

  kv_scheme<schemes::q4_0_type::key_type, schemes::q4_0_type::value_type, token_pool<>> pooled;
  auto cache = test::filled(pooled, rows, 32);
  REQUIRE(cache.pool(1).size() == 3);
  auto const before = test::saved(cache);
  std::int64_t const t = cache.pool(1)[0].position;
  CHECK(cache.rewrite(t, rows.key_rows(), rows.value_rows()) == status::not_in_tail);
  CHECK(test::saved(cache) == before);
}
