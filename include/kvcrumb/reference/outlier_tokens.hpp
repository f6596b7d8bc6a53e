// SPDX-License-Identifier: Apache-2.0
//! @file OTT's choice of outlier tokens: scores, pool, auxiliary pool and the mean that fills a freed row.
//!
//! Source: Outlier Tokens Tracing (arXiv 2505.10938). Keys of outlier tokens are small in the channels where
//! the other keys are large, so the tokens with the smallest norms are kept exact.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace kvcrumb::inline v0::reference {

enum class score_norm { l1, l2 };

//! Norm of one key row. A NaN norm counts as +infinity: such a token is never preferred.
[[nodiscard]] inline double key_score(std::span<double const> row, score_norm norm) {
  double sum = 0.0;
  for (double const value : row) { sum += norm == score_norm::l1 ? std::fabs(value) : value * value; }
  double const score = norm == score_norm::l1 ? sum : std::sqrt(sum);
  return std::isnan(score) ? std::numeric_limits<double>::infinity() : score;
}

//! Scores of the tokens of one head, [token], from keys [token][dim].
[[nodiscard]] inline std::vector<double> head_scores(std::span<double const> keys, std::size_t dim,
                                                     score_norm norm) {
  assert(dim > 0 && keys.size() % dim == 0);
  std::vector<double> scores;
  for (std::size_t first = 0; first < keys.size(); first += dim) {
    scores.push_back(key_score(keys.subspan(first, dim), norm));
  }
  return scores;
}

//! Scores of the tokens of a layer, [token], from keys [kv head][token][dim]: the sum of the scores of its
//! heads.
[[nodiscard]] inline std::vector<double> layer_scores(std::span<double const> keys, std::size_t kv_heads,
                                                      std::size_t dim, score_norm norm) {
  assert(kv_heads > 0 && keys.size() % (kv_heads * dim) == 0);
  std::size_t const of_head = keys.size() / kv_heads;
  std::vector<double> sums(of_head / dim, 0.0);
  for (std::size_t head = 0; head < kv_heads; ++head) {
    std::vector<double> const scores = head_scores(keys.subspan(head * of_head, of_head), dim, norm);
    for (std::size_t t = 0; t < sums.size(); ++t) { sums[t] += scores[t]; }
  }
  return sums;
}

struct scored_token {
  std::int64_t position = 0;
  double score = 0.0;
  friend bool operator==(scored_token const&, scored_token const&) = default;
};

//! Ascending score; of equal scores the older position comes first.
[[nodiscard]] inline bool comes_before(scored_token const& a, scored_token const& b) {
  return a.score != b.score ? a.score < b.score : a.position < b.position;
}

//! One-shot choice (prefill): the `count` smallest scores, in the order of comes_before(). All, if there are
//! fewer.
[[nodiscard]] inline std::vector<scored_token> smallest_scores(std::span<scored_token const> tokens,
                                                               std::size_t count) {
  std::vector<scored_token> sorted(tokens.begin(), tokens.end());
  std::sort(sorted.begin(), sorted.end(), comes_before);
  sorted.resize(std::min(count, sorted.size()));
  return sorted;
}

//! What one event did.
struct outlier_event {
  std::vector<scored_token> admitted;  //!< tokens of the group now in the pool; their slots are freed
  std::vector<scored_token> evicted;   //!< tokens that moved from the pool to the auxiliary pool
};

//! The streaming choice (decode): a pool of the smallest scores and an auxiliary pool for the tokens it
//! pushed out, which cannot go back because their group is already quantized.
struct outlier_state {
  std::size_t pool_capacity = 3;
  std::size_t aux_capacity = 32;
  std::vector<scored_token> pool{};  //!< in the order of comes_before(), at most pool_capacity
  std::vector<scored_token> aux{};   //!< in the order of eviction, at most aux_capacity

  //! True when no token can be replaced any more.
  [[nodiscard]] bool frozen() const { return aux.size() >= aux_capacity; }

  //! One event: the tokens of a group compete for the pool.
  //!
  //! The candidates are walked in the order of comes_before(). One enters while the pool has room. Otherwise
  //! it must score strictly below the pool's largest, and the auxiliary pool must have a free slot: then the
  //! largest (of equal ones the youngest) moves there and the candidate enters. The first candidate that
  //! fails ends the walk. A token is never lost. A token of this group is never pushed out in its own event:
  //! later candidates score no less.
  outlier_event step(std::span<scored_token const> group) {
    outlier_event event;
    for (scored_token const& candidate : smallest_scores(group, group.size())) {
      if (pool.size() >= pool_capacity) {
        if (pool.empty() || !(candidate.score < pool.back().score) || frozen()) { break; }
        event.evicted.push_back(pool.back());
        aux.push_back(pool.back());
        pool.pop_back();
      }
      event.admitted.push_back(candidate);
      pool.push_back(candidate);
      std::sort(pool.begin(), pool.end(), comes_before);
    }
    return event;
  }
};

//! Mean of the rows [row][dim] that are not excluded, [dim]; zeros where every row is. `excluded` is [row].
[[nodiscard]] inline std::vector<double> mean_of_others(std::span<double const> rows, std::size_t dim,
                                                        std::vector<bool> const& excluded) {
  assert(rows.size() == excluded.size() * dim);
  std::vector<double> mean(dim, 0.0);
  std::size_t count = 0;
  for (std::size_t r = 0; r < excluded.size(); ++r) {
    if (excluded[r]) { continue; }
    ++count;
    for (std::size_t c = 0; c < dim; ++c) { mean[c] += rows[r * dim + c]; }
  }
  for (double& value : mean) { value = count > 0 ? value / static_cast<double>(count) : 0.0; }
  return mean;
}

//! The group as it is quantized: each excluded row replaced by mean_of_others().
[[nodiscard]] inline std::vector<double> filled_group(std::span<double const> rows, std::size_t dim,
                                                      std::vector<bool> const& excluded) {
  std::vector<double> const mean = mean_of_others(rows, dim, excluded);
  std::vector<double> filled(rows.begin(), rows.end());
  for (std::size_t r = 0; r < excluded.size(); ++r) {
    for (std::size_t c = 0; excluded[r] && c < dim; ++c) { filled[r * dim + c] = mean[c]; }
  }
  return filled;
}

}  // namespace kvcrumb::inline v0::reference
