// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention of one block over a range of tiles, or over the exact rows, of one segment.
#pragma once

#include "kvcrumb/block/finish.cuh"
#include "kvcrumb/block/query_columns.cuh"
#include "kvcrumb/warp/accumulate.cuh"

namespace kvcrumb::inline v0::block {

//! Whose result a block has, and where it goes.
struct result_place {
  int sequence, head, column_block;
  bool final = false;      //!< the segment is complete: normalize and store
  float* slots = nullptr;  //!< else: slot `slot` of these partial results
  std::int64_t slot = 0;
};

//! The collective of Config::threads threads. Each warp streams every fourth tile through a ring of its own
//! and keeps its own softmax state; the states are merged through the rings' memory at the end.
//!
//!   KVCRUMB_SHARED(decode<Config>::shared_storage, storage);  KVCRUMB_SHARED_DYNAMIC(dynamic) of
//!   dynamic_bytes; decode<Config> block{storage, dynamic, cache}; block.init(); block.tiles(...);
//!   block.exact_rows(...);   any number of times, whole block together
template <class Config>
class decode {
 public:
  using blob = typename Config::blob;
  using scheme_type = typename Config::scheme_type;
  using ring_type = warp::ring<blob>;
  static constexpr int head_dim = Config::head_dim, column_tiles = Config::column_tiles,
                       columns = Config::columns, warps = Config::warps;

  struct shared_storage {
    typename ring_type::shared_barriers barriers[warps];
    query_storage<Config> query;
    float max[warps][columns];
    float sum[warps][columns];
  };
  static constexpr std::size_t merge_bytes = sizeof(float) * warps * columns * head_dim;
  static constexpr std::size_t ring_bytes = std::size_t{warps} * blob::warp_bytes;
  static constexpr std::size_t dynamic_bytes = ring_bytes > merge_bytes ? ring_bytes : merge_bytes;

  KVCRUMB_DEVICE decode(shared_storage& storage, std::byte* dynamic, batch_cache const& cache)
      : storage_{storage},
        outputs_{reinterpret_cast<float*>(dynamic)},
        lane_{static_cast<int>(threadIdx.x) & 31},
        warp_{static_cast<int>(threadIdx.x) >> 5},
        ring_{ptx::shared_address(dynamic) + static_cast<std::uint32_t>(warp_ * blob::warp_bytes),
              ptx::shared_address(&storage.barriers[warp_]), cache, warps, lane_} {}

  //! Once per kernel.
  KVCRUMB_DEVICE void init() {
    ring_.init_barriers();
    __syncthreads();
  }

  //! Tiles [first, end) of a segment. Asks place_of() for the place when there is a result, so that it needs
  //! no registers until then.
  template <class Arguments, class PlaceOf>
  KVCRUMB_DEVICE void tiles(Arguments const& a, scheme_type const& scheme, int sequence, int head,
                            int column_block, sequence_work const& w, int first, int end, PlaceOf place_of) {
    warp::query_of<blob, column_tiles> q;
    auto const key_levels = warp::make_levels(scheme.key.codec);
    auto const value_levels = warp::make_levels(scheme.value.codec);
    int const first_query = w.length - a.queries;  // positions from here on are hidden from some query

    warp::column_state<blob::dim_blocks, column_tiles> state;
    float bias = warp::weight_bias;
    for (;;) {
      query_rows<Config> fetched;
      if (bias != 0.0f) fetched.fetch(a, sequence, head, column_block);
      ring_.start(sequence, head, first + warp_, end);
      if (bias != 0.0f) {  // the first tiles are on their way while the query is made ready
        store_query_columns<query_form::operand>(storage_.query, fetched, a, scheme, head, column_block,
                                                 w.length);
        __syncthreads();
        q.load(ptx::shared_address(storage_.query.fp16), lane_);
      }
      state.clear();
      for (int tile = first + warp_; tile < end; tile += warps) {
        ring_.begin_tile();
        warp::tile_scores<blob, column_tiles> scores;
        warp::score_tile(scores, ring_, q, key_levels, &storage_.query.sums[0][0], lane_);
        float scale[column_tiles][2], shift[column_tiles][2];
        load_columns(storage_.query.scale, scale);
        load_columns(storage_.query.shift, shift);
        warp::apply_columns(scores, scale, shift);
        warp::tile_visibility<column_tiles> const v = visibility(a, w, tile, first_query);
        using form = typename warp::tile_scores<blob, column_tiles>::form;
        if (v.cut || a.soft_cap > 0.0f) {
          warp::restrict_scores<form>(scores.s, scores.zero, scale, v, a.soft_cap, lane_);
        } else if (!v.all_valid) {
          warp::hide_invalid(scores.s, v.valid, lane_);
        }
        if (!v.all_valid) warp::hide_value_parameters<blob>(ring_.parameters(), v.valid, lane_);
        std::uint32_t weights[column_tiles][blob::token_blocks][2];
        warp::weigh<form>(weights, scores.s, scores.zero, scale, state, bias);
        warp::accumulate_tile(state, ring_, weights, value_levels, v.valid, lane_);
        ring_.end_tile();
      }
      if (bias == 0.0f || !overflowed(state)) break;
      bias = 0.0f;  // a gain of 2^8 or more: once more without
    }

    float const unbias = bias == 0.0f ? 1.0f : 1.0f / 256.0f;
    ptx::async_proxy_fence();
    __syncthreads();  // nothing is in flight: the rings' memory takes the outputs
    warp::unpack_output<blob>(state, lane_, [&](int column, int channel, float x) {
      outputs_[(warp_ * columns + column) * head_dim + channel] = x * unbias;
    });
    publish(state, unbias);
    merge(a, scheme, place_of());
  }

  //! All exact rows of a segment: sinks, pools, tail.
  template <class Arguments>
  KVCRUMB_DEVICE void exact_rows(Arguments const& a, scheme_type const& scheme, int sequence, int head,
                                 int column_block, sequence_work const& w, result_place const& place) {
    query_rows<Config> fetched;
    fetched.fetch(a, sequence, head, column_block);
    store_query_columns<query_form::rows>(storage_.query, fetched, a, scheme, head, column_block, w.length);
    __syncthreads();
    float scale[column_tiles][2];
    int newest[column_tiles][2];
    load_columns(storage_.query.scale, scale);
    load_columns(storage_.query.newest, newest);
    std::uint32_t const rows = ptx::shared_address(storage_.query.fp16);
    warp::exact_attention<head_dim, column_tiles> exact;
    exact.state.clear();
    int turn = warp_;  // blocks of 16 rows of all lists are dealt to the warps in turn
    for (int kind = 0; kind < 4; ++kind) {
      warp::exact_list const list = exact_list(a.cache, kind, ptx::opaque(sequence), head, w);
      for (int begin = 0; begin < list.count; begin += 16, --turn) {
        if (turn == 0) {
          int oldest[column_tiles][2];
          KVCRUMB_UNROLL
          for (int n = 0; n < column_tiles; ++n) {
            KVCRUMB_UNROLL
            for (int i = 0; i < 2; ++i)
              oldest[n][i] = a.window > 0 ? ptx::opaque(newest[n][i]) - a.window + 1 : 0;
          }
          exact.add(list, begin, rows, scale, oldest, newest, a.soft_cap, warp::weight_bias, lane_);
          turn = warps;
        }
      }
    }
    ptx::async_proxy_fence();
    __syncthreads();
    exact.unpack(lane_, [&](int column, int channel, float x) {
      outputs_[(warp_ * columns + column) * head_dim + channel] = x * (1.0f / 256.0f);
    });
    publish(exact.state, 1.0f / 256.0f);
    merge(a, scheme, place);
  }

 private:
  //! What belongs to this lane's columns.
  template <class T>
  KVCRUMB_DEVICE void load_columns(T const (&of)[columns], T (&mine)[column_tiles][2]) const {
    KVCRUMB_UNROLL
    for (int n = 0; n < column_tiles; ++n) {
      mine[n][0] = of[8 * n + 2 * (lane_ & 3)];
      mine[n][1] = of[8 * n + 2 * (lane_ & 3) + 1];
    }
  }

  template <class Arguments>
  KVCRUMB_DEVICE warp::tile_visibility<column_tiles> visibility(Arguments const& a, sequence_work const& w,
                                                                int tile, int first_query) const {
    constexpr int tokens = Config::tile_tokens;
    warp::tile_visibility<column_tiles> v;
    ptx::load_shared_128(v.valid, ring_.parameters() + blob::mask_offset);
    v.all_valid = true;
    KVCRUMB_UNROLL
    for (int i = 0; i < tokens / 32; ++i)
      v.all_valid = v.all_valid && v.valid[i] == ~0u;
    int const position = w.tile_first + tile * tokens;  // of slot 0
    int const slots = w.slots - tile * tokens;          // beyond them lie slots that a shorter length hides
    int const seen = a.window > 0 ? w.length - a.window : 0;  // first position that the newest query sees
    v.cut = slots < tokens || position + tokens - 1 > first_query || position < seen;
    if (v.cut) {
      load_columns(storage_.query.newest, v.last);
      KVCRUMB_UNROLL
      for (int n = 0; n < column_tiles; ++n) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 2; ++i) {
          int const last = v.last[n][i] - position;
          v.first[n][i] = a.window > 0 ? last - a.window + 1 : 0;
          v.last[n][i] = last < slots ? last : slots - 1;
        }
      }
    } else {
      KVCRUMB_UNROLL
      for (int n = 0; n < column_tiles; ++n) {
        v.first[n][0] = v.first[n][1] = 0;
        v.last[n][0] = v.last[n][1] = tokens - 1;
      }
    }
    return v;
  }

  KVCRUMB_DEVICE bool overflowed(warp::column_state<blob::dim_blocks, column_tiles> const& state) const {
    std::uint32_t largest = 0;
    auto const see = [&](float x) {
      std::uint32_t const magnitude = float_bits(x) & 0x7FFFFFFFu;
      largest = magnitude > largest ? magnitude : largest;
    };
    KVCRUMB_UNROLL
    for (int n = 0; n < column_tiles; ++n) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i) {
        if constexpr (blob::value::codec::bias != warp::bias_form::none) {
          see(state.bias[n][0][i]);
          see(state.bias[n][1][i]);
        }
        KVCRUMB_UNROLL
        for (int p = 0; p < blob::dim_blocks; ++p)
          see(state.o[n][p][i]);
      }
    }
    return __any_sync(~0u, largest >= 0x7F800000u) != 0;
  }

  KVCRUMB_DEVICE static warp::exact_list exact_list(batch_cache const& c, int kind, int sequence, int head,
                                                    sequence_work const& w) {
    warp::exact_list list{};
    auto const rows = [&](batch_rows<float16> const& keys, batch_rows<float16> const& values) {
      list.keys = keys.row(sequence, head, 0);
      list.values = values.row(sequence, head, 0);
      list.key_stride = keys.stride_token;
      list.value_stride = values.stride_token;
    };
    if (kind == 0) {
      rows(c.sink_keys, c.sink_values);
      list.count = w.tile_first;
    } else if (kind == 3) {
      rows(c.tail_keys, c.tail_values);
      list.first = w.tile_first + w.slots;
      list.count = w.length - list.first;
      list.ring = c.tail_capacity;
    } else {
      batch_isolated const& pool = kind == 1 ? c.pool : c.aux;
      if (pool.capacity > 0) {
        std::int64_t const at = static_cast<std::int64_t>(sequence) * c.kv_heads + head;
        rows(pool.keys, pool.values);
        list.positions = pool.positions + at * pool.capacity;
        list.count = pool.counts[at];
      }
    }
    return list;
  }

  template <int Blocks>
  KVCRUMB_DEVICE void publish(warp::column_state<Blocks, column_tiles> const& state, float unbias) {
    if (lane_ >= 4) return;
    KVCRUMB_UNROLL
    for (int n = 0; n < column_tiles; ++n) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 2; ++i) {
        storage_.max[warp_][8 * n + 2 * lane_ + i] = state.max[n][i];
        storage_.sum[warp_][8 * n + 2 * lane_ + i] = state.sums[n][i] * unbias;
      }
    }
  }

  //! Merges the warps' results; each warp takes every fourth column.
  template <class Arguments>
  KVCRUMB_DEVICE void merge(Arguments const& a, scheme_type const& scheme, result_place const& place) {
    __syncthreads();
    KVCRUMB_KEEP_ROLLED
    for (int column = warp_; column < columns; column += warps) {
      int const row = place.column_block * columns + column;
      if (row >= a.rows()) break;
      column_result<head_dim> r;
      KVCRUMB_UNROLL
      for (int other = 0; other < warps; ++other) {
        float const* o = outputs_ + (other * columns + column) * head_dim;
        r.add(storage_.max[other][column], storage_.sum[other][column], lane_, [&](int i) { return o[i]; });
      }
      if (place.final) {
        finish_column<Config>(a, scheme, place.sequence, place.head, row, r, column_result<head_dim>{},
                              lane_);
      } else {
        store_partial(place.slots, place.slot, columns, column, r, lane_);
      }
    }
    ptx::async_proxy_fence();
    __syncthreads();  // the next copies into the rings, and the next columns, may begin
  }

  shared_storage& storage_;
  float* outputs_;
  int lane_, warp_;
  ring_type ring_;
};

}  // namespace kvcrumb::inline v0::block
