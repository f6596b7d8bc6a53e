// SPDX-License-Identifier: Apache-2.0
//! @file What the split of queries and weights into two bytes adds to the error: docs/host.md promises at
//! most 5e-4.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Largest relative error over several seeds, with values that have a mean, so that the output does not
//! vanish.
template <class Change>
double worst_error(host::execution const& how, Change change) {
  double worst = 0.0;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    test::layer_rows rows = test::random_layer(seed, 1, 512, 128);
    std::vector<float> q = test::random_queries(seed + 9, 4, 1, 128);
    change(rows, q);
    auto const cache = test::filled(schemes::kivi<2, 128>(), rows, 128);
    auto const expected = test::expected_attention(test::decode_all(cache), 1, 128, q, 4, 1, {});
    test::host_error const e = test::host_distance(test::run_host(cache.view(), q, 4, 1, how), expected);
    worst = e.output <= worst ? worst : e.output;
  }
  return worst;
}

}  // namespace

TEST_CASE("error of two terms", "[host][accuracy]") {
  for (host::execution const& how : test::all_executions()) {
    double const bound = how.arithmetic == host::precision::two_terms ? 5e-4 : 2e-5;
    CAPTURE(host::to_string(how.isa), bound);
    CHECK(worst_error(how, [](auto&, auto&) {}) <= bound);
    // Eight channels of 20 times the size; queries that meet them with a 20th, and queries that do not.
    auto const outlier_channels = [](test::layer_rows& rows) {
      for (std::size_t i = 0; i < rows.keys.size(); ++i)
        if (i % 128 % 16 == 3) rows.keys[i] *= 20.0f;
    };
    CHECK(worst_error(how, [&](auto& rows, auto& q) {
            outlier_channels(rows);
            for (std::size_t i = 0; i < q.size(); ++i)
              if (i % 128 % 16 == 3) q[i] /= 20.0f;
          }) <= bound);
    CHECK(worst_error(how, [&](auto& rows, auto&) { outlier_channels(rows); }) <= bound);
    // A sink: token 0 takes most of the weight and has small values.
    CHECK(worst_error(how, [](auto& rows, auto& q) {
            for (std::size_t d = 0; d < 128; ++d) {
              rows.keys[d] = test::half(1.2 * static_cast<double>(q[d]));
              rows.values[d] = test::half(0.1 * static_cast<double>(rows.values[d]));
            }
            for (std::size_t i = 128; i < q.size(); ++i)
              q[i] = 0.6f * q[i] + 0.8f * q[i % 128];
          }) <= bound);
  }
}
