// SPDX-License-Identifier: Apache-2.0
//! @file Who enters the pool and who leaves it: sequences worked out by hand, the independent reference, the
//! laws.
#include <random>

#include "kvcrumb/reference/outlier_tokens.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Tiny OTT: groups of 8 tokens, 8 channels, any capacities.
using tiny_side = composed<affine<2, float16, kivi_convention>, per_channel<8>, identity, linear>;
using tiny_values = composed<affine<2, float16, kivi_convention>, per_token<8>, identity, linear>;
using tiny_ott = kv_scheme<tiny_side, tiny_values, token_pool<l1_score>>;
constexpr tile_shape tiny_shape{8, 32};

tiny_ott tiny(int capacity, int auxiliary, pool_scope across = pool_scope::per_head, int sinks = 0,
              int recent = 0) {
  return {.name = "tiny",
          .flush = {recent, 8},
          .isolate = {.capacity = capacity, .auxiliary = auxiliary, .across = across, .sinks = sinks}};
}

//! Rows whose key has the given L1 norm, spread over two channels with different signs; [head][token] scores.
test::layer_rows rows_with_scores(std::vector<std::vector<int>> const& scores) {
  test::layer_rows r{static_cast<int>(scores.size()), static_cast<std::int64_t>(scores[0].size()), 8, {}, {}};
  for (auto const& head : scores) {
    for (int const s : head) {
      std::vector<float> key(8, 0.0f);
      key[static_cast<std::size_t>(s % 8)] = static_cast<float>(-(s - s / 3));
      key[static_cast<std::size_t>((s + 3) % 8)] = static_cast<float>(s / 3);
      r.keys.insert(r.keys.end(), key.begin(), key.end());
      r.values.insert(r.values.end(), 8, static_cast<float>(s));
    }
  }
  return r;
}

std::vector<reference::scored_token> copied(std::span<scored_token const> tokens) {
  std::vector<reference::scored_token> all;
  for (scored_token const& t : tokens)
    all.push_back({t.position, static_cast<double>(t.score)});
  return all;
}

std::vector<reference::scored_token> sorted(std::vector<reference::scored_token> all) {
  std::sort(all.begin(), all.end(), reference::comes_before);
  return all;
}

using tokens = std::vector<reference::scored_token>;

}  // namespace

TEST_CASE("precedes orders by score and then by age", "[outlier]") {
  CHECK(precedes({1.0f, 9}, {2.0f, 3}));
  CHECK_FALSE(precedes({2.0f, 3}, {1.0f, 9}));
  CHECK(precedes({2.0f, 3}, {2.0f, 4}));
  CHECK_FALSE(precedes({2.0f, 4}, {2.0f, 3}));
  CHECK_FALSE(precedes({2.0f, 4}, {2.0f, 4}));
}

TEST_CASE("offer: room, replacement, refusal, frozen", "[outlier]") {
  scored_token const pool[3] = {{5.0f, 10}, {7.0f, 2}, {7.0f, 6}};
  CHECK(offer({9.0f, 20}, pool, 2, 3, 0).what == admission::entered);
  CHECK(offer({9.0f, 20}, pool, 0, 1, 0).what == admission::entered);
  admission_result const r = offer({6.0f, 20}, pool, 3, 3, 1);
  CHECK(r.what == admission::replaced);
  CHECK(r.victim == 2);  // of the two largest the youngest leaves
  CHECK(offer({7.0f, 20}, pool, 3, 3, 1).what == admission::refused);  // equal is not smaller
  CHECK(offer({7.0f, 1}, pool, 3, 3, 1).what == admission::refused);   // not even for an older token
  CHECK(offer({6.0f, 20}, pool, 3, 3, 0).what == admission::refused);  // frozen
  CHECK(offer({0.0f, 20}, pool, 0, 0, 5).what == admission::refused);  // no pool
  CHECK(offer({0.0f, 20}, nullptr, 0, 0, 0).victim == -1);
}

TEST_CASE("a cache follows the rule step by step", "[outlier]") {
  // Capacity 2, auxiliary 2. The scores of three groups of eight tokens.
  auto const rows =
      rows_with_scores({{9, 5, 8, 5, 9, 9, 9, 9, /**/ 7, 4, 9, 3, 9, 9, 9, 5, /**/ 1, 2, 9, 9, 9, 9, 9, 0}});
  auto cache = test::made(tiny(2, 2), 1, tiny_shape);
  test::append(cache, rows, 0, 8);  // room for both fives
  CHECK(copied(cache.pool(0)) == tokens{{1, 5.0}, {3, 5.0}});
  CHECK(cache.auxiliary(0).empty());
  test::append(cache, rows, 8,
               16);  // 3 pushes out the younger five, 4 the other; the third five finds no smaller place
  CHECK(sorted(copied(cache.pool(0))) == tokens{{11, 3.0}, {9, 4.0}});
  CHECK(copied(cache.auxiliary(0)) == tokens{{3, 5.0}, {1, 5.0}});
  test::append(cache, rows, 16, 24);  // frozen: even 0 and 1 stay in the tile
  CHECK(sorted(copied(cache.pool(0))) == tokens{{11, 3.0}, {9, 4.0}});
  CHECK(cache.auxiliary(0).size() == 2);
}

TEST_CASE("the auxiliary pool fills in the middle of a group and then nobody is lost", "[outlier]") {
  // One free slot: of the candidates 1, 2, 3 only the first gets in.
  auto const rows = rows_with_scores({{5, 5, 5, 9, 9, 9, 9, 9, /**/ 3, 2, 1, 9, 9, 9, 9, 9}});
  auto cache = test::made(tiny(3, 1), 1, tiny_shape);
  test::append(cache, rows, 0, 16);
  CHECK(sorted(copied(cache.pool(0))) == tokens{{10, 1.0}, {0, 5.0}, {1, 5.0}});
  CHECK(copied(cache.auxiliary(0)) == tokens{{2, 5.0}});
}

TEST_CASE("capacity 0 isolates nothing, auxiliary 0 freezes the full pool", "[outlier]") {
  auto const rows = rows_with_scores({{5, 6, 7, 9, 9, 9, 9, 9, /**/ 3, 2, 1, 9, 9, 9, 9, 9}});
  auto none = test::made(tiny(0, 8), 1, tiny_shape);
  test::append(none, rows, 0, 16);
  CHECK(none.pool(0).empty());
  CHECK(none.auxiliary(0).empty());
  CHECK(none.scheme().isolate.aux_capacity() == 0);
  auto frozen = test::made(tiny(2, 0), 1, tiny_shape);
  test::append(frozen, rows, 0, 16);
  CHECK(copied(frozen.pool(0)) == tokens{{0, 5.0}, {1, 6.0}});
  CHECK(frozen.auxiliary(0).empty());
}

TEST_CASE("a layer decides by the sum of its heads", "[outlier]") {
  // Sums: 10, 9, 8, 20...; head 0 alone would take token 0, head 1 alone token 1.
  auto const rows = rows_with_scores({{1, 8, 4, 10, 10, 10, 10, 10}, {9, 1, 4, 10, 10, 10, 10, 10}});
  auto layer = test::made(tiny(1, 4, pool_scope::per_layer), 2, tiny_shape);
  test::append(layer, rows, 0, 8);
  CHECK(copied(layer.pool(0)) == tokens{{2, 8.0}});
  CHECK(copied(layer.pool(1)) == tokens{{2, 8.0}});
  auto heads = test::made(tiny(1, 4), 2, tiny_shape);
  test::append(heads, rows, 0, 8);
  CHECK(copied(heads.pool(0)) == tokens{{0, 1.0}});
  CHECK(copied(heads.pool(1)) == tokens{{1, 1.0}});
}

TEST_CASE("10^4 random streams agree with the reference and pool scores never increase", "[outlier]") {
  std::mt19937 engine{20250510};
  auto const pick = [&](int below) { return static_cast<int>(engine() % static_cast<unsigned>(below)); };
  int disagreements = 0, increases = 0, frozen_streams = 0, lost = 0;
  for (int stream = 0; stream < 10000; ++stream) {
    int const capacity = pick(5), auxiliary = pick(4) == 0 ? 0 : pick(7), groups = 1 + pick(8),
              heads = 1 + pick(2);
    int const range = 2 + pick(40);  // small ranges: many ties
    pool_scope const across = pick(2) == 0 ? pool_scope::per_head : pool_scope::per_layer;
    int const sinks = pick(3), recent = pick(5);
    std::vector<std::vector<int>> scores(static_cast<std::size_t>(heads));
    for (auto& head : scores) {
      for (int i = 0; i < 8 * groups + sinks + recent; ++i)
        head.push_back(pick(range));
    }
    auto cache = test::made(tiny(capacity, auxiliary, across, sinks, recent), heads, tiny_shape);
    test::layer_rows const rows = rows_with_scores(scores);
    int const deciders = across == pool_scope::per_layer ? 1 : heads;
    // an auxiliary pool exists only where there is a pool
    std::vector<reference::outlier_state> states(static_cast<std::size_t>(deciders),
                                                 {.pool_capacity = static_cast<std::size_t>(capacity),
                                                  .aux_capacity = static_cast<std::size_t>(auxiliary)});
    std::vector<double> largest(static_cast<std::size_t>(heads), 1e30);
    test::append(cache, rows, 0, sinks + recent);
    for (int g = 0; g < groups; ++g) {
      int const appended = sinks + recent + 8 * g;
      test::append(cache, rows, appended, appended + 8);
      for (int d = 0; d < deciders; ++d) {
        tokens group;
        for (int i = 0; i < 8; ++i) {
          int const position = sinks + 8 * g + i;
          double score = 0.0;
          for (int h = 0; h < heads; ++h) {
            if (deciders == 1 || h == d)
              score += scores[static_cast<std::size_t>(h)][static_cast<std::size_t>(position)];
          }
          group.push_back({position, score});
        }
        bool const frozen_before = states[static_cast<std::size_t>(d)].frozen();
        states[static_cast<std::size_t>(d)].step(group);
        for (int h = 0; h < heads; ++h) {
          if (deciders != 1 && h != d) continue;
          if (sorted(copied(cache.pool(h))) != states[static_cast<std::size_t>(d)].pool) ++disagreements;
          if (copied(cache.auxiliary(h)) != states[static_cast<std::size_t>(d)].aux) ++disagreements;
          if (capacity == 0 || frozen_before) continue;
          double now = 0.0;
          for (scored_token const& t : cache.pool(h))
            now = std::max(now, static_cast<double>(t.score));
          if (static_cast<int>(cache.pool(h).size()) == capacity) {
            if (now > largest[static_cast<std::size_t>(h)]) ++increases;
            largest[static_cast<std::size_t>(h)] = now;
          }
        }
      }
    }
    for (int h = 0; h < heads; ++h) {
      if (cache.auxiliary(h).size() == static_cast<std::size_t>(auxiliary) && auxiliary > 0) ++frozen_streams;
      // A token that left the pool is in the auxiliary pool: positions are distinct.
      tokens all = copied(cache.pool(h));
      tokens const more = copied(cache.auxiliary(h));
      all.insert(all.end(), more.begin(), more.end());
      std::sort(all.begin(), all.end(), [](auto const& a, auto const& b) { return a.position < b.position; });
      for (std::size_t i = 1; i < all.size(); ++i)
        lost += all[i].position == all[i - 1].position ? 1 : 0;
    }
  }
  CHECK(disagreements == 0);
  CHECK(increases == 0);
  CHECK(lost == 0);
  CHECK(frozen_streams > 500);  // the freeze was really exercised
}
