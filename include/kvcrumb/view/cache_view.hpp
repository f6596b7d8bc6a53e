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

//! The parts of a cache. Every token of [0, tokens) is visible exactly once: in `sinks`, in a valid slot of
//! the tiles, in `pool` or `aux`, or in `tail`.
template <class Scheme, storage_float Row>
struct cache_view {
  Scheme scheme{};
  tile_shape shape{};
  int kv_heads = 0;
  std::int64_t tokens = 0;  //!< sequence length
  exact_rows<Row> sinks{};  //!< positions [0, sinks.count)
  sections_view<std::byte const> keys{}, values{}, masks{};
  std::int64_t tile_first = 0;   //!< position of slot 0 of tile 0
  std::int64_t tile_tokens = 0;  //!< slots in use, the last tile may be ragged
  isolated_rows<Row> pool{}, aux{};
  exact_rows<Row> tail{};  //!< the newest tokens

  constexpr std::int64_t tiles() const noexcept {
    return (tile_tokens + shape.tile_tokens - 1) / shape.tile_tokens;
  }
  //! Validity bit of a slot: 0 where the token is isolated or was never written.
  constexpr bool valid(std::int64_t head, std::int64_t tile, int slot) const noexcept {
    return ((std::to_integer<unsigned>(masks.section(head, tile)[slot / 8]) >> (slot % 8)) & 1u) != 0;
  }
};

}  // namespace kvcrumb::inline v0
