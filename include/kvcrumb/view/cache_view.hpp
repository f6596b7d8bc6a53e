// SPDX-License-Identifier: Apache-2.0
//! @file cache_view: one layer of one sequence as attention reads it; owns nothing.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! Consecutive full-precision rows: the first has sequence position `first`.
template <storage_float Row>
struct exact_rows {
  rows_view<Row const> keys{}, values{};
  std::int64_t first = 0;
  std::int64_t count = 0;

  //! Rows [begin, begin + n) of these.
  constexpr exact_rows part(std::int64_t begin, std::int64_t n) const noexcept {
    return {keys.starting_at(0, begin), values.starting_at(0, begin), first + begin, n};
  }
};

//! Isolated full-precision rows of each kv head with their positions: positions + head * stride_positions,
//! counts[head] of them. Null counts: empty.
template <storage_float Row>
struct isolated_rows {
  rows_view<Row const> keys{}, values{};
  std::int64_t const* positions = nullptr;
  std::int64_t stride_positions = 0;
  std::int32_t const* counts = nullptr;
};

//! Where the tokens that a cache holds stand in the sequence, when it does not hold all of it: token i of a
//! kv head has the position data[head * stride_head + i]. Null: token i is at position i.
struct token_positions {
  std::int64_t const* data = nullptr;
  std::int64_t stride_head = 0;

  constexpr std::int64_t operator()(std::int64_t head, std::int64_t token) const noexcept {
    return data == nullptr ? token : data[head * stride_head + token];
  }
};

//! The parts of a cache. Every token of [0, tokens) is visible exactly once: in `sinks`, in a valid slot of
//! the tiles, in `pool` or `aux`, or in `tail`. Positions in these parts count the tokens that are held;
//! `where` turns them into positions of the sequence.
template <class Scheme, storage_float Row>
struct cache_view {
  Scheme scheme{};
  tile_shape shape{};
  int kv_heads = 0;
  std::int64_t tokens = 0;  //!< tokens held
  token_positions where{};
  std::int64_t sequence = -1;  //!< length of the sequence; negative: as many as are held
  exact_rows<Row> sinks{};     //!< tokens [0, sinks.count)
  sections_view<std::byte const> keys{}, values{}, masks{};
  std::int64_t tile_first = 0;   //!< token in slot 0 of tile 0
  std::int64_t tile_tokens = 0;  //!< slots in use, the last tile may be ragged
  isolated_rows<Row> pool{}, aux{};
  exact_rows<Row> tail{};  //!< the newest tokens

  constexpr std::int64_t length() const noexcept { return sequence < 0 ? tokens : sequence; }
  constexpr std::int64_t tiles() const noexcept {
    return (tile_tokens + shape.tile_tokens - 1) / shape.tile_tokens;
  }
  //! Validity bit of a slot: 0 where the token is isolated or was never written.
  constexpr bool valid(std::int64_t head, std::int64_t tile, int slot) const noexcept {
    return ((std::to_integer<unsigned>(masks.section(head, tile)[slot / 8]) >> (slot % 8)) & 1u) != 0;
  }
};

}  // namespace kvcrumb::inline v0
