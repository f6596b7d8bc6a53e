// SPDX-License-Identifier: Apache-2.0
//! @file The constants of one section and of one blob that kernels are compiled for.
#pragma once

#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/warp/codec_operand.cuh"

namespace kvcrumb::inline v0::warp {

//! One side of a tile of a composed scheme, as constants.
template <class Scheme, side Which, int HeadDim, int TileTokens>
struct section_traits {
  using scheme_type = Scheme;
  using codec_type = typename Scheme::codec_type;
  using codec = codec_traits<codec_type>;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
  static constexpr section_spec spec = Scheme::spec(Which, tile_shape{HeadDim, TileTokens});
  static constexpr bool per_channel = spec.per_channel;
  static constexpr int row_blocks = (Which == side::key ? TileTokens : HeadDim) / 16;
  static constexpr int column_blocks = (Which == side::key ? HeadDim : TileTokens) / 16;
  using layout = operand_layout<spec.bits, row_blocks, column_blocks>;
  using unit = unit_operands<codec_type, layout>;

  static constexpr int groups = spec.planes == 0 ? 1 : spec.groups();
  //! Length of a group in blocks of 16 along its run.
  static constexpr int group_blocks = (spec.planes == 0 ? spec.run() : spec.group) / 16;
  //! Group of block b along the run.
  KVCRUMB_API static constexpr int group_of(int b) noexcept { return groups == 1 ? 0 : b / group_blocks; }
  static constexpr int vector_bytes = spec.owners() * spec.param_bytes;
  static constexpr int param_bytes = spec.planes * (spec.planes == 0 ? 0 : spec.groups()) * vector_bytes;
  static constexpr int code_bytes = layout::code_bytes;
  //! Byte offset, within the parameters, of those of `plane` and `group` that belong to block pair `pair` (32
  //! owners).
  KVCRUMB_API static constexpr std::uint32_t vector_offset(int plane, int group, int pair = 0) noexcept {
    return static_cast<std::uint32_t>((plane * groups + group) * vector_bytes + 64 * pair);
  }

  //! Codes are copied in chunks of whole steps: the fewest parts of equal size that have at most chunk_limit
  //! bytes, or else the smallest possible. At 3 bits a part holds whole pairs of words.
  static constexpr int chunk_limit = 4096;
  static constexpr int chunk_steps = [] {
    int best = layout::steps;
    for (int n = layout::steps; n >= 1; --n) {
      bool const whole_pairs = spec.bits != 3 || n == layout::steps || n * layout::row_groups % 2 == 0;
      if (layout::steps % n != 0 || !whole_pairs) continue;
      best = n;
      if (n * layout::step_bytes <= chunk_limit) break;
    }
    return best;
  }();
  static constexpr int chunks = layout::steps / chunk_steps;
  static constexpr int chunk_bytes = code_bytes / chunks;

  //! Ok if kernels can read this section; otherwise what stands in the way.
  static constexpr status readable() noexcept {
    if (!std::same_as<typename Scheme::layout_type, fragment>) return status::bad_bits;
    if (!codec::supported) return status::bad_bits;
    if (fragment::supports(spec) != status::ok) return fragment::supports(spec);
    if (spec.planes > 0 && spec.group % 16 != 0) return status::bad_group;
    if (spec.planes > 0 && groups > 8) return status::bad_group;
    if (Which == side::value && spec.planes > 0 && per_channel) return status::bad_group;
    if (Which == side::value && codec::bias == bias_form::plane_and_half) return status::bad_bits;
    return status::ok;
  }
};

//! Both sides of a blob, and the memory in which a warp keeps what is on its way.
template <class Scheme, int HeadDim, int TileTokens>
struct blob_traits {
  using key = section_traits<typename Scheme::key_type, side::key, HeadDim, TileTokens>;
  using value = section_traits<typename Scheme::value_type, side::value, HeadDim, TileTokens>;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
  static constexpr int token_blocks = TileTokens / 16, dim_blocks = HeadDim / 16;
  static constexpr int mask_bytes = 16;  //!< copied; tile_tokens / 8 of them mean something

  //! Chunks of codes of one tile, keys first.
  static constexpr int chunks = key::chunks + value::chunks;
  //! A slot holds one chunk. Slots are filled in order, `slots` chunks ahead of their use.
  static constexpr int slot_bytes =
      key::chunk_bytes > value::chunk_bytes ? key::chunk_bytes : value::chunk_bytes;
  static constexpr int ring_limit = 16384, slot_limit = 16;
  static constexpr int slots = ring_limit / slot_bytes < 2            ? 2
                               : ring_limit / slot_bytes > slot_limit ? slot_limit
                                                                      : ring_limit / slot_bytes;
  //! Parameters and mask of a tile: keys', values', mask.
  static constexpr int value_param_offset = key::param_bytes;
  static constexpr int mask_offset = key::param_bytes + value::param_bytes;
  static constexpr int stage_bytes = mask_offset + mask_bytes;
  //! Tiles whose parameters are in shared memory or on their way at once.
  static constexpr int stages = slots / chunks < 2 ? 2 : slots / chunks;
  static constexpr int warp_bytes = slots * slot_bytes + stages * stage_bytes;

  static_assert(slot_bytes % 16 == 0 && key::param_bytes % 16 == 0 && value::param_bytes % 16 == 0);
};

}  // namespace kvcrumb::inline v0::warp
