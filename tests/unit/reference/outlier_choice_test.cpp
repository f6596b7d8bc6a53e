// SPDX-License-Identifier: Apache-2.0
//! @file The reference choice of outlier tokens against events worked out on paper and its laws.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kvcrumb/reference/outlier_tokens.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;

using tokens = std::vector<ref::scored_token>;
using numbers = std::vector<double>;

TEST_CASE("a score is the norm of the key", "[reference][outlier]") {
  numbers const row{3.0, -4.0, 0.0};
  CHECK(ref::key_score(row, ref::score_norm::l1) == 7.0);
  CHECK(ref::key_score(row, ref::score_norm::l2) == 5.0);
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(ref::key_score(numbers{1.0, nan}, ref::score_norm::l1) == std::numeric_limits<double>::infinity());
}

TEST_CASE("a layer's score is the sum over its heads", "[reference][outlier]") {
  // [kv head][token][dim], 2 x 2 x 2. Head 0: (3, 4), (1, 0). Head 1: (-6, 8), (0, 0.5).
  numbers const keys{3.0, 4.0, 1.0, 0.0, -6.0, 8.0, 0.0, 0.5};
  CHECK(ref::head_scores(numbers{3.0, 4.0, 1.0, 0.0}, 2, ref::score_norm::l1) == numbers{7.0, 1.0});
  CHECK(ref::layer_scores(keys, 2, 2, ref::score_norm::l1) == numbers{21.0, 1.5});
  CHECK(ref::layer_scores(keys, 2, 2, ref::score_norm::l2) == numbers{15.0, 1.5});
}

TEST_CASE("the one-shot choice takes the smallest scores and the older of equals", "[reference][outlier]") {
  tokens const list{{7, 2.0}, {3, 5.0}, {9, 1.0}, {4, 2.0}, {1, 8.0}};
  CHECK(ref::smallest_scores(list, 2) == tokens{{9, 1.0}, {4, 2.0}});
  CHECK(ref::smallest_scores(list, 3) == tokens{{9, 1.0}, {4, 2.0}, {7, 2.0}});
  CHECK(ref::smallest_scores(list, 0).empty());
  CHECK(ref::smallest_scores(list, 99).size() == 5);
}

TEST_CASE("a group competes with the pool until the auxiliary pool is full", "[reference][outlier]") {
  ref::outlier_state state{.pool_capacity = 2, .aux_capacity = 2};

  // Room for two: the scores 3 enter, 5 and 9 do not.
  auto const first = state.step(tokens{{0, 5.0}, {1, 3.0}, {2, 3.0}, {3, 9.0}});
  CHECK(first.admitted == tokens{{1, 3.0}, {2, 3.0}});
  CHECK(first.evicted.empty());

  // 1 beats the largest; of the two equal 3 the younger, position 2, leaves. Then 2 beats the other 3. The
  // last candidate, 3, meets a largest of 2.
  auto const second = state.step(tokens{{4, 3.0}, {5, 2.0}, {6, 1.0}});
  CHECK(second.admitted == tokens{{6, 1.0}, {5, 2.0}});
  CHECK(second.evicted == tokens{{2, 3.0}, {1, 3.0}});
  CHECK(state.pool == tokens{{6, 1.0}, {5, 2.0}});
  CHECK(state.aux == tokens{{2, 3.0}, {1, 3.0}});
  CHECK(state.frozen());

  // Frozen: even 0 does not enter.
  auto const third = state.step(tokens{{7, 0.0}});
  CHECK(third.admitted.empty());
  CHECK(third.evicted.empty());
  CHECK(state.pool == tokens{{6, 1.0}, {5, 2.0}});
}

TEST_CASE("the auxiliary pool may fill up in the middle of an event", "[reference][outlier]") {
  ref::outlier_state state{.pool_capacity = 2, .aux_capacity = 1};
  state.step(tokens{{1, 3.0}, {2, 3.0}});
  auto const event = state.step(tokens{{5, 2.0}, {6, 1.0}});
  CHECK(event.admitted == tokens{{6, 1.0}});
  CHECK(state.pool == tokens{{6, 1.0}, {1, 3.0}});
  CHECK(state.aux == tokens{{2, 3.0}});
}

TEST_CASE("an equal score does not push a token out", "[reference][outlier]") {
  ref::outlier_state state{.pool_capacity = 1, .aux_capacity = 8};
  state.step(tokens{{0, 4.0}});
  CHECK(state.step(tokens{{1, 4.0}}).admitted.empty());
  CHECK(state.step(tokens{{2, 3.5}}).admitted == tokens{{2, 3.5}});
}

TEST_CASE("a pool without room or without an auxiliary pool never evicts", "[reference][outlier]") {
  ref::outlier_state none{.pool_capacity = 0, .aux_capacity = 8};
  CHECK(none.step(tokens{{0, 1.0}}).admitted.empty());
  ref::outlier_state fixed{.pool_capacity = 2, .aux_capacity = 0};
  CHECK(fixed.step(tokens{{0, 9.0}}).admitted == tokens{{0, 9.0}});  // room, although frozen() is true
  CHECK(fixed.step(tokens{{1, 8.0}, {2, 7.0}}).admitted == tokens{{2, 7.0}});
  CHECK(fixed.step(tokens{{3, 1.0}}).admitted.empty());
}

TEST_CASE("the defaults are the published ones", "[reference][outlier]") {
  ref::outlier_state const state;
  CHECK(state.pool_capacity == 3);
  CHECK(state.aux_capacity == 32);
}

TEST_CASE("streams keep the smallest scores and lose no token", "[reference][outlier]") {
  unsigned const seed = GENERATE(1u, 2u, 3u, 4u);
  std::size_t const aux_capacity = GENERATE(std::size_t{2}, std::size_t{32}, std::size_t{1000});
  CAPTURE(seed, aux_capacity);
  std::mt19937 generator(seed);
  ref::outlier_state state{.pool_capacity = 3, .aux_capacity = aux_capacity};
  tokens seen;
  std::size_t admitted = 0;
  double previous_sum = std::numeric_limits<double>::infinity();
  for (int event = 0; event < 60; ++event) {
    tokens group;
    for (int i = 0; i < 8; ++i) {  // few different scores: many ties
      group.push_back({static_cast<std::int64_t>(seen.size() + group.size()),
                       static_cast<double>(generator() % 200)});
    }
    bool const was_frozen = state.frozen();
    auto const outcome = state.step(group);
    seen.insert(seen.end(), group.begin(), group.end());
    admitted += outcome.admitted.size();

    CHECK(state.pool.size() == 3);
    CHECK(state.aux.size() <= aux_capacity);
    CHECK(admitted == state.pool.size() + state.aux.size());  // nothing lost, nothing twice
    if (was_frozen) { CHECK(outcome.admitted.empty()); }
    for (auto const& token : outcome.evicted) {
      CHECK(std::find(group.begin(), group.end(), token) == group.end());
    }
    double sum = 0.0;
    for (auto const& token : state.pool) { sum += token.score; }
    CHECK(sum <= previous_sum);
    previous_sum = sum;
    if (!state.frozen()) { CHECK(state.pool == ref::smallest_scores(seen, 3)); }
  }
}

TEST_CASE("the mean of a group leaves its outliers out and fills their rows", "[reference][outlier]") {
  // Rows (1, 2), (100, 100), (3, 6); the middle one is excluded: mean (2, 4).
  numbers const rows{1.0, 2.0, 100.0, 100.0, 3.0, 6.0};
  CHECK(ref::mean_of_others(rows, 2, {false, true, false}) == numbers{2.0, 4.0});
  CHECK(ref::filled_group(rows, 2, {false, true, false}) == numbers{1.0, 2.0, 2.0, 4.0, 3.0, 6.0});
  CHECK(ref::filled_group(rows, 2, {false, false, false}) == rows);
  CHECK(ref::mean_of_others(rows, 2, {true, true, true}) == numbers{0.0, 0.0});
}
