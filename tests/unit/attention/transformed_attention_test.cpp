// SPDX-License-Identifier: Apache-2.0
//! @file Transforms in attention: centred keys stay exact under soft cap and sink logits, rotated and centred
//! values come back in their own basis.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr int dim = 64;

template <class KeyTransform, class ValueTransform = identity, class Isolation = no_isolation>
using eight_bits =
    kv_scheme<composed<affine<8, float, affine_options{}>, per_token<32>, KeyTransform>,
              composed<affine<8, float, affine_options{}>, per_token<32>, ValueTransform>, Isolation>;

//! Keys with a large mean per head and channel; the means rounded to fp16.
struct biased {
  test::layer_rows rows;
  std::vector<float> means;
};

biased biased_layer(int heads, std::int64_t tokens) {
  biased b{test::random_layer(31, heads, tokens, dim), {}};
  for (int h = 0; h < heads; ++h) {
    for (int d = 0; d < dim; ++d) {
      float const m = test::half(40.0 * std::sin(h * 7.0 + d));
      b.means.push_back(m);
      for (std::int64_t t = 0; t < tokens; ++t) {
        float& x = b.rows.keys[test::size(b.rows.at(h, t) + d)];
        x = test::half(static_cast<double>(x) + static_cast<double>(m));
      }
    }
  }
  return b;
}

//! The extra part of the bound: a rotation adds log2(64) roundings and spreads magnitudes over all channels.
template <class Cache>
void check_close(Cache const& cache, std::vector<float> const& q, attention_options const& options) {
  auto const got = test::run_attention(cache.view(), q, 4, 2, options);
  REQUIRE(got.outcome == status::ok);
  test::decoded_rows const rows = test::decode_all(cache);
  auto const expected = test::expected_attention(rows, 2, dim, q, 4, 2, options);
  test::attention_bound const bound = test::bound_of(rows, dim, q, options.softmax_scale, 4.0);
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    CHECK(std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]) <= bound.lse);
  }
  double worst = 0.0;
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    worst = e <= worst ? worst : e;
  }
  CHECK(worst <= bound.output);
}

std::vector<attention_options> several_options(std::vector<float> const& sinks) {
  std::vector<attention_options> all(5);
  all[1].soft_cap = 8.0f;
  all[2].sink_logits = sinks.data();
  all[3].soft_cap = 8.0f;
  all[3].sink_logits = sinks.data();
  all[3].window = 50;
  all[4].causal = false;
  all[4].softmax_scale = 0.05f;
  return all;
}

std::vector<float> const sink_logits{1.0f, -5.0f, 9.0f, 20.0f};

}  // namespace

TEST_CASE("centred keys: the true logits reach soft cap, sinks and log-sum-exp", "[attention][transform]") {
  biased const b = biased_layer(2, 90);
  eight_bits<mean_center> scheme;
  scheme.key.transform.means = b.means.data();
  auto const cache = test::filled(scheme, b.rows, 32);
  auto const q = test::random_queries(3, 4, 2, dim, 0.3);
  for (attention_options const& options : several_options(sink_logits))
    check_close(cache, q, options);

  // And the original rows are close: 8 bits of what is left after centring.
  auto const expected = test::expected_attention(test::as_doubles(b.rows), 2, dim, q, 4, 2, {});
  auto const got = test::run_attention(cache.view(), q, 4, 2);
  std::vector<double> const output(got.output.begin(), got.output.end());
  CHECK(reference::relative_l2(output, expected.output) < 0.05);
}

TEST_CASE("centred keys beside exact rows: both parts on one scale", "[attention][transform]") {
  biased const b = biased_layer(2, 90);
  eight_bits<mean_center, identity, token_pool<>> scheme;
  scheme.flush = {11, 1};
  scheme.isolate = {.capacity = 3, .auxiliary = 8, .sinks = 4};
  scheme.key.transform.means = b.means.data();
  auto const cache = test::filled(scheme, b.rows, 32);
  for (attention_options const& options : several_options(sink_logits)) {
    check_close(cache, test::random_queries(3, 4, 2, dim, 0.3), options);
  }
}

TEST_CASE("rotated keys and values", "[attention][transform]") {
  test::layer_rows const rows = test::random_layer(8, 2, 90, dim, 4, 3);
  eight_bits<hadamard<>, hadamard<>, token_pool<>> scheme;
  scheme.flush = {5, 1};
  scheme.isolate = {.capacity = 2, .auxiliary = 4};
  auto const cache = test::filled(scheme, rows, 32);
  auto const q = test::random_queries(3, 4, 2, dim);
  for (attention_options const& options : several_options(sink_logits))
    check_close(cache, q, options);
  auto const expected = test::expected_attention(test::as_doubles(rows), 2, dim, q, 4, 2, {});
  auto const got = test::run_attention(cache.view(), q, 4, 2);
  std::vector<double> const output(got.output.begin(), got.output.end());
  CHECK(reference::relative_l2(output, expected.output) < 0.05);
}

TEST_CASE("centred values: the mean comes back with the weight the tiles had", "[attention][transform]") {
  biased b = biased_layer(2, 90);
  std::swap(b.rows.keys, b.rows.values);
  eight_bits<identity, centered<hadamard<>>, prefix<3>> scheme;
  scheme.flush = {9, 1};
  scheme.value.transform.means = b.means.data();
  scheme.value.transform.count = 2 * dim;
  auto const cache = test::filled(scheme, b.rows, 32);
  auto const q = test::random_queries(3, 4, 2, dim);
  for (attention_options const& options : several_options(sink_logits))
    check_close(cache, q, options);
}

TEST_CASE("means for fewer heads than asked are refused", "[cache][transform]") {
  std::vector<float> const means(2 * dim, 1.0f);
  eight_bits<mean_center> scheme;
  scheme.key.transform.means = means.data();
  scheme.key.transform.count = 2 * dim;
  kv_cache<eight_bits<mean_center>> cache;
  CHECK(kv_cache<eight_bits<mean_center>>::create(scheme, {3, {dim, 32}}, cache) == status::bad_shape);
  CHECK(kv_cache<eight_bits<mean_center>>::create(scheme, {1, {2 * dim, 32}}, cache) == status::ok);
  CHECK(kv_cache<eight_bits<mean_center>>::create(scheme, {2, {dim, 32}}, cache) == status::ok);
}
