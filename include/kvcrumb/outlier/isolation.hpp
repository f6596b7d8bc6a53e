// SPDX-License-Identifier: Apache-2.0
//! @file Which tokens a cache keeps exact: none, the first ones, the caller's list, or a traced pool.
#pragma once

#include <initializer_list>

#include "kvcrumb/outlier/scores.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! How tokens are chosen when a group is encoded.
enum class selection : std::uint8_t { none, listed, smallest };

//! Whether kv heads choose for themselves or a layer chooses by the sum of its heads' scores.
enum class pool_scope : std::uint8_t { per_head, per_layer };

//! Bounds that keep a corrupt file or a typing error from asking for absurd memory.
inline constexpr int max_isolated = 1 << 16;

//! An isolation policy: sink_tokens() first tokens of the sequence stay exact rows; pool_capacity() and
//! aux_capacity() bound the isolated tokens per kv head; `how` says who chooses.
template <class Policy>
concept isolation = requires(Policy const i, float const* row) {
  { Policy::name } -> std::convertible_to<char const*>;
  { Policy::how } -> std::convertible_to<selection>;
  { i.sink_tokens() } -> std::same_as<int>;
  { i.pool_capacity() } -> std::same_as<int>;
  { i.aux_capacity() } -> std::same_as<int>;
  { i.scope() } -> std::same_as<pool_scope>;
  { i.score(row, 128) } -> std::same_as<float>;
};

//! Every token is encoded.
struct no_isolation {
  static constexpr char const* name = "none";
  static constexpr selection how = selection::none;
  constexpr int sink_tokens() const noexcept { return 0; }
  constexpr int pool_capacity() const noexcept { return 0; }
  constexpr int aux_capacity() const noexcept { return 0; }
  constexpr pool_scope scope() const noexcept { return pool_scope::per_head; }
  KVCRUMB_API float score(float const*, int) const noexcept { return 0.0f; }
};

//! The first `Tokens` tokens of the sequence stay exact (attention sinks; "preserve first N", KVQuant, SKVQ).
template <int Tokens>
struct prefix : no_isolation {
  static_assert(Tokens >= 0 && Tokens <= max_isolated, "kvcrumb::prefix: Tokens must be in [0, 65536]");
  static constexpr char const* name = "prefix";
  constexpr int sink_tokens() const noexcept { return Tokens; }
};

//! The caller's list of positions, given to the cache before those tokens are encoded (KVSink-like
//! predictors, arXiv 2508.04257). At most `capacity` positions per sequence; sinks as in prefix.
struct external {
  static constexpr char const* name = "external";
  static constexpr selection how = selection::listed;
  int capacity = 32;
  int sinks = 0;
  constexpr int sink_tokens() const noexcept { return sinks; }
  constexpr int pool_capacity() const noexcept { return capacity; }
  constexpr int aux_capacity() const noexcept { return 0; }
  constexpr pool_scope scope() const noexcept { return pool_scope::per_layer; }
  KVCRUMB_API float score(float const*, int) const noexcept { return 0.0f; }
};

//! Outlier-token tracing (OTT, arXiv 2505.10938; SinkQ): the `capacity` tokens with the smallest scores among
//! all encoded ones stay exact. When a group is encoded its tokens compete with the pool; a token pushed out
//! of the pool cannot return to its closed group and goes to the auxiliary pool. capacity = 0 switches
//! tracing off (OTT does so in the first two layers); the bytes are then those of plain block quantization.
template <token_score Score = l1_score>
struct token_pool {
  static constexpr char const* name = "token_pool";
  static constexpr selection how = selection::smallest;
  static constexpr void describe(description& d) noexcept {
    d << name << " ";
    describe_as<Score>(d);
  }
  int capacity = 3;
  int auxiliary = 32;
  pool_scope across = pool_scope::per_head;
  int sinks = 0;
  Score measure{};

  //! State of the score that changes which tokens are chosen, if it has any; saved with a cache.
  std::uint64_t id() const noexcept requires requires(Score s) { s.id(); }
  { return measure.id(); }
  constexpr int sink_tokens() const noexcept { return sinks; }
  constexpr int pool_capacity() const noexcept { return capacity; }
  constexpr int aux_capacity() const noexcept { return capacity > 0 ? auxiliary : 0; }
  constexpr pool_scope scope() const noexcept { return across; }
  KVCRUMB_API float score(float const* row, int head_dim) const noexcept { return measure(row, head_dim); }
};

//! Checks capacities: none negative or above max_isolated.
template <isolation Policy>
status check_isolation(Policy i) noexcept {
  for (int const n : {i.sink_tokens(), i.pool_capacity(), i.aux_capacity()}) {
    if (n < 0 || n > max_isolated) return status::bad_window;
  }
  return status::ok;
}

}  // namespace kvcrumb::inline v0
