// SPDX-License-Identifier: Apache-2.0
//! @file The streaming rule of outlier-token tracing: the tokens of a group compete with the pool.
#pragma once

#include "kvcrumb/block/encode_arguments.cuh"
#include "kvcrumb/warp/row_scores.cuh"

namespace kvcrumb::inline v0::block {

//! Pools of one layer of one sequence, of the neighbouring kv heads [head, end) that decide together. Called
//! by one whole warp; lane l handles the channels of row_lanes.
template <int HeadDim>
struct pool_editor {
  batch_cache const& cache;
  int sequence, head, end;

  KVCRUMB_DEVICE std::int64_t at(int h) const {
    return static_cast<std::int64_t>(sequence) * cache.kv_heads + h;
  }
  KVCRUMB_DEVICE scored_token token(batch_isolated const& p, int h, int i) const {
    return {p.scores[at(h) * p.capacity + i], p.positions[at(h) * p.capacity + i]};
  }
  KVCRUMB_DEVICE static void copy(batch_rows<float16> const& from, int i, batch_rows<float16> const& to,
                                  int j, int sequence, int h, int lane) {
    float16 const* const source = from.row(sequence, h, i);
    warp::store_row<HeadDim>(to.row(sequence, h, j), warp::load_row<HeadDim>(source, lane), lane);
  }
  //! Copies entry i of a pool over entry j of another, or of the same.
  KVCRUMB_DEVICE void move(batch_isolated const& from, int i, batch_isolated const& to, int j, int h,
                           int lane) const {
    copy(from.keys, i, to.keys, j, sequence, h, lane);
    copy(from.values, i, to.values, j, sequence, h, lane);
    if (lane == 0) {
      to.positions[at(h) * to.capacity + j] = from.positions[at(h) * from.capacity + i];
      to.scores[at(h) * to.capacity + j] = from.scores[at(h) * from.capacity + i];
    }
  }
  //! Moves entry `victim` of the pool behind the auxiliary pool and closes the gap.
  KVCRUMB_DEVICE void evict(int victim, int count, int aux_count, int lane) const {
    KVCRUMB_KEEP_ROLLED
    for (int h = head; h < end; ++h) {
      move(cache.pool, victim, cache.aux, aux_count, h, lane);
      KVCRUMB_KEEP_ROLLED
      for (int i = victim; i + 1 < count; ++i)
        move(cache.pool, i + 1, cache.pool, i, h, lane);
    }
  }
  //! Puts a row behind the entries of the pool.
  template <class Rows>
  KVCRUMB_DEVICE void take_in(scored_token token, Rows const& keys, Rows const& values, int row, int count,
                              int lane) const {
    batch_isolated const& p = cache.pool;
    KVCRUMB_KEEP_ROLLED
    for (int h = head; h < end; ++h) {
      warp::store_row<HeadDim>(p.keys.row(sequence, h, count),
                               warp::load_row<HeadDim>(keys.row(h, row), lane), lane);
      warp::store_row<HeadDim>(p.values.row(sequence, h, count),
                               warp::load_row<HeadDim>(values.row(h, row), lane), lane);
      if (lane == 0) {
        p.positions[at(h) * p.capacity + count] = static_cast<std::int32_t>(token.position);
        p.scores[at(h) * p.capacity + count] = token.score;
      }
    }
  }
  KVCRUMB_DEVICE void set_counts(int count, int aux_count, int lane) const {
    if (lane != 0) return;
    for (int h = head; h < end; ++h) {
      cache.pool.counts[at(h)] = count;
      if (cache.aux.capacity > 0) cache.aux.counts[at(h)] = aux_count;
    }
  }
};

//! The first of the lanes' tokens in the order of `precedes` and its index; index -1: no token. The same in
//! all lanes.
struct indexed_token {
  scored_token token;
  int index;

  KVCRUMB_DEVICE void offer(scored_token other, int i, bool last = false) {
    if (i >= 0 && (index < 0 || (last ? precedes(token, other) : precedes(other, token)))) {
      token = other;
      index = i;
    }
  }
  KVCRUMB_DEVICE void join_lanes(bool last = false) {
    KVCRUMB_UNROLL
    for (int n = 1; n < 32; n *= 2) {
      scored_token const other{__shfl_xor_sync(~0u, token.score, n),
                               __shfl_xor_sync(~0u, static_cast<int>(token.position), n)};
      offer(other, __shfl_xor_sync(~0u, index, n), last);
    }
  }
};

//! Score of one row, summed over the kv heads [head, end) that decide together. Infinity where that is NaN,
//! so that scores have an order: such a token is the last that is chosen.
template <int HeadDim, class Isolation, class Rows>
KVCRUMB_DEVICE float joint_score(Isolation const& isolate, Rows const& keys, int head, int end, int row,
                                 int lane) {
  auto const add = [](float a, float b) { return add_rn(a, b); };
  auto const of = [&](int h) {
    return warp::score_row<HeadDim>(isolate.measure, warp::load_row<HeadDim>(keys.row(h, row), lane), lane);
  };
  warp::tree_accumulator<float, 17> sum;
  float score = end - head == 1 ? of(head) : 0.0f;
  for (int h = head; end - head > 1 && h < end; ++h)
    sum.add(of(h), add);
  if (end - head > 1) score = sum.total(add);
  return is_nan_bits(score) ? float_from_bits(0x7F800000u) : score;
}

//! put(i, joint_score of row i) for rows [begin, end) of kv heads [head, last), by all warps of the block.
template <class Config, class Isolation, class Rows, class Put>
KVCRUMB_DEVICE void joint_scores(Isolation const& isolate, Rows const& keys, int head, int last, int begin,
                                 int end, Put put) {
  constexpr int head_dim = Config::head_dim, at_once = warp::row_scores<head_dim>::rows;
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (last - head == 1) {
    auto const row_at = [&](int i) { return keys.row(head, i); };
    KVCRUMB_KEEP_ROLLED
    for (int i = begin + warp * at_once; i < end; i += Config::warps * at_once) {
      warp::score_rows<head_dim>(isolate.measure, row_at, i, end, lane, [&](int row, float score) {
        put(row, is_nan_bits(score) ? float_from_bits(0x7F800000u) : score);
      });
    }
  } else {
    KVCRUMB_KEEP_ROLLED
    for (int i = begin + warp; i < end; i += Config::warps) {
      float const score = joint_score<head_dim>(isolate, keys, head, last, i, lane);
      if (lane == 0) put(i, score);
    }
  }
}

//! Lets rows [begin, begin + count) compete with the pool of kv heads [head, end): moves those that enter,
//! sets their flags (bit row of word row / 32, per head; the first is that of `head`). `scores`: shared,
//! [count]. All threads of the block; begins and ends with a barrier.
template <class Config, class Rows>
KVCRUMB_DEVICE void compete(typename Config::scheme_type::isolation_type const& isolate,
                            batch_cache const& cache, int sequence, int head, int end, Rows const& keys,
                            Rows const& values, int begin, int count, std::int64_t position, float* scores,
                            std::uint32_t* flags) {
  constexpr int head_dim = Config::head_dim;
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  __syncthreads();
  joint_scores<Config>(isolate, keys, head, end, begin, begin + count,
                       [&](int row, float score) { scores[row - begin] = score; });
  __syncthreads();
  if (warp == 0) {
    pool_editor<head_dim> const pools{cache, sequence, head, end};
    batch_isolated const& pool = cache.pool;
    int held = pool.counts[pools.at(head)];
    int aux_held = cache.aux.capacity > 0 ? cache.aux.counts[pools.at(head)] : 0;
    unsigned gone = 0;  // bit j: candidate lane + 32 j has entered
    for (;;) {
      indexed_token best{{}, -1};
      for (int j = 0; lane + 32 * j < count; ++j) {
        int const i = lane + 32 * j;
        if (((gone >> j) & 1u) == 0) best.offer({scores[i], i}, i);
      }
      best.join_lanes();
      if (best.index < 0) break;
      if (held == pool.capacity) {
        if (aux_held == cache.aux.capacity) break;  // the pool is frozen
        indexed_token worst{{}, -1};
        for (int i = lane; i < held; i += 32)
          worst.offer(pools.token(pool, head, i), i, true);
        worst.join_lanes(true);
        __syncwarp();                                        // all have read before one writes
        if (!(best.token.score < worst.token.score)) break;  // candidates ascend: the rest is refused too
        pools.evict(worst.index, held, aux_held, lane);
        --held;
        ++aux_held;
      }
      pools.take_in({best.token.score, position + best.index}, keys, values, begin + best.index, held, lane);
      ++held;
      if (best.index % 32 == lane) gone |= 1u << (best.index / 32);
      int const row = begin + best.index;
      if (lane == 0) {
        for (int h = head; h < end; ++h)
          flags[(h - head) * row_flags::words + row / 32] |= 1u << (row % 32);
      }
      __syncwarp();
    }
    __syncwarp();
    pools.set_counts(held, aux_held, lane);
  }
  __syncthreads();
}

}  // namespace kvcrumb::inline v0::block
