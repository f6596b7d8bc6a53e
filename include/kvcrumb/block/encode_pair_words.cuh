// SPDX-License-Identifier: Apache-2.0
//! @file Words of codes in the fragment layout from fp16 rows in shared memory, two channels at a time.
#pragma once

#include "kvcrumb/block/encode_words.cuh"
#include "kvcrumb/warp/pair_codes.cuh"

namespace kvcrumb::inline v0::block {

//! Rows of a section in shared memory, and what is needed of the groups to compute codes: factors
//! [group][owner]. Owners of a pair lie on a multiple of 16 bytes if the first of them is even.
template <class Section>
struct pair_rows {
  using codec_type = typename Section::scheme_type::codec_type;
  using codes = warp::pair_codes<codec_type>;
  using factors = typename codes::factors;
  static constexpr int stride = Section::head_dim + 8;  //!< of rows in halves; no bank conflicts

  codec_type const& codec;
  std::byte const* rows;
  std::byte const* of_groups;
  int owners;

  //! Channels `channel` (even) and the next of row i.
  KVCRUMB_DEVICE std::uint32_t two(int i, int channel) const {
    return reinterpret_cast<std::uint32_t const*>(rows)[i * (stride / 2) + (channel >> 1)];
  }
  KVCRUMB_DEVICE factors one(int group, int owner) const {
    return reinterpret_cast<factors const*>(of_groups)[group * owners + owner];
  }
  //! Of an even owner and the next.
  KVCRUMB_DEVICE void pair(int group, int owner, factors (&f)[2]) const {
    if constexpr (sizeof(factors) == 8) {
      auto const both =
          reinterpret_cast<warp::word_vector<4> const*>(of_groups)[(group * owners + owner) >> 1];
      f[0] = __builtin_bit_cast(factors, warp::word_vector<2>{{both.word[0], both.word[1]}});
      f[1] = __builtin_bit_cast(factors, warp::word_vector<2>{{both.word[2], both.word[3]}});
    } else {
      f[0] = one(group, owner);
      f[1] = one(group, owner + 1);
    }
  }
  //! Codes of a pair without the bias.
  KVCRUMB_DEVICE std::uint32_t code(std::uint32_t x, factors a, factors b) const {
    return codes::encode(codec, x, a, b) - codes::bias;
  }
};

namespace detail {

//! Blocks of 16 along p that are in one register and share the groups of their rows.
template <class Section>
inline constexpr int blocks_of_group =
    Section::spec.groups() == 1 || Section::spec.group / 16 >= Section::deal.p_fields
        ? Section::deal.p_fields
        : Section::spec.group / 16;

//! First blocks of a unit.
template <class Section>
KVCRUMB_DEVICE int first_block(int unit) {
  constexpr fragment::dealing deal = Section::deal;
  return static_cast<int>(static_cast<unsigned>(unit) % (deal.p_blocks / deal.p_fields)) * deal.p_fields;
}
template <class Section>
KVCRUMB_DEVICE int first_column(int unit) {
  constexpr fragment::dealing deal = Section::deal;
  return static_cast<int>(static_cast<unsigned>(unit) / (deal.p_blocks / deal.p_fields)) * deal.k_fields;
}
//! The group of an element that is not before the first.
template <class Section>
KVCRUMB_DEVICE int group_at(int at) {
  return Section::spec.groups() == 1 ? 0 : static_cast<int>(static_cast<unsigned>(at) / Section::spec.group);
}

//! Both halves of a word at once.
template <class Section>
inline constexpr std::uint32_t both_masks = ((1u << Section::bits) - 1u) * 0x10001u;

}  // namespace detail

//! Writes the codes of keys. Whole: the slots are all of the tile. All threads; needs no barrier.
template <class Section, int Threads, bool Whole>
KVCRUMB_DEVICE void store_key_pairs(std::byte* section, slot_range slots, pair_rows<Section> const& from) {
  constexpr fragment::dealing deal = Section::deal;
  constexpr int sharing = detail::blocks_of_group<Section>;
  constexpr bool padded = deal.k_blocks % deal.k_fields != 0;
  int const begin = Whole ? 0 : slots.begin;
  for (int i = static_cast<int>(threadIdx.x); i < deal.units * 32; i += Threads) {
    int const unit = i >> 5, g = i >> 2 & 7, t = i & 3;
    int const p = detail::first_block<Section>(unit), k = detail::first_column<Section>(unit);
    lane_words<4> words;
    auto const present = [&](int row) { return Whole || (row >= slots.begin && row < slots.end); };
    auto const put = [&](int a, int field, std::uint32_t code) {
      words.word[a] += code << (Section::bits * field);
      if constexpr (!Whole) words.mask[a] |= detail::both_masks<Section> << (Section::bits * field);
    };
    KVCRUMB_UNROLL
    for (int k_field = 0; k_field < deal.k_fields; ++k_field) {
      if (padded && k + k_field >= deal.k_blocks) continue;
      int const column = 16 * (k + k_field) + 2 * t;
      if constexpr (Section::spec.per_channel) {
        KVCRUMB_UNROLL
        for (int c = 0; c < 2; ++c) {
          KVCRUMB_UNROLL
          for (int first = 0; first < deal.p_fields; first += sharing) {
            int const block = 16 * (p + first);
            if (!present(block)) continue;  // groups lie in the slots as a whole
            typename pair_rows<Section>::factors f[2];
            from.pair(detail::group_at<Section>(block - begin), column + 8 * c, f);
            KVCRUMB_UNROLL
            for (int b = first; b < first + sharing; ++b) {
              KVCRUMB_UNROLL
              for (int r = 0; r < 2; ++r) {
                std::uint32_t const x = from.two(16 * (p + b) + 8 * r + g - begin, column + 8 * c);
                put(r + 2 * c, b + deal.p_fields * k_field, from.code(x, f[0], f[1]));
              }
            }
          }
        }
      } else {
        KVCRUMB_UNROLL
        for (int b = 0; b < deal.p_fields; ++b) {
          KVCRUMB_UNROLL
          for (int r = 0; r < 2; ++r) {
            int const row = 16 * (p + b) + 8 * r + g;
            if (!present(row)) continue;
            auto const f = from.one(detail::group_at<Section>(column), row - begin);
            KVCRUMB_UNROLL
            for (int c = 0; c < 2; ++c) {
              std::uint32_t const x = from.two(row - begin, column + 8 * c);
              put(r + 2 * c, b + deal.p_fields * k_field, from.code(x, f, f));
            }
          }
        }
      }
    }
    words.template store<0, 4>(section + 16 * i, Whole || slots.fresh);
  }
}

//! Writes the codes of values in groups of channels. A lane has two channels of one row half and the tokens
//! of both column halves; lanes with the other row half exchange words with it.
template <class Section, int Threads, bool Whole>
KVCRUMB_DEVICE void store_value_pairs(std::byte* section, slot_range slots, pair_rows<Section> const& from) {
  constexpr fragment::dealing deal = Section::deal;
  constexpr int sharing = detail::blocks_of_group<Section>;
  constexpr bool padded = deal.k_blocks % deal.k_fields != 0;
  int const begin = Whole ? 0 : slots.begin;
  for (int i = static_cast<int>(threadIdx.x); i < deal.units * 32; i += Threads) {
    int const unit = i >> 5, t = i >> 3 & 3, r = i >> 2 & 1, channel = 8 * r + 2 * (i & 3);
    int const p = detail::first_block<Section>(unit), k = detail::first_column<Section>(unit);
    std::uint32_t of_token[2][2] = {}, mask[2][2] = {};  // [c][h], of two channels
    KVCRUMB_UNROLL
    for (int k_field = 0; k_field < deal.k_fields; ++k_field) {
      if (padded && k + k_field >= deal.k_blocks) continue;
      KVCRUMB_UNROLL
      for (int c = 0; c < 2; ++c) {
        int const token = 16 * (k + k_field) + 8 * c + 2 * t;
        KVCRUMB_UNROLL
        for (int first = 0; first < deal.p_fields; first += sharing) {
          int const of = detail::group_at<Section>(16 * (p + first));
          typename pair_rows<Section>::factors f[2];
          if constexpr (Whole) from.pair(of, token, f);
          KVCRUMB_UNROLL
          for (int h = 0; h < 2; ++h) {
            int const row = token + h - begin;
            if constexpr (!Whole) {
              if (token + h < slots.begin || token + h >= slots.end) continue;
              f[h] = from.one(of, row);
            }
            KVCRUMB_UNROLL
            for (int b = first; b < first + sharing; ++b) {
              int const shift = Section::bits * (b + deal.p_fields * k_field);
              of_token[c][h] += from.code(from.two(row, 16 * (p + b) + channel), f[h], f[h]) << shift;
              if constexpr (!Whole) mask[c][h] |= detail::both_masks<Section> << shift;
            }
          }
        }
      }
    }
    lane_words<4> words;
    KVCRUMB_UNROLL
    for (int c = 0; c < 2; ++c) {
      std::uint32_t const even = ptx::permute_bytes(of_token[c][0], of_token[c][1], 0x5410u);
      std::uint32_t const odd = ptx::permute_bytes(of_token[c][0], of_token[c][1], 0x7632u);
      std::uint32_t const other = __shfl_xor_sync(~0u, r != 0 ? even : odd, 4);
      words.word[2 * c] = r != 0 ? other : even;
      words.word[2 * c + 1] = r != 0 ? odd : other;
      words.mask[2 * c] = words.mask[2 * c + 1] = ptx::permute_bytes(mask[c][0], mask[c][1], 0x5410u);
    }
    int const lane = 4 * (2 * (i & 3) + r) + t;  // of the operand
    words.template store<0, 4>(section + 16 * (32 * unit + lane), Whole || slots.fresh);
  }
}

}  // namespace kvcrumb::inline v0::block
