// SPDX-License-Identifier: Apache-2.0
//! @file Divergence, perplexity and their summaries against numbers computed by hand; sampling.
#include "support/catch.hpp"

#include <cmath>
#include <limits>

#include "generation.hpp"
#include "scores.hpp"
#include "tiny_model.hpp"

using namespace kvcrumb_lm;
using namespace kvcrumb_lm::test;
using kvcrumb::test::Approx;

TEST_CASE("the divergence of a distribution from itself is 0, from another what the definition says") {
  std::vector<float> p{1.0f, -2.0f, 0.5f, 7.0f}, q{0.0f, 3.0f, 1.0f, -1.0f};
  log_softmax(p);
  log_softmax(q);
  double mass = 0.0;
  for (float const x : p)
    mass += std::exp(static_cast<double>(x));
  CHECK(mass == Approx(1.0).epsilon(1e-6));
  token_score const same = compare_rows(p, p, 2);
  CHECK(same.divergence == 0.0);
  CHECK(same.same_top);
  CHECK(same.loss == same.base_loss);

  std::vector<float> const half{std::log(0.5f), std::log(0.25f), std::log(0.25f)};
  std::vector<float> const third{std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  token_score const s = compare_rows(half, third, 1);
  CHECK(s.divergence == Approx(0.5 * std::log(2.0) - 0.25 * std::log(2.0)).epsilon(1e-6));
  CHECK(!s.same_top);
  CHECK(s.loss == Approx(std::log(2.0)).epsilon(1e-6));
  CHECK(s.base_loss == Approx(std::log(4.0)).epsilon(1e-6));
}

TEST_CASE("large logits do not overflow and a probability of 0 costs nothing where the base has it too") {
  std::vector<float> p{1000.0f, -1000.0f, 999.0f}, q{1000.0f, -3000.0f, 999.0f};
  log_softmax(p);
  log_softmax(q);
  token_score const s = compare_rows(p, q, 0);
  CHECK(std::isfinite(s.divergence));
  CHECK(s.divergence == Approx(0.0).margin(1e-6));
}

TEST_CASE("a summary has means, percentiles, standard errors and the quarters of the context") {
  std::vector<token_score> scores;
  for (int window = 0; window < 2; ++window) {
    for (int i = 0; i < 7; ++i) {  // a context of 8 predicts 7 tokens
      scores.push_back({.position = i,
                        .loss = 2.0 + 0.1 * i,
                        .base_loss = 2.0,
                        .divergence = 0.01 * (i + 1),
                        .same_top = i < 5});
    }
  }
  score_summary const s = summarize(scores, 8);
  CHECK(s.all.tokens == 14);
  CHECK(s.all.divergence == Approx(0.04));
  CHECK(s.median == Approx(0.04));
  CHECK(s.largest == Approx(0.07));
  CHECK(s.percent_99 == Approx(0.07));
  CHECK(s.perplexity == Approx(std::exp(2.3)));
  CHECK(s.base_perplexity == Approx(std::exp(2.0)));
  CHECK(s.log_ratio == Approx(0.3));
  // twice 1 ... 7 hundredths: the sum of squares about the mean is 2 * 28e-4
  CHECK(s.divergence_error == Approx(std::sqrt(56e-4 / 13.0 / 14.0)));
  CHECK(s.log_ratio_error == Approx(std::sqrt(56e-2 / 13.0 / 14.0)));
  CHECK(s.all.same_top == Approx(5.0 / 7.0));
  CHECK(s.quarters[0].tokens == 4);
  CHECK(s.quarters[3].tokens == 2);
  CHECK(s.quarters[0].divergence == Approx(0.015));
  CHECK(s.quarters[3].divergence == Approx(0.07));
}

TEST_CASE("a token is drawn by where a number falls among the summed probabilities") {
  std::vector<float> const logits{std::log(0.1f), std::log(0.6f), std::log(0.3f)};
  CHECK(pick(logits, 0.0, 0.99) == 1);
  CHECK(pick(logits, 1.0, 0.0) == 0);
  CHECK(pick(logits, 1.0, 0.099) == 0);
  CHECK(pick(logits, 1.0, 0.101) == 1);
  CHECK(pick(logits, 1.0, 0.699) == 1);
  CHECK(pick(logits, 1.0, 0.701) == 2);
  CHECK(pick(logits, 1.0, std::nextafter(1.0, 0.0)) == 2);
  CHECK(pick(logits, 0.01, 0.5) == 1);  // cold: the most probable one
  float const never = -std::numeric_limits<float>::infinity();
  CHECK(pick(std::vector<float>{never, 0.0f, never}, 1.0, 0.0) == 1);
  uniform_numbers a(1), b(1), c(2);
  double sum = 0.0;
  bool same = true, differ = false;
  for (int i = 0; i < 1000; ++i) {
    double const x = a.next();
    same = same && x == b.next() && x >= 0.0 && x < 1.0;
    differ = differ || x != c.next();
    sum += x;
  }
  CHECK(same);
  CHECK(differ);
  CHECK(sum == Approx(500.0).margin(30.0));  // three standard deviations of 9.1
}

TEST_CASE("generation repeats itself with a seed and reads what it wrote") {
  model const m = tiny_model(1);
  auto const prompt = random_tokens(9);
  workers pool(1);
  auto const run = [&](double temperature, std::uint64_t seed, int chunk, std::vector<int> const& stop = {}) {
    sequence of = sequence_of(m, "fp32", prompt);
    auto const made = generate(m, of, prompt, 12, chunk, {temperature, seed}, stop, pool);
    REQUIRE(made);
    CHECK(of.tokens() == static_cast<std::int64_t>(prompt.size() + made->size()) - 1);
    return *made;
  };
  auto const greedy = run(0.0, 1, 1);
  CHECK(greedy.size() == 12);
  CHECK(run(0.0, 2, 5) == greedy);  // 9 tokens: 5 and 4
  CHECK(run(1.0, 1, 1) == run(1.0, 1, 1));
  CHECK(run(1.0, 1, 1) != run(1.0, 2, 1));
  CHECK(run(0.0, 1, 1, {greedy[3]}).size() <= 4);
  // every greedy token is the most probable one behind those before it
  std::vector<int> all = prompt;
  all.insert(all.end(), greedy.begin(), greedy.end());
  sequence of = sequence_of(m, "fp32", all);
  auto const logits = logits_of(m, of, all, 5);
  for (std::size_t i = prompt.size(); i < all.size(); ++i) {
    auto const row = logits.begin() + static_cast<std::ptrdiff_t>((i - 1) * tiny_vocabulary);
    CHECK(std::max_element(row, row + tiny_vocabulary) - row == all[i]);
  }
  sequence none = sequence_of(m, "fp32", prompt);
  CHECK(!generate(m, none, {}, 1, 1, {}, {}, pool));
}
