// SPDX-License-Identifier: Apache-2.0
//! @file What encode and append kernels are compiled for and get as arguments.
#pragma once

#include "kvcrumb/block/encode_section.cuh"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/outlier/admission.hpp"

namespace kvcrumb::inline v0::block {

//! Whether kernels can trace the outlier tokens of a policy.
template <class Isolation>
inline constexpr bool can_isolate = Isolation::how == selection::none;
template <class Score>
inline constexpr bool can_isolate<token_pool<Score>> = warp::can_score<Score>;

//! Everything that an encode kernel is compiled for. Input is float16, bfloat16 or float.
template <class Scheme, int HeadDim, int TileTokens, class Input>
struct encode_config {
  using scheme_type = Scheme;
  using input_type = Input;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
  static constexpr int threads = 256, warps = threads / 32;
  static constexpr bool isolating = Scheme::isolation_type::how != selection::none;
  using key = section_encoder<typename Scheme::key_type, side::key, HeadDim, TileTokens, isolating, threads>;
  using value =
      section_encoder<typename Scheme::value_type, side::value, HeadDim, TileTokens, isolating, threads>;
  //! Neighbouring kv heads that share groups, of the wider and of the narrower side.
  static constexpr int key_span = Scheme::key_type::grouping_type::head_span(HeadDim);
  static constexpr int value_span = Scheme::value_type::grouping_type::head_span(HeadDim);
  static constexpr int head_span = key_span > value_span ? key_span : value_span;
  static constexpr int least_span = key_span > value_span ? value_span : key_span;

  //! Shared memory to encode up to `tokens` rows of one side.
  static constexpr int shared_bytes(int tokens) noexcept {
    int const k = key::shared_bytes(tokens), v = value::shared_bytes(tokens);
    return k > v ? k : v;
  }
};

//! Arguments of encode and append launches. All pointers are device memory.
template <class Input>
struct encode_arguments {
  batch_cache cache{};
  batch_rows<Input const> keys{}, values{};
  std::int64_t const* first_row =
      nullptr;  //!< [sequences], token at which the rows of a sequence begin, or null
  window flush{};
  int max_tokens = 0;                    //!< encode: bound of the lengths
  int max_slots = 0;                     //!< encode: bound of the tokens in tiles
  float* scores = nullptr;               //!< encode: [sequences][kv_heads, or 1 for a layer][max_slots]
  int count = 0;                         //!< append: new tokens of each sequence
  std::int32_t const* counts = nullptr;  //!< append: [sequences] instead, at most `count`, or null
  std::uint32_t* tickets = nullptr;      //!< append: [sequences], zero before and after
  int heads_per_block = 1;               //!< append
  int chunk_tokens = 0;                  //!< append: most rows that are encoded at once

  KVCRUMB_API int units() const noexcept { return (cache.kv_heads + heads_per_block - 1) / heads_per_block; }
  //! Rows of a sequence, from its token `first` of this call on.
  KVCRUMB_DEVICE plain_rows<Input> input(batch_rows<Input const> const& rows, int sequence, int first) const {
    return {rows, sequence, (first_row != nullptr ? first_row[sequence] : 0) + first};
  }
};

//! Where the tokens of a sequence go when all of them are encoded at once.
KVCRUMB_API constexpr batch_cache::parts parts_of(batch_cache const& c, window w, int length) noexcept {
  int const sinks = length < c.sink_capacity ? length : c.sink_capacity;
  int const slots = w.to_encode(length - sinks);
  return {sinks, slots, length - sinks - slots};
}

//! Writes the validity bits of a range of slots: 1 but for isolated rows. Threads of one warp or more.
template <int TileTokens>
KVCRUMB_DEVICE void store_mask(std::byte* mask, slot_range slots, row_flags const& isolated, int head) {
  int const word = static_cast<int>(threadIdx.x);
  if (word >= TileTokens / 32) return;
  int const begin = slots.begin - 32 * word, end = slots.end - 32 * word;  // slots of this word
  std::uint32_t const below = end >= 32 ? ~0u : end > 0 ? (1u << end) - 1u : 0u;
  std::uint32_t valid = begin >= 32 ? 0u : begin > 0 ? below & (~0u << begin) : below;
  for (int bit = 0; isolated.any(head) && bit < 32; ++bit) {
    if (bit >= begin && bit < end && isolated.test(head, bit - begin)) valid &= ~(1u << bit);
  }
  auto* const at = reinterpret_cast<std::uint32_t*>(mask) + word;
  *at = slots.fresh ? valid : *at | valid;
}

}  // namespace kvcrumb::inline v0::block
