// SPDX-License-Identifier: Apache-2.0
//! @file The fragment layout: codes in the order of tensor-core operands, the default of kvcrumb.
#pragma once

#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/layout/tile_shape.hpp"

namespace kvcrumb::inline v0 {

//! Order of the A operand of `mma.m16n8k16` (PTX ISA, "Matrix Fragments for mma.m16n8k16"): a lane's 32-bit
//! word is one A register, and each of its 16-bit halves holds 16/bits codes of as many 16 x 16 blocks. A
//! masked word is therefore a finished operand for a tensor core, and one byte shuffle per 64 B makes it a
//! VPDPBUSD operand.
//!
//! Rows are tokens for keys and channels for values; columns the other axis:
//!   row = 16 p + 8 r + g,  column = 16 k + 8 c + 2 t + h;   lane = 4 g + t,  register a = r + 2 c,  half h.
//! Parameter vectors (index = owner) are permuted within 32 so that one 16-byte load serves four k-steps.
//!
//! Holds 1, 2, 3, 4, 8 and 16 bits; head_dim 64, 96, 128, 192, 256. Where the number of 16 x 16 blocks does
//! not fill whole registers (few tokens and head_dim 96, or 1 bit), the rest is zero padding and is counted
//! by code_bytes.
struct fragment {
  static constexpr char const* name = "fragment";

  KVCRUMB_API static constexpr status supports(section_spec const& s) noexcept {
    if (status const shape = check_shape(s.shape); shape != status::ok) return shape;
    int const d = s.shape.head_dim;
    if (d != 64 && d != 96 && d != 128 && d != 192 && d != 256) return status::bad_head_dim;
    if (s.bits != 1 && s.bits != 2 && s.bits != 3 && s.bits != 4 && s.bits != 8 && s.bits != 16) {
      return status::bad_bits;
    }
    return status::ok;
  }

  //! Coordinates of one code in the mma operand.
  struct coordinate {
    int p, r, g, k, c, t, h;
    KVCRUMB_API constexpr int lane() const noexcept { return 4 * g + t; }
    KVCRUMB_API constexpr int a() const noexcept { return r + 2 * c; }
  };
  KVCRUMB_API static constexpr coordinate split(int row, int column) noexcept {
    return {row >> 4, (row >> 3) & 1, row & 7, column >> 4, (column >> 3) & 1, (column >> 1) & 3, column & 1};
  }
  KVCRUMB_API static constexpr coordinate locate(section_spec const& s, int token, int dim) noexcept {
    return s.which == side::key ? split(token, dim) : split(dim, token);
  }

  //! How the 16 x 16 blocks (p, k) are dealt to registers: a unit is the set of blocks that share one
  //! register (or, at 3 bits, three registers) of every lane. `p_fields` neighbouring p and `k_fields`
  //! neighbouring k go together.
  struct dealing {
    int p_blocks, k_blocks, p_fields, k_fields, units;
    KVCRUMB_API constexpr int unit(int p, int k) const noexcept {
      return (k / k_fields) * (p_blocks / p_fields) + p / p_fields;
    }
    KVCRUMB_API constexpr int field(int p, int k) const noexcept {
      return p % p_fields + p_fields * (k % k_fields);
    }
  };
  KVCRUMB_API static constexpr dealing deal(section_spec const& s) noexcept {
    bool const key = s.which == side::key;
    int const p_blocks = (key ? s.shape.tile_tokens : s.shape.head_dim) / 16;
    int const k_blocks = (key ? s.shape.head_dim : s.shape.tile_tokens) / 16;
    int const fields = s.bits == 3 ? 4 : 16 / s.bits;
    int const p_fields = greatest_common_divisor(p_blocks, fields);
    int const k_fields = fields / p_fields;
    return {p_blocks, k_blocks, p_fields, k_fields,
            (k_blocks + k_fields - 1) / k_fields * (p_blocks / p_fields)};
  }

  KVCRUMB_API static constexpr std::int64_t code_bytes(section_spec const& s) noexcept {
    int const units = deal(s).units;
    return s.bits == 3 ? static_cast<std::int64_t>((3 * units + 1) / 2) * 256
                       : static_cast<std::int64_t>(units) * 512;
  }
  KVCRUMB_API static constexpr std::int64_t section_bytes(section_spec const& s) noexcept {
    return code_bytes(s) +
           static_cast<std::int64_t>(s.planes) * s.groups() * padded_owners(s) * s.param_bytes;
  }

  //! Position of bit i of a code in the section's bit stream.
  KVCRUMB_API static constexpr std::int64_t code_bit(section_spec const& s, int token, int dim,
                                                     int i) noexcept {
    coordinate const x = locate(s, token, dim);
    dealing const d = deal(s);
    int const unit = d.unit(x.p, x.k), field = d.field(x.p, x.k);
    if (s.bits != 3) {
      std::int64_t const word = (static_cast<std::int64_t>(unit) * 32 + x.lane()) * 4 + x.a();
      return word * 32 + 16 * x.h + s.bits * field + i;
    }
    place3 const at = three_bit_place(field, x.r, x.c);
    if (at.word == scattered) return word3(3 * unit + i, x.lane()) * 32 + 16 * x.h + 15;
    return word3(3 * unit + at.word, x.lane()) * 32 + 16 * x.h + 3 * at.field + i;
  }

  //! Position of element `index` of a parameter vector: 32-element chunks in the order of the B operand.
  KVCRUMB_API static constexpr int param_index(int index) noexcept {
    return (index & ~31) + 8 * ((index >> 1) & 3) + 2 * ((index >> 3) & 3) + (index & 1);
  }
  //! Byte offset of parameter `plane` of group `group` of `owner`: planes of groups of permuted owner
  //! vectors.
  KVCRUMB_API static constexpr std::int64_t param_offset(section_spec const& s, int plane, int owner,
                                                         int group) noexcept {
    std::int64_t const vector = static_cast<std::int64_t>(plane) * s.groups() + group;
    return code_bytes(s) + (vector * padded_owners(s) + param_index(owner)) * s.param_bytes;
  }

  KVCRUMB_API static constexpr unsigned load(section_spec const& s, std::byte const* section, int token,
                                             int dim) noexcept {
    std::int64_t const bit = code_bit(s, token, dim, 0);
    if (s.bits != 3 || !is_scattered(s, token, dim)) return load_bits(section, bit, s.bits);
    unsigned code = 0;
    for (int i = 0; i < 3; ++i)
      code |= load_bits(section, code_bit(s, token, dim, i), 1) << i;
    return code;
  }
  KVCRUMB_API static constexpr void store(section_spec const& s, std::byte* section, int token, int dim,
                                          unsigned code) noexcept {
    if (s.bits != 3 || !is_scattered(s, token, dim)) {
      store_bits(section, code_bit(s, token, dim, 0), s.bits, code);
      return;
    }
    for (int i = 0; i < 3; ++i)
      store_bits(section, code_bit(s, token, dim, i), 1, code >> i);
  }

 private:
  static constexpr int scattered = 3;
  struct place3 {
    int word, field;
  };
  //! Where the code of sub-tile s, row half r, column half c lies in the three words of a lane at 3 bits. The
  //! pairs that share an accumulator share the position factor 8^(field % 3); the 16th code takes bit 15 of
  //! the words.
  KVCRUMB_API static constexpr place3 three_bit_place(int s, int r, int c) noexcept {
    switch (s) {
      case 0: return {r, 3 * c};
      case 1: return {r, 3 * c + 1};
      case 2: return {2, 3 * c + r};
      default: return c == 0 ? place3{2 * r, 2} : (r == 0 ? place3{1, 2} : place3{scattered, 0});
    }
  }
  KVCRUMB_API static constexpr bool is_scattered(section_spec const& s, int token, int dim) noexcept {
    coordinate const x = locate(s, token, dim);
    return x.r == 1 && x.c == 1 && deal(s).field(x.p, x.k) == 3;
  }
  //! Tile word of the n-th three-bit word of a lane: pairs of words are one 8-byte load.
  KVCRUMB_API static constexpr std::int64_t word3(int n, int lane) noexcept {
    return (static_cast<std::int64_t>(n >> 1) * 32 + lane) * 2 + (n & 1);
  }
  KVCRUMB_API static constexpr std::int64_t padded_owners(section_spec const& s) noexcept {
    return align_up(s.owners(), 32);
  }
};

}  // namespace kvcrumb::inline v0
