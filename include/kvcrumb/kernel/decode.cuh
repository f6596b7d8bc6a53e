// SPDX-License-Identifier: Apache-2.0
//! @file The three kernels of decode attention: plan, decode, combine. Thin shells; device/decode.cuh
//! launches them.
#pragma once

#include "kvcrumb/block/decode.cuh"
#include "kvcrumb/block/scan.cuh"

namespace kvcrumb::inline v0::kernel {

//! a / b for a >= 0 and b > 0; a device divides 64 bits in a hundred instructions, 32 bits in twenty.
KVCRUMB_API constexpr std::int64_t quotient_of(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) != 0) return a / b;
  return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
}

//! How the units of all segments are dealt to `blocks` blocks: block i has units [i total / blocks, (i + 1)
//! total / blocks).
KVCRUMB_API constexpr std::int64_t first_unit(std::int64_t block, std::int64_t total, std::int64_t blocks) {
  return quotient_of(block * total, blocks);
}
//! The block that has a unit.
KVCRUMB_API constexpr std::int64_t block_of(std::int64_t unit, std::int64_t total, std::int64_t blocks) {
  return quotient_of((unit + 1) * blocks - 1, total);
}
//! Blocks for `total` units of so many segments, at most `most`: so few that the average one has a unit for
//! each warp; and as many for one segment as for another, if that is nearly the same number. Then no block
//! has the end of one segment and the beginning of the next if all are equally long, for each of which it
//! would need a query, a pipeline that fills and a merge.
KVCRUMB_API constexpr std::int64_t blocks_for(std::int64_t total, std::int64_t segments, int warps,
                                              std::int64_t most) {
  std::int64_t const enough = (total + warps - 1) / warps, limit = enough < most ? enough : most;
  std::int64_t const even = segments > 0 ? limit / segments * segments : 0;
  return even >= limit - limit / 8 ? even : limit;
}

namespace detail {

//! The last sequence whose prefix is not above x.
KVCRUMB_DEVICE int sequence_of(std::int64_t const* prefix, int sequences, std::int64_t x) {
  int low = 0, high = sequences;
  while (high - low > 1) {
    int const middle = (low + high) / 2;
    (prefix[middle] <= x ? low : high) = middle;
  }
  return low;
}

}  // namespace detail

inline constexpr int plan_threads = 256;

//! Counts the work of every sequence and finds where each block begins. One block of plan_threads threads.
//! Reads lengths, `encoded` and page lists only, so one plan serves all layers of a step.
template <class Config, class Arguments>
__global__ void __launch_bounds__(plan_threads) plan_kernel(__grid_constant__ Arguments const a) {
  KVCRUMB_SHARED(block::scan_storage, storage);
  ptx::wait_for_dependencies();
  int const sequences = a.cache.sequences, segments = a.segments(Config::columns);
  int const thread = static_cast<int>(threadIdx.x);
  std::int64_t total = 0;
  for (int first = 0; first < sequences; first += plan_threads) {
    int const sequence = first + thread;
    std::int64_t count = 0;
    if (sequence < sequences) {
      block::sequence_work const w = block::work_of<Config>(a, sequence);
      int const parts = a.chunk_tiles == 0
                            ? w.units
                            : (w.tiles() + a.chunk_tiles - 1) / a.chunk_tiles + (w.exact_rows > 0 ? 1 : 0);
      count = static_cast<std::int64_t>(parts) * segments;
    }
    std::int64_t sum = 0;
    std::int64_t const before = block::exclusive_scan<plan_threads>(storage, count, sum);
    if (sequence < sequences) a.plan.prefix[sequence] = total + before;
    total += sum;
  }
  if (thread == 0) a.plan.prefix[sequences] = total;
  __threadfence_block();
  __syncthreads();
  std::int64_t const blocks =
      a.chunk_tiles != 0
          ? 0
          : blocks_for(total, static_cast<std::int64_t>(sequences) * segments, Config::warps, a.grid_blocks);
  if (thread == 0) *a.plan.blocks = static_cast<std::int32_t>(blocks);
  if (a.chunk_tiles != 0) return;
  for (std::int64_t i = thread; i < a.grid_blocks; i += plan_threads) {
    block::work_start start{};
    if (i < blocks) {
      std::int64_t const unit = first_unit(i, total, blocks);
      int const low = detail::sequence_of(a.plan.prefix, sequences, unit);
      std::int64_t const local = unit - a.plan.prefix[low];
      start.work = block::work_of<Config>(a, low);
      start.sequence = low;
      start.segment = static_cast<std::int32_t>(quotient_of(local, start.work.units));
      start.unit =
          static_cast<std::int32_t>(local - static_cast<std::int64_t>(start.segment) * start.work.units);
      start.count = static_cast<std::int32_t>(first_unit(i + 1, total, blocks) - unit);
    }
    a.plan.starts[i] = start;
  }
}

namespace detail {

//! One item of a block's work: tiles [first, end) of a segment, then its exact rows if `exact`.
struct work_item {
  int sequence, segment;
  block::sequence_work work;
  int first, end;
  bool exact;
  std::int64_t slot;  //!< the item's own slot, for a part of a segment
};

//! The items of this block, one after the other, in shared memory: one thread calls begin() and next(). A
//! stream is one contiguous run of units, which may end in the middle of a segment and span several; the
//! fixed split deals parts of chunk_tiles tiles round robin, whatever the rest of the batch is.
template <class Config, class Arguments>
struct work_queue {
  work_item item;
  bool more;  //!< `item` is valid

  KVCRUMB_DEVICE void begin(Arguments const& a) {
    std::int64_t const block = blockIdx.x;
    part_ = block;
    if (a.chunk_tiles != 0) {
      total_ = a.plan.prefix[a.cache.sequences];
    } else {
      at_ = a.plan.starts[block];
      part_ = 2 * block;  // two slots: the first and the last segment of the run
    }
  }
  KVCRUMB_DEVICE void next(Arguments const& a) { more = a.chunk_tiles != 0 ? next_chunk(a) : next_run(a); }

 private:
  KVCRUMB_DEVICE bool next_run(Arguments const& a) {
    int const segments = a.segments(Config::columns);
    while (at_.count > 0) {
      block::sequence_work const w = at_.work;
      int const unit = at_.unit, rest = w.units - unit, take = at_.count < rest ? at_.count : rest;
      item = {at_.sequence, at_.segment, w, w.first + unit, w.first + unit + take, false, part_};
      item.exact = unit <= w.tiles() && w.tiles() < unit + take;  // the first unit of exact rows is here
      if (item.end > w.end) item.end = w.end;
      at_.count -= take;
      at_.unit = 0;
      if (++at_.segment == segments) {
        at_.segment = 0;
        if (++at_.sequence == a.cache.sequences) at_.count = 0;  // it is, unless lengths have changed since
        if (at_.count > 0) at_.work = block::work_of<Config>(a, at_.sequence);
      }
      if (take == 0) continue;  // a sequence without work
      part_ |= 1;
      return true;
    }
    return false;
  }
  KVCRUMB_DEVICE bool next_chunk(Arguments const& a) {
    if (part_ >= total_) return false;
    int const segments = a.segments(Config::columns);
    int const sequence = sequence_of(a.plan.prefix, a.cache.sequences, part_);
    std::int64_t const local = part_ - a.plan.prefix[sequence];
    std::int64_t const per_segment = (a.plan.prefix[sequence + 1] - a.plan.prefix[sequence]) / segments;
    block::sequence_work const w = block::work_of<Config>(a, sequence);
    int const first = w.first + static_cast<int>(local % per_segment) * a.chunk_tiles;
    item = {sequence, static_cast<int>(local / per_segment), w, first, first + a.chunk_tiles, first >= w.end,
            part_};
    if (item.end > w.end) item.end = w.end;
    part_ += gridDim.x;
    return true;
  }

  std::int64_t total_, part_;
  block::work_start at_;
};

}  // namespace detail

//! Attention of all segments: final results where one block has a whole segment, partial ones elsewhere.
template <class Config, class Arguments>
__global__ void __launch_bounds__(Config::threads, Config::resident_blocks)
    decode_kernel(__grid_constant__ Arguments const a,
                  __grid_constant__ typename Config::scheme_type const scheme) {
  using queue_type = detail::work_queue<Config, Arguments>;
  KVCRUMB_SHARED(queue_type, queue);
  KVCRUMB_SHARED(typename block::decode<Config>::shared_storage, storage);
  KVCRUMB_SHARED_DYNAMIC(dynamic);
  block::decode<Config> worker{storage, dynamic, a.cache};
  worker.init();
  ptx::wait_for_dependencies();
  ptx::release_dependents();
  bool const leads = threadIdx.x == 0;
  if (leads) queue.begin(a);
  for (;;) {
    if (leads) queue.next(a);
    __syncthreads();
    if (!queue.more) return;
    detail::work_item const& item = queue.item;
    block::sequence_work const& w = item.work;
    int const column_blocks = a.column_blocks(Config::columns);
    int const head = item.segment / column_blocks, column_block = item.segment % column_blocks;
    auto const place_of = [&](bool final, float* slots, std::int64_t slot) {
      return block::result_place{
          item.sequence, item.segment / column_blocks, item.segment % column_blocks, final, slots, slot};
    };
    auto const exact_slot = [&] {
      return 2 * (static_cast<std::int64_t>(item.sequence) * a.segments(Config::columns) + item.segment);
    };
    if (item.first < item.end) {
      worker.tiles(a, scheme, item.sequence, head, column_block, w, item.first, item.end, [&] {
        bool const whole = item.first == w.first && item.end == w.end;
        if (whole && w.exact_rows > 0) return place_of(false, a.exact_partials, exact_slot() + 1);
        return place_of(whole, a.partials, item.slot);
      });
    }
    if (item.exact) {
      worker.exact_rows(a, scheme, item.sequence, head, column_block, w,
                        place_of(false, a.exact_partials, exact_slot()));
    }
    __syncthreads();  // all have read the item
  }
}

//! Joins the partial results of the query rows; grid (segments of all sequences, at most columns). Also
//! writes the rows of sequences that have no tokens.
template <class Config, class Arguments>
__global__ void __launch_bounds__(Config::threads)
    combine_kernel(__grid_constant__ Arguments const a,
                   __grid_constant__ typename Config::scheme_type const scheme) {
  constexpr int head_dim = Config::head_dim, columns = Config::columns, warps = Config::warps;
  using result = block::column_result<head_dim>;
  struct shared {
    float o[warps][head_dim];
    float max[warps], sum[warps];
  };
  KVCRUMB_SHARED(shared, storage);
  int const segments = a.segments(columns), column_blocks = a.column_blocks(columns);
  int const sequence = static_cast<int>(blockIdx.x) / segments,
            segment = static_cast<int>(blockIdx.x) % segments;
  int const lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  ptx::wait_for_dependencies();

  // Loads that do not wait for each other.
  std::int64_t const total = a.plan.prefix[a.cache.sequences], blocks = *a.plan.blocks;
  std::int64_t const before = a.plan.prefix[sequence], until = a.plan.prefix[sequence + 1];
  block::sequence_work const w = block::work_of<Config>(a, sequence);
  int const tiles = w.tiles();
  std::int64_t const exact_slot = 2 * (static_cast<std::int64_t>(sequence) * segments + segment);
  std::int64_t first = 0, parts = 0;  // blocks or parts that have tiles of the segment
  std::int64_t begin = 0;
  if (tiles > 0 && a.chunk_tiles == 0) {
    begin = before + static_cast<std::int64_t>(segment) * w.units;
    first = block_of(begin, total, blocks);
    parts = block_of(begin + tiles - 1, total, blocks) - first + 1;
    if (parts > blocks - first) parts = blocks - first;  // likewise
  } else if (tiles > 0) {
    first = before + segment * ((until - before) / segments);
    parts = (tiles + a.chunk_tiles - 1) / a.chunk_tiles;
  }
  if (parts == 1 && w.exact_rows == 0) return;  // stored by the decode kernel

  KVCRUMB_KEEP_ROLLED
  for (int column = static_cast<int>(blockIdx.y); column < columns; column += static_cast<int>(gridDim.y)) {
    int const row = segment % column_blocks * columns + column;
    if (row >= a.rows()) return;
    result r;
    if (parts == 1) {
      if (warp == 0) block::add_partial(r, a.exact_partials, exact_slot + 1, columns, column, lane);
    } else {
      int const mine = static_cast<int>(parts - warp + warps - 1) / warps;
      block::add_partials(r, a.partials, mine, columns, column, lane, [&](int i) {
        std::int64_t const slot = first + warp + static_cast<std::int64_t>(i) * warps;
        // A block's first segment is in its even slot; it is this one if the block begins inside it.
        return a.chunk_tiles != 0 ? slot : 2 * slot + (first_unit(slot, total, blocks) >= begin ? 0 : 1);
      });
    }
    KVCRUMB_UNROLL
    for (int e = 0; e < head_dim / 32; ++e)
      storage.o[warp][32 * e + lane] = r.o[e];
    if (lane == 0) {
      storage.max[warp] = r.max;
      storage.sum[warp] = r.sum;
    }
    __syncthreads();
    if (warp == 0) {
      result joined, exact;
      KVCRUMB_UNROLL
      for (int other = 0; other < warps; ++other)
        joined.add(storage.max[other], storage.sum[other], lane, [&](int i) { return storage.o[other][i]; });
      if (w.exact_rows > 0) block::add_partial(exact, a.exact_partials, exact_slot, columns, column, lane);
      block::finish_column<Config>(a, scheme, sequence, segment / column_blocks, row, joined, exact, lane);
    }
    __syncthreads();  // the next row may use the shared memory
  }
}

}  // namespace kvcrumb::inline v0::kernel
