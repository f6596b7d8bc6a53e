// SPDX-License-Identifier: Apache-2.0
//! @file reference::attend against values worked out on paper and against the formula written once more.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kvcrumb/reference/attention.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;
using kvcrumb::test::Approx;

namespace {

double const infinity = std::numeric_limits<double>::infinity();

// One-dimensional keys and values, so that with a query of 1 the logit is the key itself.
struct scalar_list {
  std::vector<double> keys;
  std::vector<double> values;
  std::vector<std::int64_t> positions;

  [[nodiscard]] ref::key_list view() const { return {keys, values, positions, 1, 1}; }
};

ref::attention_row attend_one(scalar_list const& list, std::int64_t query_position,
                              ref::attention_arguments const& arguments) {
  std::vector<double> const query{1.0};
  return ref::attend(query, query_position, list.view(), arguments);
}

std::vector<double> random_numbers(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> numbers(count);
  for (double& number : numbers) { number = normal(generator); }
  return numbers;
}

}  // namespace

TEST_CASE("attention weighs keys by the exponential of their logits", "[reference][attention]") {
  // exp(0) = 1, exp(ln 3) = 3: weights 1/4 and 3/4, output 1/4 * 1 + 3/4 * 5 = 4, lse = ln 4.
  scalar_list const list{{0.0, std::log(3.0)}, {1.0, 5.0}, {0, 1}};
  auto const row = attend_one(list, 1, {});
  REQUIRE(row.weights.size() == 2);
  CHECK(row.weights[0] == Approx(0.25).epsilon(1e-14));
  CHECK(row.weights[1] == Approx(0.75).epsilon(1e-14));
  REQUIRE(row.output.size() == 1);
  CHECK(row.output[0] == Approx(4.0).epsilon(1e-14));
  CHECK(row.log_sum_exp == Approx(std::log(4.0)).epsilon(1e-14));
}

TEST_CASE("equal logits give the mean of the values", "[reference][attention]") {
  // Four keys orthogonal to the query: mean of {1, 2, 3, 6} = 3, lse = ln 4.
  std::vector<double> const query{1.0, 0.0};
  std::vector<double> const keys{0.0, 1.0, 0.0, -2.0, 0.0, 3.0, 0.0, 0.5};
  std::vector<double> const values{1.0, 2.0, 3.0, 6.0};
  std::vector<std::int64_t> const positions{0, 1, 2, 3};
  auto const row = ref::attend(query, 3, {keys, values, positions, 2, 1}, {});
  CHECK(row.output[0] == Approx(3.0));
  CHECK(row.log_sum_exp == Approx(std::log(4.0)));
  for (double const weight : row.weights) { CHECK(weight == Approx(0.25)); }
}

TEST_CASE("a single key passes its value through", "[reference][attention]") {
  // lse = softmax_scale * <q, k> = 0.5 * (1*3 + 2*4) = 5.5.
  std::vector<double> const query{1.0, 2.0};
  std::vector<double> const keys{3.0, 4.0};
  std::vector<double> const values{-7.0, 11.0, 0.125};
  std::vector<std::int64_t> const positions{0};
  auto const row = ref::attend(query, 0, {keys, values, positions, 2, 3}, {.softmax_scale = 0.5});
  CHECK(row.output == values);
  CHECK(row.weights == std::vector<double>{1.0});
  CHECK(row.log_sum_exp == 5.5);
}

TEST_CASE("adding a constant to every logit changes only the log-sum-exp", "[reference][attention]") {
  // Powers of two and small integers: the shifted sums are exact, also far outside the range of exp().
  double const shift = GENERATE(-4096.0, 1.0, 4096.0);
  scalar_list const list{{0.0, 1.0, -2.0, 0.5}, {1.0, 2.0, 3.0, 4.0}, {0, 1, 2, 3}};
  scalar_list shifted = list;
  for (double& key : shifted.keys) { key += shift; }
  auto const expected = attend_one(list, 3, {});
  auto const actual = attend_one(shifted, 3, {});
  CHECK(actual.weights == expected.weights);
  CHECK(actual.output == expected.output);
  CHECK(actual.log_sum_exp == Approx(expected.log_sum_exp + shift).epsilon(1e-14));
}

TEST_CASE("a sink logit joins the denominator and has no value", "[reference][attention]") {
  // Exponentials 1, 3 and, for the sink, 4: weights 1/8 and 3/8, output 1/8 + 15/8 = 2, lse = ln 8.
  scalar_list const list{{0.0, std::log(3.0)}, {1.0, 5.0}, {0, 1}};
  auto const row = attend_one(list, 1, {.sink_logit = std::log(4.0)});
  CHECK(row.weights[0] == Approx(0.125));
  CHECK(row.weights[1] == Approx(0.375));
  CHECK(row.output[0] == Approx(2.0));
  CHECK(row.log_sum_exp == Approx(std::log(8.0)));

  // It is neither scaled nor capped: with softmax_scale 0 both keys have logit 0, so lse = ln(1 + 1 + 6).
  double const ln6 = std::log(6.0);
  auto const unscaled = attend_one(list, 1, {.softmax_scale = 0.0, .soft_cap = 0.5, .sink_logit = ln6});
  CHECK(unscaled.log_sum_exp == Approx(std::log(8.0)));

  // A sink far above the keys takes everything without overflow.
  auto const drowned = attend_one(list, 1, {.sink_logit = 5000.0});
  CHECK(drowned.output[0] == 0.0);
  CHECK(drowned.log_sum_exp == 5000.0);
}

TEST_CASE("nothing to look at gives output 0 and log-sum-exp -infinity", "[reference][attention]") {
  std::vector<double> const query{1.0};
  ref::key_list empty;
  empty.key_dim = 1;
  empty.value_dim = 2;
  auto const row = ref::attend(query, 0, empty, {});
  CHECK(row.output == std::vector<double>{0.0, 0.0});
  CHECK(row.weights.empty());
  CHECK(row.log_sum_exp == -infinity);

  // The only key lies in the future.
  scalar_list const future{{1.0}, {2.0}, {5}};
  auto const blind = attend_one(future, 4, {});
  CHECK(blind.output == std::vector<double>{0.0});
  CHECK(blind.weights == std::vector<double>{0.0});
  CHECK(blind.log_sum_exp == -infinity);

  auto const sink_only = attend_one(future, 4, {.sink_logit = -3.0});
  CHECK(sink_only.output == std::vector<double>{0.0});
  CHECK(sink_only.log_sum_exp == -3.0);
}

TEST_CASE("causality and window decide which positions are seen", "[reference][attention]") {
  // Positions in no order; equal keys, so every visible one has the weight 1 / (number of visible ones).
  scalar_list const list{{0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1}, {5, 0, 4, 1, 3, 2}};
  auto const weights = [&](std::int64_t window, bool causal) {
    return attend_one(list, 4, {.window = window, .causal = causal}).weights;
  };
  CHECK(weights(0, true) == std::vector<double>{0.0, 0.2, 0.2, 0.2, 0.2, 0.2});
  CHECK(weights(1, true) == std::vector<double>{0, 0, 1, 0, 0, 0});      // p > 4 - 1: only itself
  CHECK(weights(2, true) == std::vector<double>{0, 0, 0.5, 0, 0.5, 0});  // p > 4 - 2: 3 and 4
  CHECK(weights(4, false) == std::vector<double>{0.2, 0, 0.2, 0.2, 0.2, 0.2});
  CHECK(weights(100, false) == std::vector<double>(6, 1.0 / 6.0));
}

TEST_CASE("a row out of sight may hold NaN", "[reference][attention]") {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  scalar_list const list{{0.0, nan}, {3.0, nan}, {0, 1}};
  auto const row = attend_one(list, 0, {});
  CHECK(row.output[0] == 3.0);
  CHECK(row.log_sum_exp == 0.0);
}

TEST_CASE("the soft cap bends the scaled logit", "[reference][attention]") {
  // scaled = 0.5 * 4 = 2; capped = 2 * tanh(2 / 2) = 1.5231883119115297 (tanh 1 = 0.7615941559557649).
  scalar_list const list{{4.0}, {1.0}, {0}};
  auto const row = attend_one(list, 0, {.softmax_scale = 0.5, .soft_cap = 2.0});
  CHECK(row.log_sum_exp == Approx(1.5231883119115297).epsilon(1e-14));
  // A cap far above the logits changes next to nothing.
  auto const loose = attend_one(list, 0, {.softmax_scale = 0.5, .soft_cap = 1e6});
  CHECK(loose.log_sum_exp == Approx(2.0).epsilon(1e-10));
}

TEST_CASE("grouped queries read their kv head", "[reference][attention]") {
  // Two kv heads of one token, four query heads: heads 0, 1 read kv head 0 and heads 2, 3 read kv head 1.
  std::vector<double> const queries{1.0, 2.0, 3.0, 4.0};
  std::vector<double> const keys{10.0, 100.0};
  std::vector<double> const values{-1.0, -2.0};
  std::vector<std::int64_t> const zero{0};
  ref::grouped_attention_input input{queries, keys, values, zero, zero, {}, 4, 2, 1, 1};
  auto const result = ref::attend_grouped(input, {});
  CHECK(result.output == std::vector<double>{-1.0, -1.0, -2.0, -2.0});
  CHECK(result.log_sum_exp == std::vector<double>{10.0, 20.0, 300.0, 400.0});
  CHECK(result.weights == std::vector<double>{1.0, 1.0, 1.0, 1.0});

  // Sink logits go with the query head: equal to the logit, so the weight is 1/2; -infinity is no sink.
  std::vector<double> const sinks{10.0, -infinity, 300.0, -infinity};
  input.sink_logits = sinks;
  CHECK(ref::attend_grouped(input, {}).weights == std::vector<double>{0.5, 1.0, 0.5, 1.0});
}

TEST_CASE("attention equals the formula summed without any care", "[reference][attention]") {
  unsigned const seed = GENERATE(1u, 2u, 3u);
  CAPTURE(seed);
  std::size_t const query_heads = 6, kv_heads = 2, queries_count = 3, tokens = 17, key_dim = 5, value_dim = 4;
  auto const queries = random_numbers(query_heads * queries_count * key_dim, seed);
  auto const keys = random_numbers(kv_heads * tokens * key_dim, seed + 100);
  auto const values = random_numbers(kv_heads * tokens * value_dim, seed + 200);
  auto const sinks = random_numbers(query_heads, seed + 300);
  std::vector<std::int64_t> const query_positions{11, 14, 16};
  std::vector<std::int64_t> key_positions;
  for (std::size_t t = 0; t < tokens; ++t) {
    key_positions.push_back(static_cast<std::int64_t>((t * 5) % tokens));  // every position once, shuffled
  }
  ref::attention_arguments const arguments{.softmax_scale = 0.7, .soft_cap = 3.0, .window = 9};
  auto const result = ref::attend_grouped(
      {queries, keys, values, query_positions, key_positions, sinks, query_heads, kv_heads, key_dim,
       value_dim},
      arguments);

  for (std::size_t h = 0; h < query_heads; ++h) {
    std::size_t const kv = h / 3;
    for (std::size_t q = 0; q < queries_count; ++q) {
      std::vector<double> e(tokens, 0.0);
      double sum = std::exp(sinks[h]);
      for (std::size_t t = 0; t < tokens; ++t) {
        std::int64_t const distance = query_positions[q] - key_positions[t];
        if (distance < 0 || distance >= 9) { continue; }
        double dot = 0.0;
        for (std::size_t c = 0; c < key_dim; ++c) {
          dot += queries[(h * queries_count + q) * key_dim + c] * keys[(kv * tokens + t) * key_dim + c];
        }
        e[t] = std::exp(3.0 * std::tanh(0.7 * dot / 3.0));
        sum += e[t];
      }
      std::size_t const at = h * queries_count + q;
      CHECK(result.log_sum_exp[at] == Approx(std::log(sum)).epsilon(1e-12));
      for (std::size_t t = 0; t < tokens; ++t) {
        CHECK(result.weights[at * tokens + t] == Approx(e[t] / sum).margin(1e-14));
      }
      for (std::size_t c = 0; c < value_dim; ++c) {
        double out = 0.0;
        for (std::size_t t = 0; t < tokens; ++t) { out += e[t] * values[(kv * tokens + t) * value_dim + c]; }
        CHECK(result.output[at * value_dim + c] == Approx(out / sum).margin(1e-13));
      }
    }
  }
}
