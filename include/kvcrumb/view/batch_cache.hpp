// SPDX-License-Identifier: Apache-2.0
//! @file batch_cache: one layer of a batch of sequences in device memory, as kernels see it; owns nothing.
#pragma once

#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/numeric/float16.hpp"

namespace kvcrumb::inline v0 {

//! Rows of `head_dim` contiguous elements: row(sequence, head, token). Strides count elements, 64-bit.
template <class T>
struct batch_rows {
  T* data = nullptr;
  std::int64_t stride_sequence = 0;
  std::int64_t stride_head = 0;
  std::int64_t stride_token = 0;

  KVCRUMB_API constexpr T* row(std::int64_t sequence, std::int64_t head, std::int64_t token) const noexcept {
    return data + sequence * stride_sequence + head * stride_head + token * stride_token;
  }
};

//! Which page holds tile i of a sequence. A page has one tile of every kv head. Three forms:
//! - block table: table[sequence * stride + tile] (vLLM's block_table)
//! - lists: table[indptr[sequence] + tile] (FlashInfer's indptr / indices / last_page_len)
//! - contiguous, table null: sequence * stride + tile (sequences * stride at most 2^31)
struct page_map {
  std::int32_t const* table = nullptr;
  std::int64_t stride = 0;                      //!< entries (or pages) from one sequence to the next
  std::int32_t const* indptr = nullptr;         //!< [sequences + 1]
  std::int32_t const* last_page_len = nullptr;  //!< [sequences], slots in use of the last page
  std::int64_t pages = std::int64_t{1} << 31;   //!< pages that exist, for debug checks of table entries

  //! The pages of one sequence.
  struct list {
    std::int32_t const* entries;  //!< or null: neighbours
    std::int32_t first;           //!< then the first of them

    KVCRUMB_API constexpr std::int32_t page(std::int32_t tile) const noexcept {
      return entries != nullptr ? entries[tile] : first + tile;
    }
  };
  KVCRUMB_API constexpr list of(std::int64_t sequence) const noexcept {
    if (table == nullptr) return {nullptr, static_cast<std::int32_t>(sequence * stride)};
    return {table + (indptr != nullptr ? indptr[sequence] : sequence * stride), 0};
  }
  KVCRUMB_API constexpr std::int64_t page(std::int64_t sequence, std::int64_t tile) const noexcept {
    KVCRUMB_ASSERT(indptr != nullptr ? tile < indptr[sequence + 1] - indptr[sequence]
                                     : sequence == 0 || tile < stride);
    std::int64_t const index = of(sequence).page(static_cast<std::int32_t>(tile));
    KVCRUMB_ASSERT(index >= 0 && index < pages);
    return index;
  }
};

//! One side of the tiles, or their masks: section(page, head) = data + page * stride_page + head *
//! stride_head, strides in bytes. Data and strides are multiples of 16, and 16 bytes can be read at every
//! mask.
struct batch_sections {
  std::byte* data = nullptr;
  std::int64_t stride_page = 0;
  std::int64_t stride_head = 0;

  KVCRUMB_API constexpr std::byte* section(std::int64_t page, std::int64_t head) const noexcept {
    return data + page * stride_page + head * stride_head;
  }
};

//! Isolated fp16 rows of each (sequence, kv head): `capacity` rows, of which counts[sequence][head] are in
//! use. Positions and scores are [sequences][kv_heads][capacity]. capacity 0: there is no such pool.
struct batch_isolated {
  batch_rows<float16> keys{}, values{};
  std::int32_t* positions = nullptr;
  float* scores = nullptr;  //!< not read by decode, which may leave it null
  std::int32_t* counts = nullptr;
  int capacity = 0;
};

//! A layer of a batch of sequences. All pointers are device memory. Every token of a sequence is visible
//! exactly once: the first sink_capacity tokens are exact rows; the next encoded[sequence] tokens are slots
//! of tiles, of which the invalid ones (mask bit 0) lie in `pool` or `aux`; the rest are rows of the tail, a
//! ring in which the token of position p has row p % tail_capacity.
struct batch_cache {
  tile_shape shape{};
  int sequences = 0;
  int kv_heads = 0;
  page_map pages{};
  batch_sections keys{}, values{}, masks{};

  //! [sequences], length of each sequence, the newest tokens included. May be null for decode of a cache that
  //! is tiles alone (no sinks, tail or `encoded`), whose lengths are what page lists with last_page_len say.
  std::int32_t const* tokens = nullptr;
  //! [sequences], slots of tiles in use. Null: all tokens behind the sinks are in tiles (or, with
  //! pages.last_page_len, what the page lists say).
  std::int32_t* encoded = nullptr;

  int sink_capacity = 0;
  batch_rows<float16> sink_keys{}, sink_values{};
  int tail_capacity = 0;
  batch_rows<float16> tail_keys{}, tail_values{};
  batch_isolated pool{}, aux{};

  //! Tokens kept as sinks, slots of tiles, rows of the tail; their sum is the length. Lengths below zero
  //! count as zero, and a length shorter than its tiles hides the newest slots.
  struct parts {
    std::int32_t sinks, slots, tail;
  };
  KVCRUMB_API constexpr parts split(std::int64_t sequence) const noexcept {
    std::int32_t const length = tokens != nullptr && tokens[sequence] > 0 ? tokens[sequence] : 0;
    if (tokens == nullptr) return {0, listed_slots(sequence), 0};
    std::int32_t const sinks = length < sink_capacity ? length : sink_capacity;
    std::int32_t const rest = length - sinks;
    std::int32_t slots = encoded != nullptr               ? encoded[sequence]
                         : pages.last_page_len != nullptr ? listed_slots(sequence)
                                                          : rest;
    if (slots < 0) slots = 0;
    if (slots > rest) slots = rest;
    return {sinks, slots, rest - slots};
  }

 private:
  KVCRUMB_API constexpr std::int32_t listed_slots(std::int64_t sequence) const noexcept {
    if (pages.indptr == nullptr || pages.last_page_len == nullptr) return 0;
    std::int32_t const count = pages.indptr[sequence + 1] - pages.indptr[sequence];
    return count <= 0 ? 0 : (count - 1) * shape.tile_tokens + pages.last_page_len[sequence];
  }
};

}  // namespace kvcrumb::inline v0
