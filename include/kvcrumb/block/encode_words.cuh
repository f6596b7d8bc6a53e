// SPDX-License-Identifier: Apache-2.0
//! @file Whole words of codes in the fragment layout: each thread composes the words of one lane of the
//! operand and stores them at once.
#pragma once

#include "kvcrumb/layout/fragment.hpp"
#include "kvcrumb/warp/row.cuh"

namespace kvcrumb::inline v0::block {

//! Slots [begin, end) of a tile; `fresh`: the tile has none yet, everything else of the section becomes zero.
struct slot_range {
  int begin, end;
  bool fresh;
};

//! One section of a scheme as constants.
template <class Scheme, side Which, int HeadDim, int TileTokens>
struct encoded_section {
  using scheme_type = Scheme;
  static constexpr side which = Which;
  static constexpr int head_dim = HeadDim, tile_tokens = TileTokens;
  static constexpr section_spec spec = Scheme::spec(Which, tile_shape{HeadDim, TileTokens});
  static constexpr fragment::dealing deal = fragment::deal(spec);
  static constexpr int bits = spec.bits;
  static constexpr int code_bytes = static_cast<int>(fragment::code_bytes(spec));
  static constexpr int section_bytes = static_cast<int>(fragment::section_bytes(spec));
  static constexpr int param_bytes = section_bytes - code_bytes;

  //! Where the code of sub-tile `field` with row half r and column half c lies at 3 bits: word 0 to 2 of the
  //! lane and first bit; word 3: one bit in bit 15 of each of the three.
  struct place3 {
    int word, shift;
  };
  KVCRUMB_API static constexpr place3 place(int field, int r, int c) noexcept {
    constexpr section_spec s = spec;  // local copies: device code may not take the address of a static member
    constexpr fragment::dealing d = fragment::deal(s);
    int const p = field % d.p_fields, k = field / d.p_fields;
    int const row = 16 * p + 8 * r, column = 16 * k + 8 * c;
    bool const key = Which == side::key;
    int const token = key ? row : column, dim = key ? column : row;
    auto const word_of = [](std::int64_t bit) {  // lane 0, unit 0: words 0 and 1 are one load, 2 is the next
      std::int64_t const word = bit / 32;
      return static_cast<int>(2 * (word / 64) + word % 2);
    };
    std::int64_t const first = fragment::code_bit(s, token, dim, 0);
    if (word_of(fragment::code_bit(s, token, dim, 1)) != word_of(first)) return {3, 15};
    return {word_of(first), static_cast<int>(first % 32)};
  }
};

//! The words of one lane and which of their bits are new.
template <int N>
struct lane_words {
  std::uint32_t word[N] = {}, mask[N] = {};

  KVCRUMB_DEVICE void put(int i, int shift, unsigned code, unsigned code_mask) {
    word[i] |= code << shift;
    mask[i] |= code_mask << shift;
  }
  //! Stores words [First, First + Size) at once.
  template <int First, int Size>
  KVCRUMB_DEVICE void store(std::byte* to, bool fresh) const {
    warp::word_vector<Size> out;
    std::uint32_t any = 0;
    KVCRUMB_UNROLL
    for (int i = 0; i < Size; ++i) {
      out.word[i] = word[First + i];
      any |= mask[First + i];
    }
    auto* at = reinterpret_cast<warp::word_vector<Size>*>(to);
    if (!fresh) {
      if (any == 0) return;
      warp::word_vector<Size> const old = *at;
      KVCRUMB_UNROLL
      for (int i = 0; i < Size; ++i)
        out.word[i] |= old.word[i] & ~mask[First + i];
    }
    *at = out;
  }
};

namespace detail {

//! Codes of one 16 x 16 block at (p, k) that lie in one lane: eight, handed to put(r, c, h, code).
template <class Section, class CodeOf, class Put>
KVCRUMB_DEVICE void block_codes(slot_range slots, int p, int k, int lane, CodeOf const& code_of, Put put) {
  int const g = lane >> 2, t = lane & 3;
  KVCRUMB_UNROLL
  for (int r = 0; r < 2; ++r) {
    KVCRUMB_UNROLL
    for (int c = 0; c < 2; ++c) {
      int const row = 16 * p + 8 * r + g, column = 16 * k + 8 * c + 2 * t;
      if constexpr (Section::which == side::key) {
        if (row < slots.begin || row >= slots.end) continue;
        unsigned code[2];
        code_of.neighbours(row - slots.begin, column, code);
        put(r, c, 0, code[0]);
        put(r, c, 1, code[1]);
      } else {
        KVCRUMB_UNROLL
        for (int h = 0; h < 2; ++h) {
          if (column + h < slots.begin || column + h >= slots.end) continue;
          put(r, c, h, code_of.one(column + h - slots.begin, row));
        }
      }
    }
  }
}

}  // namespace detail

//! Writes the codes of a range of slots. code_of.one(i, dim) is the code of slot begin + i,
//! code_of.neighbours(i, dim, codes) those of channels dim and dim + 1. All threads of the block; needs no
//! barrier.
template <class Section, int Threads, class CodeOf>
KVCRUMB_DEVICE void store_codes(std::byte* section, slot_range slots, CodeOf const& code_of) {
  constexpr fragment::dealing deal = Section::deal;
  constexpr unsigned code_mask = (1u << Section::bits) - 1u;
  constexpr int fields = deal.p_fields * deal.k_fields, rows = deal.p_blocks / deal.p_fields;
  constexpr bool padded = deal.k_blocks % deal.k_fields != 0;
  int const thread = static_cast<int>(threadIdx.x);
  if constexpr (Section::bits != 3) {
    for (int i = thread; i < deal.units * 32; i += Threads) {
      int const unit = i / 32, lane = i % 32;
      int const p = unit % rows * deal.p_fields, k = unit / rows * deal.k_fields;
      lane_words<4> words;
      for (int field = 0; field < fields; ++field) {
        int const k_of = k + field / deal.p_fields;
        if (padded && k_of >= deal.k_blocks) continue;
        detail::block_codes<Section>(slots, p + field % deal.p_fields, k_of, lane, code_of,
                                     [&](int r, int c, int h, unsigned code) {
                                       words.put(r + 2 * c, 16 * h + Section::bits * field, code, code_mask);
                                     });
      }
      words.template store<0, 4>(section + 16 * i, slots.fresh);
    }
  } else {
    constexpr int pairs = (deal.units + 1) / 2;  // two units of three words: three 8-byte stores
    for (int i = thread; i < pairs * 32; i += Threads) {
      int const pair = i / 32, lane = i % 32;
      lane_words<6> words;
      KVCRUMB_UNROLL
      for (int half = 0; half < 2; ++half) {
        int const unit = 2 * pair + half;
        if (unit >= deal.units) continue;
        int const p = unit % rows * deal.p_fields, k = unit / rows * deal.k_fields;
        KVCRUMB_UNROLL
        for (int field = 0; field < 4; ++field) {
          int const k_of = k + field / deal.p_fields;
          if (padded && k_of >= deal.k_blocks) continue;
          detail::block_codes<Section>(slots, p + field % deal.p_fields, k_of, lane, code_of,
                                       [&](int r, int c, int h, unsigned code) {
                                         auto const at = Section::place(field, r, c);
                                         if (at.word < 3) {
                                           words.put(3 * half + at.word, 16 * h + at.shift, code, 7u);
                                           return;
                                         }
                                         KVCRUMB_UNROLL
                                         for (int bit = 0; bit < 3; ++bit)
                                           words.put(3 * half + bit, 16 * h + 15, (code >> bit) & 1u, 1u);
                                       });
        }
      }
      std::byte* const to = section + (3 * pair * 32 + lane) * 8;
      words.template store<0, 2>(to, slots.fresh);
      words.template store<2, 2>(to + 256, slots.fresh);
      if (2 * pair + 1 < deal.units) words.template store<4, 2>(to + 512, slots.fresh);
    }
  }
}

}  // namespace kvcrumb::inline v0::block
