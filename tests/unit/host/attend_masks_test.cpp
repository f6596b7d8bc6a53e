// SPDX-License-Identifier: Apache-2.0
//! @file host::attend: masks, positions, soft cap, sinks, several queries, ratios and parts.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("host attention: options, queries and ratios", "[host]") {
  test::layer_rows const rows = test::random_layer(21, 2, 411, 64, 4, 3);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  int const query_heads = GENERATE(2, 6, 16), queries = GENERATE(1, 2, 8);
  std::vector<float> const q = test::random_queries(4, query_heads, queries, 64, 2.0);
  std::vector<float> const sinks(test::size(query_heads), 0.7f);
  std::vector<attention_options> all(9);
  all[1].window = 100;
  all[2].causal = false;
  all[3].soft_cap = 5.0f;
  all[4].sink_logits = sinks.data();
  all[5].first_query = 220;  // a tile ends between the queries
  all[6].first_query = 200;
  all[6].window = 37;
  all[7].softmax_scale = 0.3f;
  all[7].soft_cap = 20.0f;
  all[7].sink_logits = sinks.data();
  all[7].window = 3;
  all[8].softmax_scale = -0.2f;
  for (attention_options const& options : all)
    test::check_host_attention(cache, q, query_heads, queries, options);
}

TEST_CASE("host attention: rows in other types and pools only", "[host]") {
  test::layer_rows const rows = test::random_layer(23, 1, 150, 64, 0, 5);
  std::vector<float> const q = test::random_queries(4, 2, 1, 64);
  auto const check = [&](auto cache, std::int64_t tokens) {
    test::append(cache, rows, 0, tokens);
    test::check_host_attention(cache, q, 2, 1);
  };
  for (std::int64_t const tokens : {1, 15, 16, 17, 63, 64, 65, 150}) {
    check(test::made<decltype(schemes::ott<2, 32>()), float>(schemes::ott<2, 32>(), 1, {64, 32}), tokens);
    check(test::made<decltype(schemes::ott<2, 32>()), bfloat16>(schemes::ott<2, 32>(), 1, {64, 32}), tokens);
  }
}

TEST_CASE("host attention: an empty cache and hidden tokens", "[host]") {
  auto cache = test::made(schemes::ott<2, 32>(), 1, {64, 32});
  std::vector<float> const q = test::random_queries(4, 2, 1, 64);
  for (host::execution const& how : test::all_executions()) {
    auto const empty = test::run_host(cache.view(), q, 2, 1, how);
    REQUIRE(empty.outcome == status::ok);
    CHECK(empty.output == std::vector<float>(128, 0.0f));
    CHECK((std::isinf(empty.lse[0]) && empty.lse[0] < 0));
  }
  test::append(cache, test::random_layer(3, 1, 100, 64), 0, 100);
  attention_options options;
  options.first_query = 1000;
  options.window = 10;
  std::vector<float> const sinks{1.5f, -std::numeric_limits<float>::infinity()};
  options.sink_logits = sinks.data();
  for (host::execution const& how : test::all_executions()) {
    auto const hidden = test::run_host(cache.view(), q, 2, 1, how, options);
    CHECK(hidden.output == std::vector<float>(128, 0.0f));
    CHECK(hidden.lse[0] == 1.5f);
    CHECK(std::isinf(hidden.lse[1]));
  }
}

TEST_CASE("host attention: positions of a cache that does not hold all tokens", "[host]") {
  test::layer_rows const rows = test::random_layer(25, 2, 200, 64);
  auto const cache = test::filled(schemes::nqkv4(), rows, 32);
  std::vector<std::int64_t> where;
  for (std::int64_t i = 0; i < 400; ++i)
    where.push_back(i < 200 ? 3 * i : 2 * (i - 200) + 100);
  auto view = cache.view();
  view.where = {where.data(), 200};
  view.sequence = 600;
  std::vector<float> const q = test::random_queries(4, 4, 2, 64);
  for (std::int64_t const window : {0, 130}) {
    attention_options options;
    options.window = window;
    options.first_query = 400;
    auto const expected = test::run_attention(view, q, 4, 2, options);
    for (host::execution const& how : test::all_executions()) {
      auto const got = test::run_host(view, q, 4, 2, how, options);
      REQUIRE(got.outcome == status::ok);
      for (std::size_t i = 0; i < got.lse.size(); ++i)
        CHECK(got.lse[i] == test::Approx(expected.lse[i]).margin(5e-4));
      for (std::size_t i = 0; i < got.output.size(); ++i)
        CHECK(got.output[i] == test::Approx(expected.output[i]).margin(1e-3));
    }
  }
}

TEST_CASE("host attention: a split gives the same as one call, bit for bit for a fixed split", "[host]") {
  test::layer_rows const rows = test::random_layer(27, 2, 900, 64, 4, 3);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const view = cache.view();
  std::vector<float> const q = test::random_queries(4, 6, 2, 64), sinks(6, 0.3f);
  attention_options options;
  options.sink_logits = sinks.data();
  for (host::execution const& how : test::all_executions()) {
    auto const whole = test::run_host(view, q, 6, 2, how, options);
    for (int const threads : {1, 2, 3, 7}) {
      auto const split = host::work_split::of(2, view.tiles(), threads);
      CHECK((threads <= 2) == (split.parts == 1));
      std::vector<float> partial(test::size(split.partial_floats(6, 2, 64)));
      std::vector<float> first_o, first_lse;
      for (int const step : {1, 3}) {  // two orders of the items
        std::vector<float> o(768, std::nanf("")), lse(12, std::nanf(""));
        test::aligned_bytes const work(host::attend_workspace_bytes(view, 6, 2));
        for (int i = 0; i < split.items(); ++i) {
          int const item = split.items() % 3 != 0 ? i * step % split.items() : i;
          REQUIRE(host::attend_item(split, item, view, hnd_rows(q.data(), 2, 64), 6, 2,
                                    hnd_rows(o.data(), 2, 64), lse.data(), options, partial, work.bytes(),
                                    how) == status::ok);
        }
        REQUIRE(host::join(split, 6, 2, 64, hnd_rows(o.data(), 2, 64), lse.data(), partial) == status::ok);
        if (step == 1) {
          first_o = o;
          first_lse = lse;
          for (std::size_t i = 0; i < o.size(); ++i)
            CHECK(o[i] == test::Approx(whole.output[i]).margin(2e-4));
          for (std::size_t i = 0; i < lse.size(); ++i)
            CHECK(lse[i] == test::Approx(whole.lse[i]).margin(2e-5));
        }
        CHECK(test::same_bits(o, first_o));
        CHECK(test::same_bits(lse, first_lse));
      }
    }
  }
}
