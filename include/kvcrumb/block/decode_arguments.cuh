// SPDX-License-Identifier: Apache-2.0
//! @file What decode attention is asked for, and how its work is cut into parts.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/view/batch_cache.hpp"
#include "kvcrumb/warp/section.cuh"
#include "kvcrumb/warp/transform.cuh"

namespace kvcrumb::inline v0::block {

//! Everything that a decode kernel is compiled for. Query and Output are float16, bfloat16 or float.
//! ColumnTiles tensor-core tiles of 8 query columns read the cache together; 1 or 2.
template <class Scheme, int HeadDim, int TileTokens, class Query, class Output, int ColumnTiles = 1>
struct decode_config {
  using scheme_type = Scheme;
  using blob = warp::blob_traits<Scheme, HeadDim, TileTokens>;
  using query_type = Query;
  using output_type = Output;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
  static constexpr int column_tiles = ColumnTiles, columns = 8 * ColumnTiles;
  static constexpr int warps = 4, threads = 32 * warps;
  //! Blocks per multiprocessor that registers shall allow: three where the rings leave room for them in the
  //! 228 KiB of sm_90 and 168 registers suffice (tests/codegen), else two.
  static constexpr int ring_blocks = (228 << 10) / (warps * blob::warp_bytes + 3968);
  template <class Section>
  static constexpr bool slim = Section::spec.bits != 3 && Section::unit::kind != warp::operand_kind::floats;
  static constexpr bool three_fit = HeadDim * ColumnTiles <= 128 && ring_blocks >= 3 &&
                                    slim<typename blob::key> && slim<typename blob::value>;
  static constexpr int resident_blocks = three_fit ? 3 : 2;
};

//! Tiles [first, end) that some query of a sequence sees, and the units of work of one of its segments.
struct sequence_work {
  int first, end, exact_rows, units;
  int length, tile_first, slots;  //!< tokens, position of slot 0, slots in use

  KVCRUMB_API int tiles() const noexcept { return end - first; }
};

//! One block's work: `count` units from unit `unit` of segment `segment` (kv head and column block) of a
//! sequence on. The work of that sequence comes along, so that a block has what it needs after one access.
struct work_start {
  std::int32_t sequence, segment, unit, count;
  sequence_work work;
};

//! The plan of a launch, in the workspace. `prefix` counts units (streams) or chunks (fixed split) of all
//! segments of the sequences before; `starts` is used by streams only.
struct decode_plan {
  std::int64_t* prefix = nullptr;  //!< [sequences + 1]
  work_start* starts = nullptr;    //!< [blocks of the grid]
  std::int32_t* blocks = nullptr;  //!< [1], blocks that have work
};

//! Partial results: slot s has o[columns][head_dim], then max[columns] (log2 units), then sum[columns].
struct partial_results {
  KVCRUMB_API static constexpr std::int64_t slot_floats(int columns, int head_dim) noexcept {
    return static_cast<std::int64_t>(columns) * (head_dim + 2);
  }
};

//! Arguments of a decode launch. All pointers are device memory.
template <class Query, class Output>
struct decode_arguments {
  batch_cache cache{};
  batch_rows<Query const> q{};  //!< row(sequence, query head, query token)
  batch_rows<Output> o{};       //!< likewise
  float* lse = nullptr;         //!< [sequences][query_heads][queries], natural log, or null
  //! [sequences][query_heads][queries][2] (maximum, sum) in natural units, or null; then o is not normalized.
  float* states = nullptr;
  int query_heads = 1;
  int queries = 1;     //!< newest query tokens of each sequence; token j sees keys up to its own position
  float scale = 0.0f;  //!< softmax_scale * log2(e), positive
  float soft_cap = 0.0f;
  int window = 0;
  float const* sink_logits = nullptr;  //!< [query_heads] or null
  int chunk_tiles = 0;                 //!< tiles of one part in the fixed split; 0: streams
  int grid_blocks = 0;                 //!< blocks of the decode grid
  decode_plan plan{};
  float* partials = nullptr;  //!< slots of tiles
  //! [sequences][segments][2] slots: the exact rows, then the tiles if one block has all of them. Null when
  //! the cache has no exact rows.
  float* exact_partials = nullptr;

  KVCRUMB_API int ratio() const noexcept { return query_heads / cache.kv_heads; }
  KVCRUMB_API int rows() const noexcept { return ratio() * queries; }
  KVCRUMB_API int column_blocks(int columns) const noexcept { return (rows() + columns - 1) / columns; }
  KVCRUMB_API int segments(int columns) const noexcept { return cache.kv_heads * column_blocks(columns); }
};

//! The work of a sequence. A unit is a tile, or as many exact rows as have the bytes of one.
template <class Config, class Arguments>
KVCRUMB_DEVICE sequence_work work_of(Arguments const& a, int sequence) {
  using blob = typename Config::blob;
  batch_cache::parts const parts = a.cache.split(sequence);
  sequence_work w{};
  w.length = parts.sinks + parts.slots + parts.tail;
  w.tile_first = parts.sinks;
  w.slots = parts.slots;
  w.end = (parts.slots + Config::tile_tokens - 1) / Config::tile_tokens;
  int const oldest = a.window > 0 ? w.length - a.queries - a.window + 1 : 0;  // first position that is seen
  if (oldest > w.tile_first) w.first = (oldest - w.tile_first) / Config::tile_tokens;
  if (w.first > w.end) w.first = w.end;
  if (a.exact_partials != nullptr && w.length > 0) {
    w.exact_rows = parts.sinks + parts.tail + a.cache.pool.capacity + a.cache.aux.capacity;
  }
  constexpr int tile_bytes =
      blob::key::code_bytes + blob::key::param_bytes + blob::value::code_bytes + blob::value::param_bytes;
  constexpr int rows_per_unit = tile_bytes / (4 * Config::head_dim) + 1;
  w.units = w.tiles() + (w.exact_rows + rows_per_unit - 1) / rows_per_unit;
  return w;
}

}  // namespace kvcrumb::inline v0::block
