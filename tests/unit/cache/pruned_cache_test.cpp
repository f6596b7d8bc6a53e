// SPDX-License-Identifier: Apache-2.0
//! @file A cache of some tokens of a sequence: which ones, their bytes, attention by true positions, and what
//! more tokens in fewer bits are worth.
#include "kvcrumb/cache/pruned_cache.hpp"

#include <numeric>
#include <set>

#include "kvcrumb/outlier/importance.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

template <class Scheme>
pruned_cache<Scheme> pruned(Scheme const& scheme, test::layer_rows const& rows, pruning const& rule) {
  pruned_cache<Scheme> cache;
  REQUIRE(pruned_cache<Scheme>::create(scheme, {rows.heads, {rows.dim, 32}}, rule, cache) == status::ok);
  return cache;
}

template <class Cache>
void prefill(Cache& cache, test::layer_rows const& rows, std::int64_t count,
             std::vector<float> const& importance) {
  REQUIRE(cache.prefill(rows.key_rows(), rows.value_rows(), count,
                        importance.empty() ? nullptr : importance.data()) == status::ok);
}

//! Importances of heads x tokens: distinct where `levels` is 0, else many equal ones.
std::vector<float> random_importance(unsigned seed, int heads, std::int64_t tokens, int levels = 0) {
  std::mt19937_64 engine{seed};
  std::vector<float> x(test::size(heads * tokens));
  for (float& v : x)
    v = levels > 0 ? static_cast<float>(engine() % static_cast<unsigned>(levels))
                   : static_cast<float>(engine() >> 40);
  return x;
}

template <class Cache>
std::vector<std::int64_t> positions(Cache const& cache, int head) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = 0; i < cache.size(); ++i)
    all.push_back(cache.position(head, i));
  return all;
}
template <class Cache>
std::vector<std::int64_t> sorted_positions(Cache const& cache, int head) {
  std::vector<std::int64_t> all = positions(cache, head);
  std::sort(all.begin(), all.end());
  return all;
}

//! attend on the view against the double reference over the held rows of each kv head at their positions.
template <class Cache>
void check_attention(Cache const& cache, int ratio, int queries, attention_options const& options) {
  int const heads = cache.config().kv_heads, dim = cache.config().shape.head_dim;
  auto const q = test::random_queries(8, heads * ratio, queries, dim);
  auto const got = test::run_attention(cache.view(), q, heads * ratio, queries, options);
  REQUIRE(got.outcome == status::ok);
  attention_options at = options;
  if (at.first_query < 0) at.first_query = cache.sequence() - queries;
  std::size_t const lses = test::size(ratio * queries), outputs = lses * test::size(dim);
  for (int h = 0; h < heads; ++h) {
    test::decoded_rows rows;
    rows.positions = positions(cache, h);
    std::vector<float> k(test::size(dim)), v(k.size());
    for (std::int64_t i = 0; i < cache.size(); ++i) {
      REQUIRE(cache.cache().read(h, i, k.data(), v.data()) == status::ok);
      rows.keys.insert(rows.keys.end(), k.begin(), k.end());
      rows.values.insert(rows.values.end(), v.begin(), v.end());
    }
    std::vector<float> const of_head(q.begin() + h * ratio * queries * dim,
                                     q.begin() + (h + 1) * ratio * queries * dim);
    auto const expected = test::expected_attention(rows, 1, dim, of_head, ratio, queries, at);
    auto const bound = test::bound_of(rows, dim, of_head, options.softmax_scale);
    double worst = 0.0, worst_lse = 0.0;
    for (std::size_t i = 0; i < outputs; ++i) {
      double const e =
          std::fabs(static_cast<double>(got.output[test::size(h) * outputs + i]) - expected.output[i]);
      worst = e <= worst ? worst : e;
    }
    for (std::size_t i = 0; i < lses; ++i) {
      float const lse = got.lse[test::size(h) * lses + i];
      REQUIRE(std::isinf(lse) == std::isinf(expected.log_sum_exp[i]));
      if (std::isinf(lse)) continue;
      double const e = std::fabs(static_cast<double>(lse) - expected.log_sum_exp[i]);
      worst_lse = e <= worst_lse ? worst_lse : e;
    }
    CAPTURE(cache.cache().scheme().name, h, queries, options.window);
    CHECK(worst <= bound.output);
    CHECK(worst_lse <= bound.lse);
  }
}

//! Every held token decodes to what a cache of the whole sequence gives at its position.
template <class Cache, class Full>
void check_rows_equal(Cache const& cache, Full const& full) {
  int const dim = cache.config().shape.head_dim;
  std::vector<float> k(test::size(dim)), v(k.size()), full_k(k.size()), full_v(k.size());
  for (int h = 0; h < cache.config().kv_heads; ++h) {
    for (std::int64_t i = 0; i < cache.size(); ++i) {
      REQUIRE(cache.cache().read(h, i, k.data(), v.data()) == status::ok);
      REQUIRE(full.read(h, cache.position(h, i), full_k.data(), full_v.data()) == status::ok);
      if (!test::same_bits(k, full_k) || !test::same_bits(v, full_v)) {
        CAPTURE(h, i, cache.position(h, i));
        FAIL_CHECK("the row of a held token differs");
        return;
      }
    }
  }
}

//! Calls f for schemes of every kind: row-independent, across heads, exact, group-tiled with a tail and a
//! pool.
template <class F>
void each_kind(F f) {
  f(schemes::qserve4());
  f(schemes::nqkv4());
  f(schemes::fp16());
  auto traced = schemes::ott<2, 32>();
  traced.flush = {8, 32};
  f(traced);
}

}  // namespace

TEST_CASE("prefill keeps sinks, recent and the most important tokens in order", "[cache][pruned]") {
  int const levels = GENERATE(0, 3);
  auto const rows = test::random_layer(5, 2, 100, 64);
  auto const importance = random_importance(4, 2, 100, levels);
  auto cache = pruned(schemes::qserve4(), rows, {.capacity = 50, .prompt = 40, .sinks = 3, .recent = 7});
  prefill(cache, rows, 100, importance);
  CHECK(cache.size() == 40);
  CHECK(cache.sequence() == 100);
  for (int h = 0; h < 2; ++h) {
    // one by one: the largest importance that is left, of equals the first
    std::set<std::int64_t> expected{0, 1, 2, 93, 94, 95, 96, 97, 98, 99};
    while (expected.size() < 40) {
      std::int64_t best = -1;
      for (std::int64_t t = 0; t < 100; ++t) {
        if (expected.count(t) != 0) continue;
        if (best < 0 || importance[test::size(h * 100 + t)] > importance[test::size(h * 100 + best)])
          best = t;
      }
      expected.insert(best);
    }
    CHECK(positions(cache, h) == std::vector<std::int64_t>(expected.begin(), expected.end()));
    CHECK(cache.find(h, 99) == 39);
    CHECK(cache.find(h, 100) == -1);
  }
  check_rows_equal(cache, test::filled(schemes::qserve4(), rows, 32));
  auto newest = pruned(schemes::qserve4(), rows, {.capacity = 10, .sinks = 2});
  prefill(newest, rows, 100, {});
  CHECK(positions(newest, 1) == std::vector<std::int64_t>{0, 1, 92, 93, 94, 95, 96, 97, 98, 99});
  auto whole = pruned(schemes::qserve4(), rows, {.capacity = 200});
  prefill(whole, rows, 30, {});
  CHECK(whole.size() == 30);
}

TEST_CASE("attention over held tokens equals the reference at their positions",
          "[cache][pruned][attention]") {
  auto const rows = test::random_layer(7, 2, 150, 64, 2, 5);
  auto const importance = random_importance(9, 2, 140);
  each_kind([&](auto const& scheme) {
    auto cache = pruned(scheme, rows, {.capacity = 96, .prompt = 81, .sinks = 1, .recent = 4});
    prefill(cache, rows, 140, importance);
    append(cache, rows, 140, 150);  // below the capacity: any scheme
    CHECK(cache.size() == 91);
    for (std::int64_t const window : {0, 33}) {
      check_attention(cache, 2, 1, {.window = window});
      check_attention(cache, 1, 4, {.window = window});  // drafts: each query sees up to its own position
    }
    check_attention(cache, 1, 3, {.first_query = 70});  // in the middle: later tokens are out of sight
    check_attention(cache, 1, 2, {.soft_cap = 3.0f, .causal = false});
  });
}

TEST_CASE("streaming keeps the sinks and the newest tokens", "[cache][pruned]") {
  int const window = GENERATE(0, 5);
  auto const rows = test::random_layer(3, 3, 200, 64);
  auto scheme = schemes::qserve4();
  scheme.flush = {window, 1};
  auto cache = pruned(scheme, rows, {.capacity = 40, .sinks = 4});
  append(cache, rows, 0, 200);
  CHECK(cache.size() == 40);
  std::vector<std::int64_t> expected{0, 1, 2, 3};
  for (std::int64_t t = 164; t < 200; ++t)
    expected.push_back(t);
  for (int h = 0; h < 3; ++h)
    CHECK(sorted_positions(cache, h) == expected);
  check_rows_equal(cache,
                   test::filled(scheme, rows, 32));  // the window's rows exact, the others encoded once
  check_attention(cache, 2, 2, {});
  check_attention(cache, 2, 2, {.window = 20});
  // in any chunks
  auto chunked = pruned(scheme, rows, {.capacity = 40, .sinks = 4});
  for (std::int64_t t = 0, n = 1; t < 200; t += n, n = n % 13 + 1)
    append(chunked, rows, t, std::min<std::int64_t>(t + n, 200));
  CHECK(test::saved(chunked.cache()) == test::saved(cache.cache()));
  CHECK(positions(chunked, 2) == positions(cache, 2));
}

TEST_CASE("each head gives up its own token", "[cache][pruned]") {
  auto const rows = test::random_layer(11, 4, 160, 64);
  auto const importance = random_importance(2, 4, 160);
  auto const run = [&](auto const& scheme, bool select) {
    auto cache =
        pruned(scheme, rows, {.capacity = 33, .sinks = 2, .recent = 3, .policy = eviction::least_important});
    std::vector<float> first;
    for (int h = 0; h < 4; ++h)
      first.insert(first.end(), importance.begin() + h * 160,
                   importance.begin() + h * 160 + (select ? 100 : 33));
    if (select) {
      prefill(cache, rows, 100, first);
    } else {
      REQUIRE(cache.append(rows.key_rows(), rows.value_rows(), 33, first.data()) == status::ok);
    }
    std::vector<std::vector<std::int64_t>> held;
    for (int h = 0; h < 4; ++h)
      held.push_back(positions(cache, h));
    CHECK((held[0] != held[1]) == select);
    std::vector<float> one(4);
    for (std::int64_t t = cache.sequence(); t < 160; ++t) {
      for (int h = 0; h < 4; ++h) {
        one[test::size(h)] = importance[test::size(h * 160 + t)];
        auto& mine = held[test::size(h)];
        auto worst = mine.end();
        for (auto i = mine.begin(); i != mine.end(); ++i) {
          if (*i < 2 || *i > t - 3) continue;
          if (worst == mine.end() ||
              importance[test::size(h * 160 + *i)] < importance[test::size(h * 160 + *worst)])
            worst = i;
        }
        REQUIRE(worst != mine.end());
        mine.erase(worst);
        mine.push_back(t);
        std::sort(mine.begin(), mine.end());
      }
      REQUIRE(cache.append(rows.key_rows(t), rows.value_rows(t), 1, one.data()) == status::ok);
    }
    for (int h = 0; h < 4; ++h)
      CHECK(sorted_positions(cache, h) == held[test::size(h)]);
    check_rows_equal(cache, test::filled(scheme, rows, 32));
    check_attention(cache, 1, 2, {});
  };
  run(schemes::qserve4(), true);
  run(schemes::fp16(), true);
  run(schemes::nqkv4(), false);  // four heads of 64 channels share a group: prefill would mix tokens in it
}

TEST_CASE("importances are replaced or added; unknown ones are kept longest", "[cache][pruned]") {
  auto const rows = test::random_layer(1, 1, 20, 64);
  auto cache = pruned(schemes::qserve4(), rows, {.capacity = 8, .policy = eviction::least_important});
  append(cache, rows, 0, 8);
  std::vector<float> const first{5, 1, 4, 2, 3, 9};  // tokens 6 and 7 stay unknown
  REQUIRE(cache.update_importance(first.data(), 6) == status::ok);
  std::vector<float> const more{0, 4, 0, 0, 0, 0};
  REQUIRE(cache.update_importance(more.data(), 6, true) == status::ok);  // token 1: 5
  append(cache, rows, 8, 11);
  CHECK(sorted_positions(cache, 0) == std::vector<std::int64_t>{0, 1, 5, 6, 7, 8, 9, 10});  // 3, 4, 2 left
  append(cache, rows, 11, 15);  // 0 (of equals the oldest), 1, 5, then the oldest unknown
  CHECK(sorted_positions(cache, 0) == std::vector<std::int64_t>{7, 8, 9, 10, 11, 12, 13, 14});
  float const bad = std::nanf("");
  CHECK(cache.update_importance(&bad, 1) == status::not_finite);
  CHECK(cache.update_importance(nullptr, 1) == status::null_pointer);
  auto streaming = pruned(schemes::qserve4(), rows, {.capacity = 8});
  CHECK(streaming.update_importance(first.data(), 6) == status::out_of_range);
}

TEST_CASE("schemes with closed groups fill up and then refuse", "[cache][pruned]") {
  auto const rows = test::random_layer(1, 2, 100, 64);
  auto cache = pruned(schemes::kivi<2, 32>(), rows, {.capacity = 70});
  prefill(cache, rows, 60, {});
  append(cache, rows, 60, 70);
  auto const before = test::saved(cache.cache());
  CHECK(cache.append(rows.key_rows(70), rows.value_rows(70), 1) == status::not_in_tail);
  CHECK(test::saved(cache.cache()) == before);
  CHECK(cache.sequence() == 70);
  STATIC_REQUIRE(pruned_cache<schemes::qserve4_type<>>::evicts);
  STATIC_REQUIRE_FALSE(pruned_cache<schemes::ott_type<2>>::evicts);
}

TEST_CASE("bytes and bits of a pruned cache", "[cache][pruned]") {
  auto const rows = test::random_layer(1, 2, 200, 128);
  auto cache = pruned(schemes::qserve4(), rows, {.capacity = 64, .policy = eviction::least_important});
  CHECK(cache.bits_per_value() == 0.0);
  prefill(cache, rows, 200, random_importance(1, 2, 200));
  // a blob of 32 tokens: 2 sections of 32 * (64 + 4) bytes and 4 bytes of mask, padded to 64
  std::int64_t const blob = (2 * 32 * 68 + 4 + 63) / 64 * 64;
  CHECK(cache.bytes_used() == 2 * 2 * blob + 2 * 64 * (8 + 4));
  CHECK(cache.bits_per_value() == 8.0 * static_cast<double>(cache.bytes_used()) / (2 * 64 * 2 * 128));
  CHECK(cache.bits_per_sequence_value() == cache.bits_per_value() * 64 / 200);
  CHECK(cache.bytes_reserved() >= cache.bytes_used());
  auto taken = std::move(cache);
  CHECK(taken.size() == 64);
  CHECK(cache.size() == 0);
  CHECK(cache.bytes_used() == 0);
}

TEST_CASE("a pruned cache is put together from what was saved", "[cache][pruned][save]") {
  auto const rows = test::random_layer(1, 2, 120, 64);
  using cache_type = pruned_cache<schemes::qserve4_type<>>;
  pruning const rule{.capacity = 40, .sinks = 4};
  auto cache = pruned(schemes::qserve4(), rows, rule);
  prefill(cache, rows, 60, random_importance(1, 2, 60));
  append(cache, rows, 60, 100);
  auto const file = test::saved(cache.cache());
  std::vector<std::int64_t> at = positions(cache, 0);
  for (std::int64_t const p : positions(cache, 1))
    at.push_back(p);
  auto const restored = [&] {
    kv_cache<schemes::qserve4_type<>> tokens;
    REQUIRE(restore(std::span<std::byte const>{file}, schemes::qserve4(), tokens) == status::ok);
    return tokens;
  };
  cache_type again;
  REQUIRE(cache_type::adopt(restored(), rule, at, 100, again) == status::ok);
  CHECK(test::saved(again.cache()) == file);
  append(cache, rows, 100, 120);
  append(again, rows, 100, 120);
  CHECK(test::saved(again.cache()) == test::saved(cache.cache()));
  CHECK(positions(again, 1) == positions(cache, 1));
  CHECK(cache_type::adopt(restored(), rule, at, 99, again) == status::out_of_range);
  CHECK(cache_type::adopt(restored(), {.capacity = 39}, at, 100, again) == status::bad_shape);
  at[1] = at[0];
  CHECK(cache_type::adopt(restored(), rule, at, 100, again) == status::out_of_range);
  at.pop_back();
  CHECK(cache_type::adopt(restored(), rule, at, 100, again) == status::bad_shape);
  CHECK(cache_type::adopt({}, rule, {}, 0, again) == status::bad_shape);
}

TEST_CASE("a pruned cache refuses bad input", "[cache][pruned]") {
  auto rows = test::random_layer(1, 2, 50, 64);
  using cache_type = pruned_cache<schemes::qserve4_type<>>;
  cache_type cache;
  auto const created = [&](pruning const& rule) {
    return cache_type::create(schemes::qserve4(), {2, {64, 32}}, rule, cache);
  };
  CHECK(cache.append(rows.key_rows(), rows.value_rows(), 1) == status::bad_shape);
  CHECK(created({.capacity = 0}) == status::bad_window);
  CHECK(created({.capacity = 8, .prompt = 9}) == status::bad_window);
  CHECK(created({.capacity = 8, .sinks = 8}) == status::bad_window);
  CHECK(created({.capacity = 8, .sinks = -1}) == status::bad_window);
  CHECK(created({.capacity = 8, .sinks = 4, .recent = 5}) == status::bad_window);
  CHECK(cache_type::create(schemes::qserve4(), {0, {64, 32}}, {}, cache) == status::bad_shape);
  REQUIRE(created({.capacity = 8, .sinks = 4, .recent = 4}) == status::ok);
  std::vector<float> importance(100, 1.0f);
  importance[70] = std::numeric_limits<float>::infinity();
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), 50, importance.data()) == status::not_finite);
  CHECK(cache.prefill(rows_view<float const>{}, rows.value_rows(), 50, nullptr) == status::null_pointer);
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), -1, nullptr) == status::bad_shape);
  rows.values[test::size(rows.at(1, 20))] = std::nanf("");  // not among the tokens that would be kept
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), 50, nullptr) == status::not_finite);
  CHECK(cache.size() == 0);
  REQUIRE(cache.prefill(rows.key_rows(), rows.value_rows(), 20, nullptr) == status::ok);
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), 20, nullptr) == status::not_empty);
  auto const before = test::saved(cache.cache());
  CHECK(cache.append(rows.key_rows(19), rows.value_rows(19), 2) == status::not_finite);
  CHECK(test::saved(cache.cache()) == before);
}

TEST_CASE("importance equals the numbers of an independent computation", "[outlier][pruned]") {
  // tests/literature/pruned_test.py: SnapKV's steps in NumPy on logits ((7 h + 5 q + 3 t) % 11) / 4
  constexpr int heads = 4, queries = 3, tokens = 8;
  std::vector<float> logits;
  for (int h = 0; h < heads; ++h)
    for (int q = 0; q < queries; ++q)
      for (int t = 0; t < tokens; ++t)
        logits.push_back(t > q + 5 ? negative_infinity
                                   : static_cast<float>((7 * h + 5 * q + 3 * t) % 11) / 4.0f);
  recorded_logits const recorded{logits, heads, 2, queries, tokens};
  std::vector<float> got(16);
  auto const check = [&](std::vector<double> const& expected) {
    for (std::size_t i = 0; i < 16; ++i) {
      CAPTURE(i);
      CHECK(std::fabs(static_cast<double>(got[i]) - expected[i]) <= 2e-6);
    }
  };
  // clang-format off
  // numbers: sum, largest pooled over 3 with 2 recent, mean pooled over 3 with 2 recent, A_max
  std::vector<double> const sum{0.39376902, 0.54481321, 0.29042379, 0.61482716, 0.33044592, 0.46687435, 0.20283335, 0.15601320, 0.56394882, 0.28914911, 0.61212867, 0.34205225, 0.46102927, 0.37127481, 0.25558699, 0.10483008};
  std::vector<double> const largest{0.54481321, 0.54481321, 0.61482716, 0.61482716, 0.61482716, 0.46687435, 0.20283335, 0.15601320, 0.56394882, 0.61212867, 0.61212867, 0.61212867, 0.46102927, 0.46102927, 0.25558699, 0.10483008};
  std::vector<double> const mean{0.31286074, 0.40966867, 0.48335472, 0.41189896, 0.47071581, 0.26577342, 0.20283335, 0.15601320, 0.28436598, 0.48840887, 0.41444334, 0.47173673, 0.39145211, 0.27743469, 0.25558699, 0.10483008};
  std::vector<double> const most{0.29146787, 0.38717337, 0.21251581, 0.44989598, 0.23483252, 0.32436871, 0.21437734, 0.22699540, 0.43778435, 0.17341760, 0.36712506, 0.26552963, 0.33316267, 0.22267260, 0.30706067, 0.16810402};
  // clang-format on
  REQUIRE(attention_importance(recorded, {.kernel = 1}, got) == status::ok);
  check(sum);
  REQUIRE(attention_importance(recorded, {.kernel = 3, .recent = 2}, got) == status::ok);
  check(largest);
  REQUIRE(attention_importance(recorded, {.kernel = 3, .how = pooling::mean, .recent = 2}, got) ==
          status::ok);
  check(mean);
  REQUIRE(largest_attention(recorded, got) == status::ok);
  check(most);
  CHECK(attention_importance(recorded, {.kernel = 4}, got) == status::bad_shape);
  CHECK(attention_importance(recorded, {.kernel = 65}, got) == status::bad_shape);
  CHECK(attention_importance({logits, heads, 3, queries, tokens}, {}, got) == status::bad_shape);
  CHECK(attention_importance(recorded, {}, std::span(got).first(15)) == status::buffer_too_small);
  CHECK(largest_attention({std::span(logits).first(90), heads, 2, queries, tokens}, got) ==
        status::buffer_too_small);
}

TEST_CASE("importance comes out of attend, at sequence positions", "[outlier][pruned][attention]") {
  // one key is the query itself: it must be the most important token of its head, and survive
  auto rows = test::random_layer(6, 2, 90, 64);
  auto const q = test::random_queries(5, 2, 4, 64, 3.0);
  for (int d = 0; d < 64; ++d)
    rows.keys[test::size(rows.at(1, 37) + d)] =
        test::half(static_cast<double>(q[test::size((4 + 2) * 64 + d)]));
  auto all = pruned(schemes::fp16(), rows, {.capacity = 100});
  append(all, rows, 0, 90);
  std::vector<float> logits(2 * 4 * 90, negative_infinity), importance(2 * 90), o(q.size());
  std::vector<float> work(test::size(attend_workspace(all.view(), 2, 4)));
  logit_recorder const recorder{logits.data(), 4, 90};
  REQUIRE(attend(all.view(), hnd_rows(q.data(), 4, 64), 2, 4, hnd_rows(o.data(), 4, 64), nullptr, {},
                 std::span<float>{work}, recorder) == status::ok);
  REQUIRE(attention_importance({logits, 2, 2, 4, 90}, {.kernel = 1}, importance) == status::ok);
  CHECK(std::max_element(importance.begin() + 90, importance.end()) - importance.begin() == 90 + 37);
  CHECK(std::fabs(std::accumulate(importance.begin(), importance.begin() + 90, 0.0f) - 4.0f) < 1e-4f);
  CHECK(logits[86] > negative_infinity);  // query 0 stands at position 86
  CHECK(logits[87] == negative_infinity);
  auto few = pruned(schemes::qserve4(), rows, {.capacity = 10, .recent = 4});
  prefill(few, rows, 90, importance);
  CHECK(few.find(1, 37) >= 0);
}

namespace {

//! Needles: each head hides a key that the query asks for; the importance that chooses the tokens is noisy.
//! Returns the mean relative error of the output against attention over all tokens.
struct recall {
  double error = 0.0;
  double found = 0.0;  //!< share of needles held
  std::int64_t bytes = 0;
};
template <class Scheme>
recall probe(Scheme const& scheme, test::layer_rows const& rows, std::vector<float> const& q,
             std::vector<std::int64_t> const& needles, std::vector<float> const& importance,
             std::int64_t capacity) {
  auto cache = pruned(scheme, rows, {.capacity = capacity, .recent = 8});
  prefill(cache, rows, rows.tokens, importance);
  auto const exact =
      test::expected_attention(test::as_doubles(rows), rows.heads, rows.dim, q, rows.heads, 1, {});
  auto const got = test::run_attention(cache.view(), q, rows.heads, 1);
  REQUIRE(got.outcome == status::ok);
  recall r{0.0, 0.0, cache.bytes_used()};
  for (int h = 0; h < rows.heads; ++h) {
    double e = 0.0, n = 0.0;
    for (int d = 0; d < rows.dim; ++d) {
      std::size_t const i = test::size(h * rows.dim + d);
      e += std::pow(static_cast<double>(got.output[i]) - exact.output[i], 2);
      n += std::pow(exact.output[i], 2);
    }
    r.error += std::sqrt(e / n) / rows.heads;
    r.found += (cache.find(h, needles[test::size(h)]) >= 0 ? 1.0 : 0.0) / rows.heads;
  }
  return r;
}

}  // namespace

TEST_CASE("at equal bytes more tokens in 4 bits beat fewer in 16", "[cache][pruned][claim]") {
  // arXiv 2412.12706: dropped tokens cost more than coarse ones. The needle's importance is normal around 1,
  // that of all others around 0.
  int const heads = 64, dim = 128;
  std::int64_t const tokens = 512;
  auto rows = test::random_layer(21, heads, tokens, dim);
  std::mt19937_64 engine{4};
  std::normal_distribution<float> normal;
  std::vector<float> q, importance(test::size(heads * tokens));
  std::vector<std::int64_t> needles;
  for (float& x : importance)
    x = normal(engine);
  for (int h = 0; h < heads; ++h) {
    needles.push_back(static_cast<std::int64_t>(engine() % 500));
    importance[test::size(h * tokens + needles.back())] += 1.0f;
    for (int d = 0; d < dim; ++d)
      q.push_back(rows.key(h, needles.back())[d]);  // logit of the needle about sqrt(128)
  }
  recall const sixteen = probe(schemes::fp16(), rows, q, needles, importance, 32);
  std::int64_t capacity = 32;
  while (probe(schemes::qserve4(), rows, q, needles, importance, capacity + 32).bytes <= sixteen.bytes)
    capacity += 32;
  recall const four = probe(schemes::qserve4(), rows, q, needles, importance, capacity);
  recall const naive = probe(schemes::qserve4(), rows, q, needles, importance, 128);  // the paper's 4x
  UNSCOPED_INFO("16 bits: error " << sixteen.error << ", found " << sixteen.found << ", bytes "
                                  << sixteen.bytes);
  UNSCOPED_INFO("4 bits: " << capacity << " tokens, error " << four.error << ", found " << four.found
                           << ", bytes " << four.bytes);
  UNSCOPED_INFO("4 bits: 128 tokens, error " << naive.error << ", found " << naive.found);
  CHECK(capacity == 96);
  CHECK(four.bytes <= sixteen.bytes);
  CHECK(four.found >= sixteen.found + 0.15);
  CHECK(four.error <= 0.85 * sixteen.error);
  CHECK(naive.error <= four.error);
}
