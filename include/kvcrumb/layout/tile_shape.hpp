// SPDX-License-Identifier: Apache-2.0
//! @file What a tile is: its sides, its shape and the description of one packed section.
#pragma once

#include "kvcrumb/config.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! The two sides of a KV cache. Keys are rows of tokens, values are columns of tokens in the attention
//! product.
enum class side : std::uint8_t { key, value };

//! Shape of one tile: `tile_tokens` tokens of one kv head, `head_dim` channels each.
//! The tile is the packing unit; how many tokens must be appended at once is a property of the scheme
//! (`append_tokens`), not of the tile.
struct tile_shape {
  int head_dim = 128;
  int tile_tokens = 128;

  friend constexpr bool operator==(tile_shape const&, tile_shape const&) = default;
};

//! Limits that every layout shares.
inline constexpr int max_head_dim = 1024;
inline constexpr int max_tile_tokens = 128;

//! Checks the shape alone: tile_tokens is 32, 64 or 128 and head_dim lies in [1, 1024].
KVCRUMB_API constexpr status check_shape(tile_shape shape) noexcept {
  if (shape.tile_tokens != 32 && shape.tile_tokens != 64 && shape.tile_tokens != 128) {
    return status::bad_tile_tokens;
  }
  if (shape.head_dim < 1 || shape.head_dim > max_head_dim) return status::bad_head_dim;
  return status::ok;
}

//! Everything that determines where a code or a parameter of one section lies.
//!
//! A section is one side of one tile: the codes of `tile_tokens` x `head_dim` values and the parameters of
//! their groups. A group belongs to one *owner* and runs along the other axis: a per-channel group is owned
//! by a channel and runs over `group` tokens, a per-token group is owned by a token and runs over `group`
//! channels.
struct section_spec {
  tile_shape shape;
  side which = side::key;
  int bits = 2;              //!< bits per code
  bool per_channel = false;  //!< owner of a group: channel (true) or token (false)
  int group = 128;           //!< length of a group along its run, already cut to the tile
  int planes = 2;            //!< parameters per group: scale, minimum, ...
  int param_bytes = 2;       //!< bytes of one stored parameter

  KVCRUMB_API constexpr int owners() const noexcept {
    return per_channel ? shape.head_dim : shape.tile_tokens;
  }
  KVCRUMB_API constexpr int run() const noexcept { return per_channel ? shape.tile_tokens : shape.head_dim; }
  //! Groups per owner; the last one may be ragged.
  KVCRUMB_API constexpr int groups() const noexcept { return (run() + group - 1) / group; }
  KVCRUMB_API constexpr std::int64_t param_count() const noexcept {
    return static_cast<std::int64_t>(planes) * groups() * owners();
  }
};

KVCRUMB_API constexpr std::int64_t align_up(std::int64_t bytes, std::int64_t alignment) noexcept {
  return (bytes + alignment - 1) / alignment * alignment;
}

KVCRUMB_API constexpr int greatest_common_divisor(int a, int b) noexcept {
  while (b != 0) {
    int const r = a % b;
    a = b;
    b = r;
  }
  return a;
}

}  // namespace kvcrumb::inline v0
