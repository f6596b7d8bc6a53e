// SPDX-License-Identifier: Apache-2.0
//! @file The kernels of decode steps: appending new tokens, which may flush the oldest of the tail, and
//! dropping tokens. device/append.cuh launches them.
#pragma once

#include "kvcrumb/block/isolate.cuh"

namespace kvcrumb::inline v0::kernel {

namespace detail {

//! What happens to one sequence: new rows at positions [first, length), then slots [slot, slot + flush) are
//! encoded.
struct append_step {
  int first, length, slot, flush;
};
template <class Arguments>
KVCRUMB_DEVICE append_step step_of(Arguments const& a, int sequence) {
  batch_cache const& c = a.cache;
  int count = a.counts != nullptr ? a.counts[sequence] : a.count;
  if (count > a.count) count = a.count;
  int const length = c.tokens[sequence], first = length - count;
  if (count <= 0 || first < 0) return {0, 0, 0, 0};
  int const behind_sinks = length > c.sink_capacity ? length - c.sink_capacity : 0;
  if (c.encoded == nullptr) {
    int const slot = first > c.sink_capacity ? first - c.sink_capacity : 0;
    return {first, length, slot, behind_sinks - slot};
  }
  int const slot = c.encoded[sequence];
  KVCRUMB_ASSERT(behind_sinks - slot <= c.tail_capacity);
  return {first, length, slot, a.flush.to_encode(behind_sinks - slot)};
}

//! Encodes one side of slots [at, at + count) of a tile for one kv head.
template <class Encoder, class Rows, class Scheme>
KVCRUMB_DEVICE void encode_side(Scheme const& scheme, Rows const& rows, int head, int heads,
                                block::slot_range slots, std::byte* section, block::row_flags isolated,
                                std::byte* shared) {
  __syncthreads();  // the shared memory is free
  Encoder::run(scheme, block::section_job<Rows>{rows, head, heads, slots, section, isolated}, shared);
}

//! Encodes the slots of a step for kv heads [head, end), in chunks that end with their tile. `keys_of(slot)`
//! gives the rows from a slot on.
template <class Config, class KeysOf, class ValuesOf>
KVCRUMB_DEVICE void flush(block::encode_arguments<typename Config::input_type> const& a,
                          typename Config::scheme_type const& scheme, int sequence, int head, int end,
                          append_step const& step, KeysOf keys_of, ValuesOf values_of, std::byte* shared) {
  constexpr int tile_tokens = Config::tile_tokens, group = Config::scheme_type::append_tokens;
  batch_cache const& c = a.cache;
  auto* const flags = reinterpret_cast<std::uint32_t*>(shared);
  int const flag_words = Config::isolating ? (end - head) * block::row_flags::words : 0;
  auto* const scores = reinterpret_cast<float*>(flags + flag_words);
  std::byte* const work = shared + 4 * flag_words + (Config::isolating ? 4 * max_tile_tokens : 0);
  for (int done = 0; done < step.flush;) {
    int const slot = step.slot + done, tile = slot / tile_tokens, at = slot % tile_tokens;
    int count = step.flush - done < a.chunk_tokens ? step.flush - done : a.chunk_tokens;
    if (count > tile_tokens - at) count = tile_tokens - at;
    auto const keys = keys_of(slot);
    auto const values = values_of(slot);
    block::row_flags isolated{};
    if constexpr (Config::isolating) {
      if (c.pool.capacity > 0) {
        __syncthreads();
        for (int i = static_cast<int>(threadIdx.x); i < flag_words; i += Config::threads)
          flags[i] = 0u;
        bool const joint = scheme.isolate.across == pool_scope::per_layer;
        for (int begin = 0; begin < count; begin += group) {
          for (int h = head; h < end; h = joint ? end : h + 1) {
            block::compete<Config>(scheme.isolate, c, sequence, h, joint ? end : h + 1, keys, values, begin,
                                   group, c.sink_capacity + slot + begin, scores,
                                   flags + (h - head) * block::row_flags::words);
          }
        }
        isolated = {flags, head};
      }
    }
    block::slot_range const slots{at, at + count, at == 0};
    std::int64_t const page = c.pages.page(sequence, tile);
    for (int h = head; h < end; ++h) {
      block::store_mask<tile_tokens>(c.masks.section(page, h), slots, isolated, h);
      encode_side<typename Config::key>(scheme.key, keys, h, c.kv_heads, slots, c.keys.section(page, h),
                                        isolated, work);
      encode_side<typename Config::value>(scheme.value, values, h, c.kv_heads, slots,
                                          c.values.section(page, h), isolated, work);
    }
    done += count;
  }
}

}  // namespace detail

//! Appends the new rows of `heads_per_block` kv heads of a sequence and encodes what leaves the tail. Grid:
//! sequences x units. The last block of a sequence moves `encoded` on, when all of them have read it.
template <class Config>
__global__ void __launch_bounds__(Config::threads, 2)
    append_kernel(__grid_constant__ block::encode_arguments<typename Config::input_type> const a,
                  __grid_constant__ typename Config::scheme_type const scheme) {
  constexpr int head_dim = Config::head_dim;
  KVCRUMB_SHARED_DYNAMIC(dynamic);
  batch_cache const& c = a.cache;
  int const units = a.units(), sequence = static_cast<int>(blockIdx.x) / units;
  int const head = static_cast<int>(blockIdx.x) % units * a.heads_per_block;
  int const end = head + a.heads_per_block < c.kv_heads ? head + a.heads_per_block : c.kv_heads;
  int const lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  detail::append_step const step = detail::step_of(a, sequence);
  int const count = step.length - step.first;
  auto const keys = a.input(a.keys, sequence, -step.first), values = a.input(a.values, sequence, -step.first);
  for (int i = warp; i < 2 * count * (end - head); i += Config::warps) {
    bool const value = i % 2 != 0;
    int const position = step.first + i / 2 % count, h = head + i / 2 / count;
    bool const sink = position < c.sink_capacity;
    if (!sink && c.encoded == nullptr) continue;
    auto const& to = sink ? (value ? c.sink_values : c.sink_keys) : (value ? c.tail_values : c.tail_keys);
    warp::store_row<head_dim>(to.row(sequence, h, sink ? position : position % c.tail_capacity),
                              warp::load_row<head_dim>((value ? values : keys).row(h, position), lane), lane);
  }
  if (step.flush <= 0) return;
  __syncthreads();
  if constexpr (Config::scheme_type::row_independent) {
    if (c.encoded == nullptr) {
      auto const rows_from = [&](auto rows) {
        return [=, &c](int slot) {
          auto from = rows;
          from.first += c.sink_capacity + slot;
          return from;
        };
      };
      detail::flush<Config>(a, scheme, sequence, head, end, step, rows_from(keys), rows_from(values),
                            dynamic);
      return;
    }
  }
  auto const ring_from = [&](batch_rows<float16> const& rows) {
    return [&](int slot) {
      return block::ring_rows{rows, sequence, (c.sink_capacity + slot) % c.tail_capacity, c.tail_capacity};
    };
  };
  detail::flush<Config>(a, scheme, sequence, head, end, step, ring_from(c.tail_keys),
                        ring_from(c.tail_values), dynamic);
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(&a.tickets[sequence], 1u) + 1u < static_cast<unsigned>(units)) return;
  __threadfence();
  atomicExch(&a.tickets[sequence], 0u);
  c.encoded[sequence] = step.slot + step.flush;
}

//! Clears what tokens beyond the lengths have left in the tile in which a sequence now ends, and in its
//! pools. Grid: sequences x kv heads.
template <class Config>
__global__ void __launch_bounds__(Config::threads)
    truncate_kernel(__grid_constant__ block::encode_arguments<typename Config::input_type> const a) {
  constexpr int head_dim = Config::head_dim, tile_tokens = Config::tile_tokens;
  batch_cache const& c = a.cache;
  int const sequence = static_cast<int>(blockIdx.x) / c.kv_heads,
            head = static_cast<int>(blockIdx.x) % c.kv_heads;
  int const length = c.tokens[sequence], slots = length > c.sink_capacity ? length - c.sink_capacity : 0;
  if (c.encoded != nullptr && c.encoded[sequence] <= slots) return;
  if (slots % tile_tokens != 0) {
    std::int64_t const page = c.pages.page(sequence, slots / tile_tokens);
    block::slot_range const range{slots % tile_tokens, tile_tokens, false};
    Config::key::clear(c.keys.section(page, head), range);
    Config::value::clear(c.values.section(page, head), range);
    int const word = static_cast<int>(threadIdx.x), rest = range.begin - 32 * word;
    if (word < tile_tokens / 32 && rest < 32) {
      auto* const mask = reinterpret_cast<std::uint32_t*>(c.masks.section(page, head)) + word;
      *mask = rest <= 0 ? 0u : *mask & ((1u << rest) - 1u);
    }
  }
  if (threadIdx.x >= 32) return;
  int const lane = static_cast<int>(threadIdx.x);
  block::pool_editor<head_dim> const pools{c, sequence, head, head + 1};
  for (batch_isolated const* p : {&c.pool, &c.aux}) {
    if (p->capacity == 0) continue;
    int const held = p->counts[pools.at(head)];
    int kept = 0;
    for (int i = 0; i < held; ++i) {
      if (p->positions[pools.at(head) * p->capacity + i] >= c.sink_capacity + slots) continue;
      __syncwarp();  // all have read before one writes
      if (kept != i) pools.move(*p, i, *p, kept, head, lane);
      ++kept;
      __syncwarp();
    }
    __syncwarp();
    if (lane == 0) p->counts[pools.at(head)] = kept;
  }
}

//! Slots in use after truncate_kernel. Grid: one thread per sequence.
template <class Arguments>
__global__ void __launch_bounds__(256) shorten_kernel(__grid_constant__ Arguments const a) {
  int const sequence = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (sequence >= a.cache.sequences) return;
  int const length = a.cache.tokens[sequence];
  int const slots = length > a.cache.sink_capacity ? length - a.cache.sink_capacity : 0;
  if (a.cache.encoded[sequence] > slots) a.cache.encoded[sequence] = slots;
}

}  // namespace kvcrumb::inline v0::kernel
