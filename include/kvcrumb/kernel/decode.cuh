// SPDX-License-Identifier: Apache-2.0
//! @file The three kernels of decode attention: plan, decode, combine. Thin shells; device/decode.cuh
//! launches them.
#pragma once

#include "kvcrumb/block/decode.cuh"
#include "kvcrumb/block/scan.cuh"

namespace kvcrumb::inline v0::kernel {

//! How the units of all segments are dealt to `blocks` blocks: block i has units [i total / blocks, (i + 1)
//! total / blocks). There are so few blocks that the average one has four units, one for every warp.
KVCRUMB_API constexpr std::int64_t first_unit(std::int64_t block, std::int64_t total, std::int64_t blocks) {
  return block * total / blocks;
}
//! The block that has a unit.
KVCRUMB_API constexpr std::int64_t block_of(std::int64_t unit, std::int64_t total, std::int64_t blocks) {
  return ((unit + 1) * blocks - 1) / total;
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
  if (a.chunk_tiles != 0) return;

  std::int64_t const enough = (total + Config::warps - 1) / Config::warps;
  std::int64_t const blocks = enough < a.grid_blocks ? enough : a.grid_blocks;
  if (thread == 0) *a.plan.blocks = static_cast<std::int32_t>(blocks);
  for (std::int64_t i = thread; i < blocks; i += plan_threads) {
    std::int64_t const unit = first_unit(i, total, blocks);
    int const low = detail::sequence_of(a.plan.prefix, sequences, unit);
    std::int64_t const local = unit - a.plan.prefix[low];
    std::int64_t const per_segment = (a.plan.prefix[low + 1] - a.plan.prefix[low]) / segments;
    a.plan.starts[i] = {low, static_cast<std::int32_t>(local / per_segment),
                        static_cast<std::int32_t>(local % per_segment)};
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
    total_ = a.plan.prefix[a.cache.sequences];
    left_ = 0;
    part_ = block;
    if (a.chunk_tiles != 0 || block >= *a.plan.blocks) return;
    std::int64_t const blocks = *a.plan.blocks;
    left_ = first_unit(block + 1, total_, blocks) - first_unit(block, total_, blocks);
    at_ = a.plan.starts[block];
    part_ = 2 * block;  // two slots: the first and the last segment of the run
  }
  KVCRUMB_DEVICE void next(Arguments const& a) { more = a.chunk_tiles != 0 ? next_chunk(a) : next_run(a); }

 private:
  KVCRUMB_DEVICE bool next_run(Arguments const& a) {
    int const segments = a.segments(Config::columns);
    while (left_ > 0 &&
           at_.sequence < a.cache.sequences) {  // always, unless lengths have changed since the plan
      block::sequence_work const w = block::work_of<Config>(a, at_.sequence);
      int const unit = at_.unit, rest = w.units - unit;
      int const take = left_ < rest ? static_cast<int>(left_) : rest;
      item = {at_.sequence, at_.segment, w, w.first + unit, w.first + unit + take, false, part_};
      item.exact = unit <= w.tiles() && w.tiles() < unit + take;  // the first unit of exact rows is here
      if (item.end > w.end) item.end = w.end;
      left_ -= take;
      at_.unit = 0;
      if (++at_.segment == segments) {
        at_.segment = 0;
        ++at_.sequence;
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

  std::int64_t total_, left_, part_;
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
  block::decode<Config> worker{storage, dynamic};
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
    int const segments = a.segments(Config::columns), column_blocks = a.column_blocks(Config::columns);
    int const head = item.segment / column_blocks, column_block = item.segment % column_blocks;
    std::int64_t const exact_slot = 2 * (static_cast<std::int64_t>(item.sequence) * segments + item.segment);
    if (item.first < item.end) {
      bool const whole = item.first == w.first && item.end == w.end;
      block::result_place place{whole && w.exact_rows == 0, a.partials, item.slot};
      if (whole && w.exact_rows > 0) place = {false, a.exact_partials, exact_slot + 1};
      worker.tiles(a, scheme, item.sequence, head, column_block, w, item.first, item.end, place);
    }
    if (item.exact) {
      worker.exact_rows(a, scheme, item.sequence, head, column_block, w,
                        {false, a.exact_partials, exact_slot});
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

  block::sequence_work const w = block::work_of<Config>(a, sequence);
  int const tiles = w.tiles();
  std::int64_t const exact_slot = 2 * (static_cast<std::int64_t>(sequence) * segments + segment);
  std::int64_t first = 0, parts = 0;  // blocks or parts that have tiles of the segment
  std::int64_t total = 0, blocks = 1, begin = 0;
  if (tiles > 0 && a.chunk_tiles == 0) {
    total = a.plan.prefix[a.cache.sequences];
    blocks = *a.plan.blocks;
    begin = a.plan.prefix[sequence] + static_cast<std::int64_t>(segment) * w.units;
    first = block_of(begin, total, blocks);
    parts = block_of(begin + tiles - 1, total, blocks) - first + 1;
    if (parts > blocks - first) parts = blocks - first;  // likewise
  } else if (tiles > 0) {
    std::int64_t const per_segment = (a.plan.prefix[sequence + 1] - a.plan.prefix[sequence]) / segments;
    first = a.plan.prefix[sequence] + segment * per_segment;
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
      for (std::int64_t i = warp; i < parts; i += warps) {
        std::int64_t slot = first + i;
        // A block's first segment is in its even slot; it is this one if the block begins inside it.
        if (a.chunk_tiles == 0) slot = 2 * slot + (first_unit(slot, total, blocks) >= begin ? 0 : 1);
        block::add_partial(r, a.partials, slot, columns, column, lane);
      }
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
