// SPDX-License-Identifier: Apache-2.0
//! @file Which values share parameters: per_channel<G tokens> or per_token<G channels>.
#pragma once

#include <concepts>

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! One parameter set per channel and `Tokens` consecutive tokens (KIVI's keys). Tokens are appended in
//! groups.
template <int Tokens>
struct per_channel {
  static_assert(Tokens >= 8 && Tokens <= 128 && (Tokens & (Tokens - 1)) == 0,
                "kvcrumb::per_channel: Tokens must be 8, 16, 32, 64 or 128");
  static constexpr char const* name = "per_channel";
  static constexpr bool channelwise = true;
  static constexpr int size = Tokens;
  //! Tokens that must be encoded together.
  static constexpr int append_tokens = Tokens;
  //! Group length inside one tile.
  static constexpr int group_length(int /*head_dim*/) noexcept { return Tokens; }
  //! Neighbouring kv heads that share a group.
  static constexpr int head_span(int /*head_dim*/) noexcept { return 1; }
  static constexpr bool fits(int /*head_dim*/, int tile_tokens) noexcept { return tile_tokens % Tokens == 0; }
};

//! Whether a per-token group ends with its head or runs on into the next one.
enum class head_crossing : std::uint8_t { within_head, across_heads };

//! One parameter set per token and `Channels` consecutive channels. Every token is independent of its
//! neighbours.
//!
//! within_head: groups begin anew with every head; the last one of a head may be ragged, and a head narrower
//! than `Channels` is one group (KIVI's values). across_heads: a group spans Channels / head_dim neighbouring
//! kv heads (NQKV's 256); head_dim must divide `Channels`, and the last span may be ragged. Each head's tile
//! keeps its own copy of the shared parameters, so that tiles stay self-contained. Heads at least `Channels`
//! wide are grouped as within_head.
template <int Channels, head_crossing Crossing = head_crossing::within_head>
struct per_token {
  static_assert(Channels >= 1, "kvcrumb::per_token: Channels must be positive");
  static constexpr bool crosses = Crossing == head_crossing::across_heads;
  static constexpr char const* name = crosses ? "per_token_across" : "per_token";
  static constexpr bool channelwise = false;
  static constexpr int size = Channels;
  static constexpr int append_tokens = 1;
  static constexpr int group_length(int head_dim) noexcept {
    return Channels < head_dim ? Channels : head_dim;
  }
  static constexpr int head_span(int head_dim) noexcept {
    return crosses && Channels > head_dim ? Channels / head_dim : 1;
  }
  static constexpr bool fits(int head_dim, int /*tile_tokens*/) noexcept {
    return !crosses || Channels <= head_dim || Channels % head_dim == 0;
  }
};

//! One parameter set per token and head, whatever head_dim is (QServe's groups).
struct per_row {
  static constexpr char const* name = "per_row";
  static constexpr bool channelwise = false;
  static constexpr int size = 0;
  static constexpr int append_tokens = 1;
  static constexpr int group_length(int head_dim) noexcept { return head_dim; }
  static constexpr int head_span(int /*head_dim*/) noexcept { return 1; }
  static constexpr bool fits(int /*head_dim*/, int /*tile_tokens*/) noexcept { return true; }
};

//! A grouping policy.
template <class G>
concept grouping = requires {
  { G::name } -> std::convertible_to<char const*>;
  { G::size } -> std::convertible_to<int>;
  { G::channelwise } -> std::convertible_to<bool>;
  { G::append_tokens } -> std::convertible_to<int>;
  { G::group_length(128) } -> std::same_as<int>;
  { G::head_span(128) } -> std::same_as<int>;
  { G::fits(128, 128) } -> std::same_as<bool>;
};

}  // namespace kvcrumb::inline v0
