// SPDX-License-Identifier: Apache-2.0
//! @file Scores against the double reference; capacities of the isolation policies.
#include "kvcrumb/reference/outlier_tokens.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("scores worked out by hand", "[outlier]") {
  float const row[5] = {3.0f, -4.0f, 0.0f, -0.0f, 1.0f};
  CHECK(l1_score{}(row, 5) == 8.0f);
  CHECK(l1_score{}(row, 2) == 7.0f);
  CHECK(l2_score{}(row, 5) == 26.0f);
  CHECK(absmax_score{}(row, 5) == 4.0f);
  CHECK(absmax_score{}(row, 1) == 3.0f);
  CHECK(negated<l1_score>{}(row, 5) == -8.0f);
  CHECK(l1_score{}(row + 2, 1) == 0.0f);
}

TEST_CASE("scores follow the reference to rounding", "[outlier]") {
  int const dim = GENERATE(1, 2, 3, 64, 80, 128, 255, 1024);
  test::layer_rows const rows = test::random_layer(5, 1, 50, dim, 2, 3);
  // tree of ceil(log2 dim) additions, each within u; squares add one rounding
  double const u = std::ldexp(1.0, -24), tolerance = (std::ceil(std::log2(dim + 1)) + 2.0) * u;
  for (std::int64_t t = 0; t < 50; ++t) {
    std::vector<double> const key(rows.key(0, t), rows.key(0, t) + dim);
    double const l1 = reference::key_score(key, reference::score_norm::l1);
    double const l2 = reference::key_score(key, reference::score_norm::l2);
    CHECK(std::fabs(static_cast<double>(l1_score{}(rows.key(0, t), dim)) - l1) <= tolerance * l1);
    CHECK(std::fabs(static_cast<double>(l2_score{}(rows.key(0, t), dim)) - l2 * l2) <= tolerance * l2 * l2);
  }
}

TEST_CASE("the largest fp16 keys have finite scores", "[outlier]") {
  std::vector<float> const row(1024, -65504.0f);
  CHECK(std::isfinite(l1_score{}(row.data(), 1024)));
  CHECK(std::isfinite(l2_score{}(row.data(), 1024)));
}

TEST_CASE("another score chooses other tokens", "[outlier]") {
  // L1 norms 8, 9, ...; absolute maxima 8, 1.125, ...
  test::layer_rows rows{1, 8, 8, {}, {}};
  for (int t = 0; t < 8; ++t) {
    for (int d = 0; d < 8; ++d) {
      rows.keys.push_back(t == 0 ? (d == 0 ? 8.0f : 0.0f) : t == 1 ? 1.125f : 4.0f);
      rows.values.push_back(1.0f);
    }
  }
  auto const first = [&](auto score) {
    using side_type = composed<affine<2>, per_channel<8>, identity, linear>;
    using values_type = composed<affine<2>, per_token<8>, identity, linear>;
    kv_scheme<side_type, values_type, token_pool<decltype(score)>> scheme;
    scheme.isolate.capacity = 1;
    auto cache = test::filled(scheme, rows, 32);
    REQUIRE(cache.pool(0).size() == 1);
    return cache.pool(0)[0].position;
  };
  CHECK(first(l1_score{}) == 0);
  CHECK(first(l2_score{}) == 1);
  CHECK(first(absmax_score{}) == 1);
  CHECK(first(negated<l1_score>{}) == 2);
}

TEST_CASE("capacities outside their limits are refused", "[outlier]") {
  CHECK(check_isolation(no_isolation{}) == status::ok);
  CHECK(check_isolation(prefix<4>{}) == status::ok);
  CHECK(check_isolation(external{.capacity = max_isolated}) == status::ok);
  CHECK(check_isolation(external{.capacity = max_isolated + 1}) == status::bad_window);
  CHECK(check_isolation(external{.capacity = -1}) == status::bad_window);
  CHECK(check_isolation(external{.capacity = 1, .sinks = -1}) == status::bad_window);
  CHECK(check_isolation(token_pool<>{.capacity = -1}) == status::bad_window);
  CHECK(check_isolation(token_pool<>{.capacity = 1, .auxiliary = -1}) == status::bad_window);
  CHECK(check_isolation(
            token_pool<>{.capacity = 1, .auxiliary = 4, .across = pool_scope::per_head, .sinks = 1 << 20}) ==
        status::bad_window);
  kv_cache<schemes::ott_type<2>> cache;
  auto scheme = schemes::ott(-3);
  CHECK(kv_cache<schemes::ott_type<2>>::create(scheme, {1, {128, 128}}, cache) == status::bad_window);
  CHECK(cache.size() == 0);
}
