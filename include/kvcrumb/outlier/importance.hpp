// SPDX-License-Identifier: Apache-2.0
//! @file Which tokens attention looks at: recorded logits turned into an importance of every token.
#pragma once

#include <cmath>
#include <span>

#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/status.hpp"
#include "kvcrumb/trace/concept.hpp"

namespace kvcrumb::inline v0 {

//! A tracer that keeps every logit that attention used: logits[(query_head * queries + query) * tokens +
//! position]. Fill `logits` with -inf first; that is what pairs out of sight keep. Pairs outside the array
//! are ignored.
struct logit_recorder {
  float* logits = nullptr;  //!< the caller's [query_heads][queries][tokens]
  int queries = 0;
  std::int64_t tokens = 0;

  void on_score(score_coordinate c, float logit) const noexcept {
    if (c.query >= queries || c.token >= tokens) return;
    logits[(static_cast<std::int64_t>(c.query_head) * queries + c.query) * tokens + c.token] = logit;
  }
};

//! Logits of a few queries, as logit_recorder leaves them.
struct recorded_logits {
  std::span<float const> logits{};  //!< [query_heads][queries][tokens], -inf: out of sight
  int query_heads = 0;
  int kv_heads = 0;
  int queries = 0;
  std::int64_t tokens = 0;
};

//! How an importance takes in that of its neighbours.
enum class pooling : std::uint8_t { largest, mean };

inline constexpr int max_pooling_kernel = 63;

struct importance_options {
  int kernel = 7;  //!< neighbours pooled, the token included: odd, at most max_pooling_kernel; 1: none
  pooling how = pooling::largest;
  std::int64_t recent = 0;  //!< the newest tokens, which are kept anyway: neither pooled nor neighbours
};

namespace detail {

inline status check_recorded(recorded_logits const& r, std::size_t out) noexcept {
  if (r.kv_heads < 1 || r.query_heads < 1 || r.query_heads % r.kv_heads != 0 || r.queries < 0 || r.tokens < 0)
    return status::bad_shape;
  if (r.tokens > std::int64_t{1} << 40) return status::size_overflow;
  std::int64_t const rows = static_cast<std::int64_t>(r.query_heads) * r.queries;
  if (static_cast<std::int64_t>(r.logits.size()) < rows * r.tokens) return status::buffer_too_small;
  if (static_cast<std::int64_t>(out) < r.kv_heads * r.tokens) return status::buffer_too_small;
  return status::ok;
}

//! Calls f(kv head, token, weight) for every pair in sight; the weights of a query sum to 1.
template <class F>
void each_weight(recorded_logits const& r, F f) noexcept {
  int const ratio = r.query_heads / r.kv_heads;
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(r.query_heads) * r.queries; ++row) {
    float const* logits = r.logits.data() + row * r.tokens;
    auto const in_sight = [&](std::int64_t t) {
      return float_bits(logits[t]) != 0xFF800000u;  // -inf, by its bits: fast-math knows no infinities
    };
    double top = 0.0, sum = 0.0;
    bool any = false;
    for (std::int64_t t = 0; t < r.tokens; ++t) {
      if (!in_sight(t)) continue;
      double const l = static_cast<double>(logits[t]);
      if (!any || l > top) top = l;
      any = true;
    }
    for (std::int64_t t = 0; t < r.tokens; ++t)
      sum += in_sight(t) ? std::exp(static_cast<double>(logits[t]) - top) : 0.0;
    int const head = static_cast<int>(row / r.queries) / ratio;
    for (std::int64_t t = 0; t < r.tokens; ++t) {
      if (in_sight(t)) f(head, t, std::exp(static_cast<double>(logits[t]) - top) / sum);
    }
  }
}

//! Replaces x[0, n) by the pooled values; a window that reaches over an end is cut off there, its mean is
//! over the whole kernel.
inline void pool_neighbours(float* x, std::int64_t n, int kernel, pooling how) noexcept {
  int const reach = kernel / 2;
  float before[max_pooling_kernel / 2 + 1] = {};  // x[t - 1 - i] as it was, at (t - 1 - i) % reach
  for (std::int64_t t = 0; t < n; ++t) {
    float const own = x[t];
    float largest = own, sum = 0.0f;
    for (std::int64_t s = t - reach; s <= t + reach; ++s) {
      if (s < 0 || s >= n) continue;
      float const v = s < t ? before[s % reach] : x[s];
      if (v > largest || v != v) largest = v;
      sum += v;
    }
    if (reach > 0) before[t % reach] = own;
    x[t] = how == pooling::largest ? largest : sum / static_cast<float>(kernel);
  }
}

}  // namespace detail

//! The importance of every token to the recorded queries (SnapKV, arXiv 2404.14469): attention weights summed
//! over the queries (its observation window, the last 16 to 64 of the prompt), averaged over the query heads
//! of a kv head, then pooled over neighbours. `out` is [kv_heads][tokens]. Errors: bad_shape (sizes, kernel),
//! buffer_too_small, size_overflow. A NaN among the logits becomes a NaN importance. Cost: two exponentials a
//! pair in sight. The softmax is over what was in sight, the recent tokens included. Results depend on the C
//! library in the last bits; bytes of a cache depend on them through the choice of tokens only.
inline status attention_importance(recorded_logits const& r, importance_options const& options,
                                   std::span<float> out) noexcept {
  if (options.kernel < 1 || options.kernel > max_pooling_kernel || options.kernel % 2 == 0 ||
      options.recent < 0)
    return status::bad_shape;
  if (status const s = detail::check_recorded(r, out.size()); s != status::ok) return s;
  for (std::int64_t i = 0; i < r.kv_heads * r.tokens; ++i)
    out[static_cast<std::size_t>(i)] = 0.0f;
  float const share = 1.0f / static_cast<float>(r.query_heads / r.kv_heads);
  detail::each_weight(r, [&](int head, std::int64_t token, double weight) {
    out[static_cast<std::size_t>(head * r.tokens + token)] += static_cast<float>(weight) * share;
  });
  std::int64_t const pooled = r.tokens > options.recent ? r.tokens - options.recent : 0;
  for (int head = 0; head < r.kv_heads; ++head)
    detail::pool_neighbours(out.data() + head * r.tokens, pooled, options.kernel, options.how);
  return status::ok;
}

//! The largest weight that any recorded query, of any query head of the kv head, gave to each token (QAQ's
//! A_max). `out` is [kv_heads][tokens]; 0 where no query saw the token. Errors and cost as above.
inline status largest_attention(recorded_logits const& r, std::span<float> out) noexcept {
  if (status const s = detail::check_recorded(r, out.size()); s != status::ok) return s;
  for (std::int64_t i = 0; i < r.kv_heads * r.tokens; ++i)
    out[static_cast<std::size_t>(i)] = 0.0f;
  detail::each_weight(r, [&](int head, std::int64_t token, double weight) {
    float& largest = out[static_cast<std::size_t>(head * r.tokens + token)];
    if (static_cast<float>(weight) > largest || weight != weight) largest = static_cast<float>(weight);
  });
  return status::ok;
}

}  // namespace kvcrumb::inline v0
