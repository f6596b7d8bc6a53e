// SPDX-License-Identifier: Apache-2.0
//! @file The kernels that encode whole sequences: scores, selection, exact rows, tiles. device/encode.cuh
//! launches them.
#pragma once

#include "kvcrumb/block/isolate.cuh"
#include "kvcrumb/block/scan.cuh"

namespace kvcrumb::inline v0::kernel {

//! Rows of one kv head that a block of the score and exact-row kernels handles.
inline constexpr int rows_per_block = 64;

namespace detail {

//! index = outer * parts + inner, by one division without signs: every thread of a short kernel does it.
struct place {
  int outer, inner;
  KVCRUMB_DEVICE static place of(unsigned index, int parts) {
    unsigned const outer = index / static_cast<unsigned>(parts);
    return {static_cast<int>(outer), static_cast<int>(index - outer * static_cast<unsigned>(parts))};
  }
};

//! Length of a sequence, within the bounds of the launch.
template <class Arguments>
KVCRUMB_DEVICE batch_cache::parts encode_parts(Arguments const& a, int sequence) {
  int length = a.cache.tokens[sequence];
  if (length < 0) length = 0;
  if (length > a.max_tokens) length = a.max_tokens;
  return block::parts_of(a.cache, a.flush, length);
}

}  // namespace detail

//! Scores of all tokens that will be encoded. Grid: sequences x deciding heads x rows_per_block tokens.
template <class Config>
__global__ void __launch_bounds__(Config::threads)
    score_kernel(__grid_constant__ block::encode_arguments<typename Config::input_type> const a,
                 __grid_constant__ typename Config::scheme_type const scheme) {
  int const blocks = (a.max_slots + rows_per_block - 1) / rows_per_block;
  bool const joint = scheme.isolate.across == pool_scope::per_layer;
  int const deciding = joint ? 1 : a.cache.kv_heads;
  auto const [segment, part] = detail::place::of(blockIdx.x, blocks);
  auto const [sequence, head] = detail::place::of(static_cast<unsigned>(segment), deciding);
  int const end = joint ? a.cache.kv_heads : head + 1;
  batch_cache::parts const parts = detail::encode_parts(a, sequence);
  auto const keys = a.input(a.keys, sequence, parts.sinks);
  int const last = (part + 1) * rows_per_block < parts.slots ? (part + 1) * rows_per_block : parts.slots;
  float* const scores = a.scores + static_cast<std::int64_t>(segment) * a.max_slots;
  block::joint_scores<Config>(scheme.isolate, keys, head, end, part * rows_per_block, last,
                              [&](int i, float score) { scores[i] = score; });
}

inline constexpr int select_threads = 512;

namespace detail {

//! Order of `precedes` as a number; scores are no NaN.
KVCRUMB_DEVICE std::uint64_t order_of(float score, int i) {
  auto const key =
      static_cast<std::uint32_t>(kvcrumb::detail::ordered_key(add_rn(score, 0.0f))) ^ 0x80000000u;
  return static_cast<std::uint64_t>(key) << 32 | static_cast<std::uint32_t>(i);
}
KVCRUMB_DEVICE std::uint64_t least_of_lanes(std::uint64_t x) {
  KVCRUMB_UNROLL
  for (int n = 1; n < 32; n *= 2) {
    std::uint64_t const other = __shfl_xor_sync(~0u, x, n);
    if (other < x) x = other;
  }
  return x;
}

}  // namespace detail

//! One-shot selection: the `capacity` first tokens in the order of `precedes`. Positions and scores go to the
//! pools in ascending positions; also sets the counts of both pools. One block per sequence and deciding
//! head. Cost: capacity passes over the scores, of which each thread keeps the first 16 in registers.
template <class Input>
__global__ void __launch_bounds__(select_threads)
    select_kernel(__grid_constant__ block::encode_arguments<Input> const a, bool joint) {
  constexpr int warps = select_threads / 32, kept = 16, listed = 64;
  constexpr std::uint64_t none = ~std::uint64_t{0};
  struct shared {
    std::uint64_t least[warps];
    std::int32_t list[listed];
    block::scan_storage scan;
  };
  KVCRUMB_SHARED(shared, storage);
  int const deciding = joint ? 1 : a.cache.kv_heads;
  int const sequence = static_cast<int>(blockIdx.x) / deciding,
            head = static_cast<int>(blockIdx.x) % deciding;
  int const end = joint ? a.cache.kv_heads : head + 1;
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  batch_cache::parts const parts = detail::encode_parts(a, sequence);
  float const* const scores = a.scores + static_cast<std::int64_t>(blockIdx.x) * a.max_slots;
  batch_isolated const& pool = a.cache.pool;
  int const count = pool.capacity < parts.slots ? pool.capacity : parts.slots;

  std::uint64_t mine[kept];
  KVCRUMB_UNROLL
  for (int j = 0; j < kept; ++j) {
    int const i = thread + j * select_threads;
    mine[j] = i < parts.slots ? detail::order_of(scores[i], i) : none;
  }
  std::uint64_t next = 0;  // behind the last token that was chosen
  for (int n = 0; n < count; ++n) {
    std::uint64_t best = none;
    KVCRUMB_UNROLL
    for (int j = 0; j < kept; ++j) {
      if (mine[j] >= next && mine[j] < best) best = mine[j];
    }
    for (int i = thread + kept * select_threads; i < parts.slots; i += select_threads) {
      std::uint64_t const t = detail::order_of(scores[i], i);
      if (t >= next && t < best) best = t;
    }
    best = detail::least_of_lanes(best);
    if (lane == 0) storage.least[warp] = best;
    __syncthreads();
    best = detail::least_of_lanes(lane < warps ? storage.least[lane] : none);
    next = best + 1;
    if (thread == 0 && n < listed) storage.list[n] = static_cast<std::int32_t>(best & 0x7FFFFFFFu);
    __syncthreads();
  }
  auto const store = [&](std::int64_t at, int i) {
    for (int h = head; h < end; ++h) {
      std::int64_t const entry =
          (static_cast<std::int64_t>(sequence) * a.cache.kv_heads + h) * pool.capacity + at;
      pool.positions[entry] = parts.sinks + i;
      pool.scores[entry] = scores[i];
    }
  };
  if (count <= listed) {
    if (thread < count) {
      int const i = storage.list[thread];
      int at = 0;
      for (int n = 0; n < count; ++n)
        at += storage.list[n] < i ? 1 : 0;
      store(at, i);
    }
  } else {
    std::int64_t before = 0;
    for (int first = 0; first < parts.slots; first += select_threads) {
      int const i = first + thread;
      bool const chosen = i < parts.slots && detail::order_of(scores[i], i) < next;
      std::int64_t sum = 0;
      std::int64_t const at =
          before + block::exclusive_scan<select_threads>(storage.scan, std::int64_t{chosen ? 1 : 0}, sum);
      if (chosen) store(at, i);
      before += sum;
    }
  }
  for (int h = head + thread; h < end; h += select_threads) {
    std::int64_t const at = static_cast<std::int64_t>(sequence) * a.cache.kv_heads + h;
    pool.counts[at] = count;
    if (a.cache.aux.capacity > 0) a.cache.aux.counts[at] = 0;
  }
}

//! Sinks and tail of every sequence, and its number of slots. Grid: sequences x kv heads x rows_per_block
//! rows.
template <class Config>
__global__ void __launch_bounds__(Config::threads)
    exact_kernel(__grid_constant__ block::encode_arguments<typename Config::input_type> const a, int blocks) {
  constexpr int head_dim = Config::head_dim;
  auto const [segment, part] = detail::place::of(blockIdx.x, blocks);
  auto const [sequence, head] = detail::place::of(static_cast<unsigned>(segment), a.cache.kv_heads);
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  batch_cache::parts const parts = detail::encode_parts(a, sequence);
  if (part == 0 && head == 0 && threadIdx.x == 0 && a.cache.encoded != nullptr)
    a.cache.encoded[sequence] = parts.slots;
  auto const keys = a.input(a.keys, sequence, 0), values = a.input(a.values, sequence, 0);
  int const rows = parts.sinks + parts.tail;
  int const last = (part + 1) * rows_per_block < rows ? (part + 1) * rows_per_block : rows;
  for (int i = part * rows_per_block + warp; i < last; i += Config::warps) {
    bool const sink = i < parts.sinks;
    int const position = sink ? i : i + parts.slots, at = sink ? i : position % a.cache.tail_capacity;
    auto const& to_keys = sink ? a.cache.sink_keys : a.cache.tail_keys;
    auto const& to_values = sink ? a.cache.sink_values : a.cache.tail_values;
    warp::store_row<head_dim>(to_keys.row(sequence, head, at),
                              warp::load_row<head_dim>(keys.row(head, position), lane), lane);
    warp::store_row<head_dim>(to_values.row(sequence, head, at),
                              warp::load_row<head_dim>(values.row(head, position), lane), lane);
  }
}

//! One side of one tile of one kv head per block, with its part of the pool's rows. Grid: sequences x kv
//! heads x tiles x 2.
template <class Config>
__global__ void __launch_bounds__(Config::threads)
    encode_kernel(__grid_constant__ block::encode_arguments<typename Config::input_type> const a,
                  __grid_constant__ typename Config::scheme_type const scheme) {
  constexpr int head_dim = Config::head_dim, tile_tokens = Config::tile_tokens, span = Config::head_span;
  KVCRUMB_SHARED_DYNAMIC(dynamic);
  using flag_array = std::uint32_t[span * block::row_flags::words];
  KVCRUMB_SHARED(flag_array, flags);
  int const tiles = (a.max_slots + tile_tokens - 1) / tile_tokens, heads = a.cache.kv_heads;
  bool const values = blockIdx.x % 2 != 0;
  auto const [segment, tile] = detail::place::of(blockIdx.x / 2, tiles);
  auto const [sequence, head] = detail::place::of(static_cast<unsigned>(segment), heads);
  batch_cache::parts const parts = detail::encode_parts(a, sequence);
  int const begin = tile * tile_tokens;
  if (begin >= parts.slots) return;
  block::slot_range const slots{0, parts.slots - begin < tile_tokens ? parts.slots - begin : tile_tokens,
                                true};
  int const first_position = parts.sinks + begin;
  auto const& rows = values ? a.values : a.keys;
  auto const source = a.input(rows, sequence, first_position);

  block::row_flags isolated{};
  if constexpr (Config::isolating) {
    batch_isolated const& pool = a.cache.pool;
    if (pool.capacity > 0) {
      int const first_head = head - head % span;
      int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
      for (int i = static_cast<int>(threadIdx.x); i < span * block::row_flags::words; i += Config::threads)
        flags[i] = 0u;
      __syncthreads();
      for (int h = first_head; h < first_head + span && h < heads; ++h) {
        std::int64_t const at = static_cast<std::int64_t>(sequence) * heads + h;
        for (int i = warp; i < pool.counts[at]; i += Config::warps) {
          int const row = pool.positions[at * pool.capacity + i] - first_position;
          if (row < 0 || row >= tile_tokens) continue;
          if (lane == 0)
            atomicOr(&flags[(h - first_head) * block::row_flags::words + row / 32], 1u << (row % 32));
          if (h != head) continue;
          warp::store_row<head_dim>((values ? pool.values : pool.keys).row(sequence, head, i),
                                    warp::load_row<head_dim>(source.row(head, row), lane), lane);
        }
      }
      __syncthreads();
      isolated = {flags, first_head};
    }
  }
  std::int64_t const page = a.cache.pages.page(sequence, tile);
  block::section_job<block::plain_rows<typename Config::input_type>> job{source, head,    heads,
                                                                         slots,  nullptr, isolated};
  if (values) {
    job.section = a.cache.values.section(page, head);
    Config::value::run(scheme.value, job, dynamic);
  } else {
    block::store_mask<tile_tokens>(a.cache.masks.section(page, head), slots, isolated, head);
    job.section = a.cache.keys.section(page, head);
    Config::key::run(scheme.key, job, dynamic);
  }
}

}  // namespace kvcrumb::inline v0::kernel
