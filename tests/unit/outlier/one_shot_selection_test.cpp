// SPDX-License-Identifier: Apache-2.0
//! @file The one-shot choice of a prompt, and when it agrees with the streaming rule.
#include <random>

#include "kvcrumb/reference/outlier_tokens.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using small_ott = kv_scheme<composed<affine<2, float16, kivi_convention>, per_channel<8>, identity, linear>,
                            composed<affine<2, float16, kivi_convention>, per_token<8>, identity, linear>,
                            token_pool<l1_score>>;

small_ott small(int capacity, int auxiliary, pool_scope across, int sinks, int recent) {
  return {.name = "small",
          .flush = {recent, 8},
          .isolate = {.capacity = capacity, .auxiliary = auxiliary, .across = across, .sinks = sinks}};
}

template <class Cache>
std::vector<std::int64_t> positions(Cache const& cache, int head) {
  std::vector<std::int64_t> p;
  for (scored_token const& t : cache.pool(head))
    p.push_back(t.position);
  std::sort(p.begin(), p.end());
  return p;
}

//! Positions the definition chooses among tokens [first, first + count) of one head, or of the sum of all.
std::vector<std::int64_t> defined(test::layer_rows const& rows, int head, bool layer, std::int64_t first,
                                  std::int64_t count, int capacity) {
  std::vector<double> const keys(rows.keys.begin(), rows.keys.end());
  auto const dim = static_cast<std::size_t>(rows.dim);
  std::vector<double> scores;
  if (layer) {
    scores =
        reference::layer_scores(keys, static_cast<std::size_t>(rows.heads), dim, reference::score_norm::l1);
  } else {
    std::size_t const of_head = keys.size() / static_cast<std::size_t>(rows.heads);
    scores =
        reference::head_scores(std::span{keys}.subspan(static_cast<std::size_t>(head) * of_head, of_head),
                               dim, reference::score_norm::l1);
  }
  std::vector<reference::scored_token> list;
  for (std::int64_t t = first; t < first + count; ++t)
    list.push_back({t, scores[static_cast<std::size_t>(t)]});
  std::vector<std::int64_t> p;
  for (auto const& t : reference::smallest_scores(list, static_cast<std::size_t>(capacity)))
    p.push_back(t.position);
  std::sort(p.begin(), p.end());
  return p;
}

//! Integer keys: scores are exact in every order of summation, and tie often.
test::layer_rows integer_layer(unsigned seed, int heads, std::int64_t tokens) {
  test::layer_rows r{heads, tokens, 8, {}, {}};
  std::mt19937 engine{seed};
  for (std::int64_t i = 0; i < heads * tokens * 8; ++i) {
    r.keys.push_back(static_cast<float>(static_cast<int>(engine() % 7) - 3));
    r.values.push_back(static_cast<float>(static_cast<int>(engine() % 9) - 4));
  }
  return r;
}

}  // namespace

TEST_CASE("select_smallest marks the smallest and the older of equals", "[outlier]") {
  scored_token const list[6] = {{4.0f, 0}, {2.0f, 1}, {3.0f, 2}, {2.0f, 3}, {2.0f, 4}, {9.0f, 5}};
  std::uint8_t marked[6];
  CHECK(select_smallest(list, 6, 2, marked) == 2);
  CHECK(std::vector<int>(marked, marked + 6) == std::vector<int>{0, 1, 0, 1, 0, 0});
  CHECK(select_smallest(list, 6, 4, marked) == 4);
  CHECK(std::vector<int>(marked, marked + 6) == std::vector<int>{0, 1, 1, 1, 1, 0});
  CHECK(select_smallest(list, 6, 99, marked) == 6);
  CHECK(select_smallest(list, 6, 0, marked) == 0);
  CHECK(std::vector<int>(marked, marked + 6) == std::vector<int>(6, 0));
  CHECK(select_smallest(list, 0, 3, marked) == 0);
}

TEST_CASE("prefill chooses the smallest scores of all tokens that leave the window", "[outlier]") {
  unsigned const seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u);
  CAPTURE(seed);
  for (std::int64_t const tokens : {0, 3, 7, 8, 9, 12, 13, 14, 40, 71, 100}) {
    for (pool_scope const across : {pool_scope::per_head, pool_scope::per_layer}) {
      test::layer_rows const rows = integer_layer(seed, 3, tokens);
      auto cache = test::made(small(4, 5, across, 2, 3), 3, {8, 32});
      REQUIRE(cache.prefill(rows.key_rows(), rows.value_rows(), tokens) == status::ok);
      std::int64_t const behind = std::max<std::int64_t>(tokens - 2, 0);
      std::int64_t const encoded = behind >= 11 ? (behind - 3) / 8 * 8 : 0;
      CAPTURE(tokens, encoded);
      CHECK(cache.tile_slots() == encoded);
      for (int head = 0; head < 3; ++head) {
        CHECK(positions(cache, head) == defined(rows, head, across == pool_scope::per_layer, 2, encoded, 4));
        CHECK(cache.auxiliary(head).empty());
      }
    }
  }
}

TEST_CASE("prefill and streaming end with the same pool unless the auxiliary pool filled", "[outlier]") {
  int compared = 0, differing = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    test::layer_rows const rows = integer_layer(seed, 2, 130);
    for (int const auxiliary : {2, 64}) {
      auto at_once = test::made(small(3, auxiliary, pool_scope::per_head, 0, 4), 2, {8, 32});
      auto streamed = at_once;
      REQUIRE(at_once.prefill(rows.key_rows(), rows.value_rows(), 130) == status::ok);
      test::append(streamed, rows, 0, 130);
      for (int head = 0; head < 2; ++head) {
        bool const froze = static_cast<int>(streamed.auxiliary(head).size()) == auxiliary;
        if (!froze) {
          ++compared;
          CHECK(positions(at_once, head) == positions(streamed, head));
        } else if (positions(at_once, head) != positions(streamed, head)) {
          ++differing;
        }
      }
    }
  }
  CHECK(compared >= 80);
  CHECK(differing > 0);  // the law really has that condition
}

TEST_CASE("decoding after a prefill competes with the chosen pool", "[outlier]") {
  test::layer_rows rows = integer_layer(3, 1, 40);
  std::fill(rows.keys.begin(), rows.keys.end(), 2.0f);  // every score 16 ...
  for (int d = 0; d < 8; ++d)
    rows.keys[test::size(35 * 8 + d)] = 0.0f;  // ... but one that comes later
  auto cache = test::made(small(2, 3, pool_scope::per_head, 0, 0), 1, {8, 32});
  REQUIRE(cache.prefill(rows.key_rows(), rows.value_rows(), 32) == status::ok);
  CHECK(positions(cache, 0) == std::vector<std::int64_t>{0, 1});
  test::append(cache, rows, 32, 40);
  CHECK(positions(cache, 0) == std::vector<std::int64_t>{0, 35});
  REQUIRE(cache.auxiliary(0).size() == 1);
  CHECK(cache.auxiliary(0)[0].position == 1);
}

TEST_CASE("prefill is for empty caches", "[outlier]") {
  test::layer_rows const rows = integer_layer(3, 1, 20);
  auto cache = test::made(small(2, 3, pool_scope::per_head, 0, 0), 1, {8, 32});
  test::append(cache, rows, 0, 1);
  auto const before = test::saved(cache);
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), 20) == status::not_empty);
  CHECK(test::saved(cache) == before);
}

TEST_CASE("without a pool prefill is append", "[outlier]") {
  test::layer_rows const rows = test::random_layer(9, 2, 200, 64);
  auto a = test::made(schemes::kivi<2, 32>(), 2, {64, 64});
  auto b = a;
  REQUIRE(a.prefill(rows.key_rows(), rows.value_rows(), 200) == status::ok);
  test::append(b, rows, 0, 200);
  CHECK(test::saved(a) == test::saved(b));
}
