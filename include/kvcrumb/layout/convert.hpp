// SPDX-License-Identifier: Apache-2.0
//! @file Packing, unpacking and converting whole sections between layouts.
#pragma once

#include <concepts>

#include "kvcrumb/layout/fragment.hpp"
#include "kvcrumb/layout/ggml_block.hpp"
#include "kvcrumb/layout/linear.hpp"

namespace kvcrumb::inline v0 {

//! What a layout offers: where the bits of a code and the bytes of a parameter lie in a section.
template <class L>
concept layout = requires(section_spec const s, std::byte* section, std::byte const* packed) {
  { L::name } -> std::convertible_to<char const*>;
  { L::supports(s) } -> std::same_as<status>;
  { L::code_bytes(s) } -> std::same_as<std::int64_t>;
  { L::section_bytes(s) } -> std::same_as<std::int64_t>;
  { L::code_bit(s, 0, 0, 0) } -> std::same_as<std::int64_t>;
  { L::param_offset(s, 0, 0, 0) } -> std::same_as<std::int64_t>;
  { L::load(s, packed, 0, 0) } -> std::same_as<unsigned>;
  L::store(s, section, 0, 0, 0u);
};

//! All codes of a section to codes[token][dim]. Cost: one load per code; whole words where the layout has
//! them.
template <layout L, class Code>
void unpack_codes(section_spec const& s, std::byte const* section, Code* codes) noexcept {
  int const width = s.shape.head_dim;
  if constexpr (std::same_as<L, fragment>) {
    if (s.bits != 3) {
      fragment::dealing const d = fragment::deal(s);
      bool const key = s.which == side::key;
      std::uint32_t const mask = (1u << s.bits) - 1u;
      for (int p = 0; p < d.p_blocks; ++p) {
        for (int k = 0; k < d.k_blocks; ++k) {
          std::int64_t const base = static_cast<std::int64_t>(d.unit(p, k)) * 128;
          int const shift = s.bits * d.field(p, k);
          for (int w = 0; w < 128; ++w) {  // word = 4 lane + a
            std::uint32_t const word = load_word(section, base + w);
            int const row = 16 * p + 8 * (w & 1) + (w >> 4),
                      column = 16 * k + 8 * ((w >> 1) & 1) + 2 * ((w >> 2) & 3);
            for (int h = 0; h < 2; ++h) {
              std::int64_t const at = key ? static_cast<std::int64_t>(row) * width + column + h
                                          : static_cast<std::int64_t>(column + h) * width + row;
              codes[at] = static_cast<Code>((word >> (16 * h + shift)) & mask);
            }
          }
        }
      }
      return;
    }
  }
  for (int token = 0; token < s.shape.tile_tokens; ++token) {
    for (int dim = 0; dim < width; ++dim) {
      codes[static_cast<std::int64_t>(token) * width + dim] =
          static_cast<Code>(L::load(s, section, token, dim));
    }
  }
}

//! Codes of channels [first_dim, first_dim + count) of one slot into a section; everything else is left
//! alone.
template <layout L, class Code>
void pack_row(section_spec const& s, int token, int first_dim, int count, Code const* codes,
              std::byte* section) noexcept {
  if constexpr (std::same_as<L, fragment>) {
    if (s.bits != 3) {
      fragment::dealing const d = fragment::deal(s);
      for (int i = 0; i < count; ++i) {
        fragment::coordinate const x = fragment::locate(s, token, first_dim + i);
        std::int64_t const word = static_cast<std::int64_t>(d.unit(x.p, x.k)) * 128 + 4 * x.lane() + x.a();
        store_bits(section, word * 32 + 16 * x.h + s.bits * d.field(x.p, x.k), s.bits,
                   static_cast<unsigned>(codes[i]));
      }
      return;
    }
  }
  for (int i = 0; i < count; ++i)
    L::store(s, section, token, first_dim + i, static_cast<unsigned>(codes[i]));
}

//! All codes of codes[token][dim] into a section; parameters and padding are left alone.
template <layout L, class Code>
void pack_codes(section_spec const& s, Code const* codes, std::byte* section) noexcept {
  int const width = s.shape.head_dim;
  for (int token = 0; token < s.shape.tile_tokens; ++token) {
    pack_row<L>(s, token, 0, width, codes + static_cast<std::int64_t>(token) * width, section);
  }
}

//! Rewrites a section of layout From in layout To: a bijection of codes and parameters. Padding becomes zero.
//! Requires that both layouts support `s` and that the buffers do not overlap. A refused shape leaves `to`
//! untouched.
template <layout From, layout To>
status convert_section(section_spec const& s, std::byte const* from, std::byte* to) noexcept {
  if (from == nullptr || to == nullptr) return status::null_pointer;
  if (status const a = From::supports(s); a != status::ok) return a;
  if (status const b = To::supports(s); b != status::ok) return b;
  for (std::int64_t i = 0; i < To::section_bytes(s); ++i)
    to[i] = std::byte{0};
  for (int token = 0; token < s.shape.tile_tokens; ++token) {
    for (int dim = 0; dim < s.shape.head_dim; ++dim) {
      To::store(s, to, token, dim, From::load(s, from, token, dim));
    }
  }
  for (int plane = 0; plane < s.planes; ++plane) {
    for (int owner = 0; owner < s.owners(); ++owner) {
      for (int group = 0; group < s.groups(); ++group) {
        std::byte const* source = from + From::param_offset(s, plane, owner, group);
        std::byte* target = to + To::param_offset(s, plane, owner, group);
        for (int i = 0; i < s.param_bytes; ++i)
          target[i] = source[i];
      }
    }
  }
  return status::ok;
}

}  // namespace kvcrumb::inline v0
