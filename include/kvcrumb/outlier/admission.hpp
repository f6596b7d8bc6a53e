// SPDX-License-Identifier: Apache-2.0
//! @file The rule of outlier-token tracing: who enters the pool, who leaves it, and when it stops.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! One token of the pool or a candidate for it.
struct scored_token {
  float score = 0.0f;
  std::int64_t position = 0;
};

//! Smaller score first; of equal scores the older token.
KVCRUMB_API constexpr bool precedes(scored_token a, scored_token b) noexcept {
  return a.score < b.score || (!(b.score < a.score) && a.position < b.position);
}

//! What happens to a candidate.
enum class admission : std::uint8_t { refused, entered, replaced };

struct admission_result {
  admission what = admission::refused;
  int victim = -1;  //!< index in the pool of the token that moves to the auxiliary pool (replaced)
};

//! Offers one candidate to a pool of `count` of at most `capacity` tokens. The candidate enters while there
//! is room; otherwise it takes the place of the pool's largest score (of equals, the youngest token leaves)
//! if its own is strictly smaller and the auxiliary pool has a free slot for the one that leaves. With no
//! free slot the pool is frozen: no token is ever lost. Candidates of one group must be offered in the order
//! of `precedes`; then no candidate is evicted by a later one of the same group. Cost: one pass over the
//! pool.
KVCRUMB_API admission_result offer(scored_token candidate, scored_token const* pool, int count, int capacity,
                                   int free_auxiliary) noexcept {
  if (count < capacity) return {admission::entered, -1};
  if (capacity <= 0 || free_auxiliary <= 0) return {};
  int worst = 0;
  for (int i = 1; i < count; ++i) {
    if (precedes(pool[worst], pool[i])) worst = i;
  }
  if (candidate.score < pool[worst].score) return {admission::replaced, worst};
  return {};
}

//! One-shot selection (prefill): marks the `capacity` smallest of n tokens in the order of `precedes`;
//! marked[i] becomes 1 or 0. Cost: n * capacity comparisons at most, no memory.
KVCRUMB_API int select_smallest(scored_token const* tokens, std::int64_t n, int capacity,
                                std::uint8_t* marked) noexcept {
  for (std::int64_t i = 0; i < n; ++i)
    marked[i] = 0;
  int chosen = 0;
  for (; chosen < capacity && chosen < n; ++chosen) {
    std::int64_t best = -1;
    for (std::int64_t i = 0; i < n; ++i) {
      if (marked[i] == 0 && (best < 0 || precedes(tokens[i], tokens[best]))) best = i;
    }
    marked[best] = 1;
  }
  return chosen;
}

}  // namespace kvcrumb::inline v0
