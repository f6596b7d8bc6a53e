// SPDX-License-Identifier: Apache-2.0
//! @file Which tokens of a sequence a pruned_cache holds, and which of them leave.
#pragma once

#include <algorithm>
#include <vector>

#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0 {

//! Which token makes room for a new one.
enum class eviction : std::uint8_t {
  oldest,           //!< StreamingLLM (arXiv 2309.17453): the oldest beyond the sinks
  least_important,  //!< H2O (arXiv 2306.14048): the smallest importance, of equals the oldest
};

//! How many tokens of a sequence are held, and which leave. All numbers are per kv head.
struct pruning {
  std::int64_t capacity = 1024;  //!< most tokens held
  std::int64_t prompt = 0;       //!< most tokens that prefill keeps; 0: capacity
  std::int64_t sinks = 0;        //!< so many first tokens of the sequence never leave
  std::int64_t recent = 0;       //!< so many newest ones never leave, the one being appended included
  eviction policy = eviction::oldest;

  //! Sizes are not negative, and a token can always leave.
  constexpr bool is_valid() const noexcept {
    constexpr std::int64_t limit = std::int64_t{1} << 40;
    return capacity >= 1 && capacity <= limit && prompt >= 1 && prompt <= capacity && sinks >= 0 &&
           sinks <= limit && recent >= 0 && recent <= limit && sinks + recent <= prompt && sinks < capacity;
  }
};

//! The importance of a token that has none yet: kept before all others.
inline constexpr float unknown_importance = max_finite<float>;

namespace detail {

//! Appends to `chosen` the `kept` of `count` tokens that one head keeps, ascending: the sinks, the recent
//! ones and the most important others (`importance` null: the newest). Of equals the older is kept.
inline void choose_tokens(pruning const& rule, std::int64_t count, std::int64_t kept, float const* importance,
                          std::vector<std::int64_t>& chosen) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    tokens[static_cast<std::size_t>(i)] = i;
  auto const always = [&](std::int64_t t) { return t < rule.sinks || t >= count - rule.recent; };
  auto const before = [&](std::int64_t a, std::int64_t b) {
    if (always(a) != always(b)) return always(a);
    if (importance == nullptr) return a > b;
    return importance[a] > importance[b] || (!(importance[b] > importance[a]) && a < b);
  };
  if (kept < count) std::nth_element(tokens.begin(), tokens.begin() + kept, tokens.end(), before);
  std::sort(tokens.begin(), tokens.begin() + kept);
  chosen.insert(chosen.end(), tokens.begin(), tokens.begin() + kept);
}

//! Sequence positions and importances of the held tokens, [head][held].
struct token_set {
  pruning rule{};
  std::int64_t heads = 0;
  std::int64_t held = 0;
  std::int64_t sequence = 0;            //!< tokens seen
  std::int64_t stride = 0;              //!< from one head to the next
  std::vector<std::int64_t> positions;  //!< [heads][stride]
  std::vector<float> scores;            //!< likewise; empty unless the policy uses them

  bool scored() const noexcept { return rule.policy == eviction::least_important; }
  std::size_t index(std::int64_t head, std::int64_t i) const noexcept {
    return static_cast<std::size_t>(head * stride + i);
  }
  std::int64_t position(std::int64_t head, std::int64_t i) const noexcept {
    return positions[index(head, i)];
  }
  float score(std::int64_t head, std::int64_t i) const noexcept {
    return scored() ? scores[index(head, i)] : 0.0f;
  }
  void place(std::int64_t head, std::int64_t i, std::int64_t at, float importance) noexcept {
    positions[index(head, i)] = at;
    if (scored()) scores[index(head, i)] = importance;
  }
  void grow(std::int64_t tokens) {
    held = tokens;
    if (tokens <= stride) return;
    token_set wider{rule, heads, held, sequence, std::max(tokens, 2 * stride), {}, {}};
    wider.positions.resize(wider.index(heads, 0));
    wider.scores.resize(scored() ? wider.positions.size() : 0);
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t i = 0; i < stride; ++i)
        wider.place(head, i, position(head, i), score(head, i));
    }
    *this = static_cast<token_set&&>(wider);
  }
  //! The held token at a position; -1: not held.
  std::int64_t find(std::int64_t head, std::int64_t at) const noexcept {
    for (std::int64_t i = 0; i < held; ++i) {
      if (position(head, i) == at) return i;
    }
    return -1;
  }
  //! The held token of a head that leaves for the one at position `sequence`.
  std::int64_t victim(std::int64_t head) const noexcept {
    std::int64_t worst = -1;
    for (std::int64_t i = 0; i < held; ++i) {
      std::int64_t const at = position(head, i);
      if (at < rule.sinks || at > sequence - rule.recent) continue;
      if (worst >= 0) {
        float const a = score(head, i), b = score(head, worst);
        if (b < a || (!(a < b) && at > position(head, worst))) continue;
      }
      worst = i;
    }
    return worst;
  }
  //! The oldest of the held tokens from `begin` on.
  std::int64_t oldest_from(std::int64_t head, std::int64_t begin) const noexcept {
    std::int64_t oldest = begin;
    for (std::int64_t i = begin; i < held; ++i) {
      if (position(head, i) < position(head, oldest)) oldest = i;
    }
    return oldest;
  }
  std::int64_t bytes() const noexcept { return heads * held * (8 + (scored() ? 4 : 0)); }
  std::int64_t reserved() const noexcept {
    return static_cast<std::int64_t>(positions.capacity() * 8 + scores.capacity() * 4);
  }
};

}  // namespace detail
}  // namespace kvcrumb::inline v0
