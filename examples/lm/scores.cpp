// SPDX-License-Identifier: Apache-2.0
//! @file scores: see scores.hpp.
#include "scores.hpp"

#include <algorithm>
#include <cmath>

#include <kvcrumb/reference/metrics.hpp>

namespace kvcrumb_lm {
namespace {

void add(score_means& to, token_score const& s) {
  ++to.tokens;
  to.loss += s.loss;
  to.base_loss += s.base_loss;
  to.divergence += s.divergence;
  to.same_top += s.same_top ? 1.0 : 0.0;
}

void divide(score_means& m) {
  double const n = static_cast<double>(std::max<std::int64_t>(m.tokens, 1));
  for (double* const x : {&m.loss, &m.base_loss, &m.divergence, &m.same_top})
    *x /= n;
}

// Of the mean of `of(score)` over tokens that are taken as independent.
template <class Of>
double standard_error(std::span<token_score const> scores, double mean, Of of) {
  double squares = 0.0;
  for (token_score const& s : scores)
    squares += (of(s) - mean) * (of(s) - mean);
  double const n = static_cast<double>(scores.size());
  return n > 1.0 ? std::sqrt(squares / (n - 1.0) / n) : 0.0;
}

}  // namespace

void log_softmax(std::span<float> logits) {
  float const top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (float const x : logits)
    sum += static_cast<double>(std::exp(x - top));
  double const shift = static_cast<double>(top) + std::log(sum);
  for (float& x : logits)
    x = static_cast<float>(static_cast<double>(x) - shift);
}

token_score compare_rows(std::span<float const> base, std::span<float const> row, int next_token) {
  token_score s;
  for (std::size_t i = 0; i < base.size(); ++i)
    s.divergence +=
        static_cast<double>(std::exp(base[i])) * (static_cast<double>(base[i]) - static_cast<double>(row[i]));
  auto const next = static_cast<std::size_t>(next_token);
  s.loss = -static_cast<double>(row[next]);
  s.base_loss = -static_cast<double>(base[next]);
  s.same_top = std::max_element(base.begin(), base.end()) - base.begin() ==
               std::max_element(row.begin(), row.end()) - row.begin();
  return s;
}

score_summary summarize(std::span<token_score const> scores, std::int64_t context) {
  score_summary r;
  std::vector<double> divergences;
  for (token_score const& s : scores) {
    add(r.all, s);
    add(r.quarters[static_cast<std::size_t>(std::clamp<std::int64_t>(s.position * 4 / context, 0, 3))], s);
    divergences.push_back(s.divergence);
  }
  divide(r.all);
  for (score_means& q : r.quarters)
    divide(q);
  r.perplexity = std::exp(r.all.loss);
  r.base_perplexity = std::exp(r.all.base_loss);
  r.log_ratio = r.all.loss - r.all.base_loss;
  r.log_ratio_error = standard_error(scores, r.log_ratio, [](auto const& s) { return s.loss - s.base_loss; });
  r.divergence_error = standard_error(scores, r.all.divergence, [](auto const& s) { return s.divergence; });
  using kvcrumb::reference::percentile;
  r.median = percentile(divergences, 50.0);
  r.percent_99 = percentile(divergences, 99.0);
  r.percent_99_9 = percentile(divergences, 99.9);
  r.largest = percentile(divergences, 100.0);
  return r;
}

}  // namespace kvcrumb_lm
