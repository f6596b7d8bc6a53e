// SPDX-License-Identifier: Apache-2.0
//! @file The ring: tiles on their way from global memory to one warp, in chunks, each with a barrier of its
//! own.
#pragma once

#include "kvcrumb/view/batch_cache.hpp"
#include "kvcrumb/warp/query.cuh"
#include "kvcrumb/warp/section.cuh"

namespace kvcrumb::inline v0::warp {

//! One warp's stream of tiles first, first + step, ... of one (sequence, kv head). Chunks of codes are
//! copied in the order of their use, Blob::slots chunks ahead, parameters and masks Blob::stages tiles ahead.
//!
//! All lanes of the warp call every function together. `memory` is Blob::warp_bytes of shared memory on a
//! multiple of 16, `barriers` a shared_barriers of the same warp. Use:
//!
//!   ring.init_barriers(); __syncthreads(); ring.start(...);
//!   for each tile:  ring.begin_tile();
//!                   for chunk j in order:  base = ring.wait(); ... read ...; ring.release<j>();
//!                   ring.end_tile();
//!
//! The data of a chunk are valid from wait() to release(), parameters and mask from begin_tile() to
//! end_tile(). When all tiles are consumed nothing is in flight, and the memory may serve other purposes
//! until start().
template <class Blob>
class ring {
 public:
  static constexpr int slots = Blob::slots, stages = Blob::stages;

  struct shared_barriers {
    std::uint64_t barrier[slots + stages];
  };

  KVCRUMB_DEVICE ring(std::uint32_t memory, std::uint32_t barriers, batch_cache const& cache, int step,
                      int lane)
      : memory_{memory}, barriers_{barriers}, cache_{cache}, step_{step}, lane_{lane} {}

  //! Once per kernel, for the warp's own barriers; a block barrier must follow.
  KVCRUMB_DEVICE void init_barriers() const {
    if (lane_ < slots + stages) {
      ptx::barrier_init(barriers_ + static_cast<std::uint32_t>(8 * lane_), ptx::has_bulk_copy ? 1 : 32);
      ptx::barrier_init_fence();
    }
  }

  //! Begins a stream over tiles first, first + step, ... below `end`. The previous stream must be consumed.
  KVCRUMB_DEVICE void start(int sequence, int head, int first, int end) {
    pages_ = cache_.pages.of(sequence);
    head_ = head;
    end_ = end;
    tile_ = params_tile_ = first;
    if (first < end) page_ = params_page_ = page(first);
    int slot = slot_, stage = stage_;
    auto const next = [](int& index, int n) { index = index + 1 == n ? 0 : index + 1; };
    unrolled<slots>([&]<int j>() {
      issue<j % Blob::chunks>(slot);
      next(slot, slots);
      if constexpr (together && j % Blob::chunks == Blob::chunks - 1) {
        issue_parameters(stage);
        next(stage, stages);
      }
    });
    if constexpr (!together) {
      unrolled<stages>([&]<int>() {
        issue_parameters(stage);
        next(stage, stages);
      });
    }
  }

  //! Waits for the parameters and the mask of the next tile.
  KVCRUMB_DEVICE void begin_tile() const { ptx::barrier_wait(barrier(slots + stage_), stage_parity_); }
  //! Shared address of the parameters of the tile in use: keys', values', mask.
  KVCRUMB_DEVICE std::uint32_t parameters() const { return stage_address(stage_); }
  //! Waits for the next chunk and returns the shared address of its codes.
  KVCRUMB_DEVICE std::uint32_t wait() const {
    ptx::barrier_wait(barrier(slot_), parity_);
    return slot_address(slot_);
  }
  //! The warp has read chunk `Chunk` of the tile in use; its slot is filled again.
  template <int Chunk>
  KVCRUMB_DEVICE void release() {
    __syncwarp();  // all lanes have read before the slot is overwritten
    issue<(Chunk + slots) % Blob::chunks>(slot_);
    advance<slots>(slot_, parity_);
  }
  //! The warp has read the parameters of the tile in use; their place is filled again.
  KVCRUMB_DEVICE void end_tile() {
    issue_parameters(stage_);  // release() of the last chunk has synchronized the warp
    advance<stages>(stage_, stage_parity_);
  }

 private:
  using key = typename Blob::key;
  using value = typename Blob::value;

  KVCRUMB_DEVICE std::uint32_t barrier(int i) const { return barriers_ + static_cast<std::uint32_t>(8 * i); }
  KVCRUMB_DEVICE std::uint32_t slot_address(int i) const {
    return memory_ + static_cast<std::uint32_t>(i * Blob::slot_bytes);
  }
  KVCRUMB_DEVICE std::uint32_t stage_address(int i) const {
    return memory_ + static_cast<std::uint32_t>(slots * Blob::slot_bytes + i * Blob::stage_bytes);
  }
  template <int N>
  KVCRUMB_DEVICE static void advance(int& index, std::uint32_t& parity) {
    if (++index == N) {
      index = 0;
      parity ^= 1u;
    }
  }

  KVCRUMB_DEVICE std::int32_t page(int tile) const {
    std::int32_t const index = pages_.page(tile);
    KVCRUMB_ASSERT(index >= 0 && index < cache_.pages.pages);
    return index;
  }

  //! Copies chunk `Chunk` of the tile at the head of the stream. Slots are filled in the order in which they
  //! are released: the chunk that is `slots` ahead takes the place of the one just read.
  template <int Chunk>
  KVCRUMB_DEVICE void issue(int slot) {
    constexpr bool is_key = Chunk < key::chunks;
    constexpr int bytes = is_key ? key::chunk_bytes : value::chunk_bytes;
    if constexpr (Chunk == 0) {
      keys_ = cache_.keys.section(page_, head_);
      values_ = cache_.values.section(page_, head_);
      if constexpr (together) masks_ = cache_.masks.section(page_, head_);
    }
    if (tile_ < end_ && copies()) {
      std::byte const* const from =
          is_key ? keys_ + Chunk * key::chunk_bytes : values_ + (Chunk - key::chunks) * value::chunk_bytes;
      std::uint32_t const at = barrier(slot);
      if constexpr (ptx::has_bulk_copy) ptx::barrier_expect(at, bytes);
      copy(slot_address(slot), from, bytes, at);
      if constexpr (!ptx::has_bulk_copy) ptx::copy_async_arrive(at);
    }
    if constexpr (Chunk == Blob::chunks - 1 && !together) next_tile(tile_, page_);
  }
  //! Goes on to the next tile and asks for its page, which is needed one chunk or one tile from now.
  KVCRUMB_DEVICE void next_tile(int& tile, std::int32_t& index) const {
    tile += step_;
    if (tile < end_) index = page(tile);
  }
  //! Copies the parameters of a tile, given its sections.
  KVCRUMB_DEVICE void copy_parameters(int stage, std::byte const* keys, std::byte const* values,
                                      std::byte const* mask) {
    if (copies()) {
      std::uint32_t const to = stage_address(stage), at = barrier(slots + stage);
      if constexpr (ptx::has_bulk_copy) ptx::barrier_expect(at, Blob::stage_bytes);
      if constexpr (key::param_bytes > 0) copy(to, keys + key::code_bytes, key::param_bytes, at);
      if constexpr (value::param_bytes > 0) {
        copy(to + Blob::value_param_offset, values + value::code_bytes, value::param_bytes, at);
      }
      copy(to + Blob::mask_offset, mask, Blob::mask_bytes, at);
      if constexpr (!ptx::has_bulk_copy) ptx::copy_async_arrive(at);
    }
  }
  //! Copies the parameters of the next tile in turn. Where they are as far ahead as the codes, that is the
  //! tile whose last chunk has just been issued.
  KVCRUMB_DEVICE void issue_parameters(int stage) {
    if constexpr (together) {
      if (tile_ < end_) copy_parameters(stage, keys_, values_, masks_);
      next_tile(tile_, page_);
    } else {
      if (params_tile_ < end_) {
        copy_parameters(stage, cache_.keys.section(params_page_, head_),
                        cache_.values.section(params_page_, head_),
                        cache_.masks.section(params_page_, head_));
      }
      next_tile(params_tile_, params_page_);
    }
  }

  //! One lane copies whole blocks where there is a bulk copy; all lanes copy 16 bytes at a time where there
  //! is not.
  KVCRUMB_DEVICE bool copies() const { return !ptx::has_bulk_copy || ptx::elect_one(); }
  KVCRUMB_DEVICE void copy(std::uint32_t to, std::byte const* from, int bytes, std::uint32_t at) const {
    if constexpr (ptx::has_bulk_copy) {
      ptx::bulk_copy(to, from, bytes, at);
    } else {
      for (int i = 16 * lane_; i < bytes; i += 512)
        ptx::copy_async_16(to + static_cast<std::uint32_t>(i), from + i);
    }
  }

  //! Whether a tile's parameters and its last chunk are copied one after the other.
  static constexpr bool together = slots % Blob::chunks == 0 && stages == slots / Blob::chunks;

  std::uint32_t memory_, barriers_;
  batch_cache const& cache_;
  int step_, lane_, head_ = 0;
  std::byte const* keys_ = nullptr;  // sections of the tile that is being copied
  std::byte const* values_ = nullptr;
  std::byte const* masks_ = nullptr;
  page_map::list pages_{};
  int tile_ = 0, params_tile_ = 0, end_ = 0;  // next to be copied
  std::int32_t page_ = 0, params_page_ = 0;   // and their pages
  int slot_ = 0, stage_ = 0;
  std::uint32_t parity_ = 0, stage_parity_ = 0;
};

}  // namespace kvcrumb::inline v0::warp
