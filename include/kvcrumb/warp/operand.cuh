// SPDX-License-Identifier: Apache-2.0
//! @file Words of the fragment layout as A operands of the tensor core: one mask for two codes.
#pragma once

#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::warp {

//! Where the codes of one section lie, as constants (layout/fragment.hpp has the same facts at run time).
//! Rows are tokens for keys and channels for values, in blocks of 16; columns the other axis. A *unit* is
//! what one load per lane brings: `row_fields` row blocks times `column_fields` column blocks. A *step* is
//! all units of `column_fields` neighbouring column blocks; steps lie one after another in memory.
template <int Bits, int RowBlocks, int ColumnBlocks>
struct operand_layout {
  static constexpr int bits = Bits, row_blocks = RowBlocks, column_blocks = ColumnBlocks;
  static constexpr int fields = Bits == 3 ? 4 : 16 / Bits;
  static constexpr int row_fields = greatest_common_divisor(RowBlocks, fields);
  static constexpr int column_fields = fields / row_fields;
  static constexpr int row_groups = RowBlocks / row_fields;
  static constexpr int steps = (ColumnBlocks + column_fields - 1) / column_fields;
  static constexpr int unit_bytes = Bits == 3 ? 384 : 512;
  static constexpr int step_bytes = row_groups * unit_bytes;
  static constexpr int code_bytes = Bits == 3 ? (3 * row_groups * steps + 1) / 2 * 256 : steps * step_bytes;
  //! Words of one lane's load of a unit.
  static constexpr int unit_words = Bits == 3 ? 3 : 4;

  //! Fields that fit below bit 11 of a half without a shift, so that the pattern is an exact fp16 integer.
  static constexpr int fields_in_place = Bits >= 8 ? 1 : Bits == 3 ? 3 : 8 / Bits;

  //! log2 of the factor by which the operands of row block p, row half r are too large: the bit where the
  //! field is left standing. It is the same for all columns and so is divided out of the accumulator.
  KVCRUMB_API static constexpr int factor_log2(int p, int r) noexcept {
    int const f = p % row_fields;
    if (Bits == 3) return f == 2 ? 3 * r : f == 3 ? 6 : 3 * f;
    return Bits >= 8 ? 0 : Bits * (f % fields_in_place);
  }
};

//! One lane's words of a unit. `base` is the shared address of a chunk of codes that begins at step `First`.
template <class Layout, int First>
KVCRUMB_DEVICE void load_unit(std::uint32_t (&w)[Layout::unit_words], std::uint32_t base, int lane, int step,
                              int group) {
  int const unit = (step - First) * Layout::row_groups + group;
  if constexpr (Layout::bits == 3) {
    // Word n of a lane lies at ((n / 2) * 32 + lane) * 2 + n % 2; a unit's three words are n = 3 unit ...
    int const n = 3 * unit;
    std::uint32_t const at = base + static_cast<std::uint32_t>(8 * lane);
    std::uint32_t pair[2];
    if (n % 2 == 0) {
      ptx::load_shared_64(pair, at + static_cast<std::uint32_t>(n / 2 * 256));
      w[0] = pair[0];
      w[1] = pair[1];
      w[2] = ptx::load_shared_32(at + static_cast<std::uint32_t>((n / 2 + 1) * 256));
    } else {
      w[0] = ptx::load_shared_32(at + static_cast<std::uint32_t>(n / 2 * 256 + 4));
      ptx::load_shared_64(pair, at + static_cast<std::uint32_t>((n / 2 + 1) * 256));
      w[1] = pair[0];
      w[2] = pair[1];
    }
  } else {
    ptx::load_shared_128(w, base + static_cast<std::uint32_t>(unit * 512 + 16 * lane));
  }
}

namespace detail {

//! (x >> shift) & mask without a shift by zero, so that equal shifts are computed once.
template <int Shift>
KVCRUMB_DEVICE std::uint32_t field(std::uint32_t x, std::uint32_t mask) {
  if constexpr (Shift == 0) {
    return x & mask;
  } else {
    return (x >> Shift) & mask;
  }
}

//! Field j of a three-bit word moved to bit Target.
template <int J, int Target>
KVCRUMB_DEVICE std::uint32_t field3(std::uint32_t x) {
  return field<3 * J - Target>(x, 0x00070007u << Target);
}

//! The code that is spread over bit 15 of three words, at bit Target.
template <int Target>
KVCRUMB_DEVICE std::uint32_t scattered3(std::uint32_t const (&x)[3]) {
  return ((x[0] >> (15 - Target)) & (0x00010001u << Target)) |
         ((x[1] >> (14 - Target)) & (0x00020002u << Target)) |
         ((x[2] >> (13 - Target)) & (0x00040004u << Target));
}

}  // namespace detail

//! A operands of one field of a unit: integers times 2^(factor_log2 - 24). Field = row field + row_fields *
//! column field. Cost: one logic operation per register, shifts are shared by neighbouring fields.
template <class Layout, int Field>
KVCRUMB_DEVICE void code_operands(std::uint32_t (&a)[4], std::uint32_t const (&w)[Layout::unit_words]) {
  constexpr int bits = Layout::bits, row = Field % Layout::row_fields;
  if constexpr (bits == 3) {
    constexpr int r0 = Layout::factor_log2(row, 0), r1 = Layout::factor_log2(row, 1);
    if constexpr (Field == 0) {
      a[0] = detail::field3<0, r0>(w[0]), a[1] = detail::field3<0, r1>(w[1]);
      a[2] = detail::field3<3, r0>(w[0]), a[3] = detail::field3<3, r1>(w[1]);
    } else if constexpr (Field == 1) {
      a[0] = detail::field3<1, r0>(w[0]), a[1] = detail::field3<1, r1>(w[1]);
      a[2] = detail::field3<4, r0>(w[0]), a[3] = detail::field3<4, r1>(w[1]);
    } else if constexpr (Field == 2) {
      a[0] = detail::field3<0, r0>(w[2]), a[1] = detail::field3<1, r1>(w[2]);
      a[2] = detail::field3<3, r0>(w[2]), a[3] = detail::field3<4, r1>(w[2]);
    } else {
      a[0] = detail::field3<2, r0>(w[0]), a[1] = detail::field3<2, r1>(w[2]);
      a[2] = detail::field3<2, r0>(w[1]), a[3] = detail::scattered3<r1>(w);
    }
  } else if constexpr (bits == 8) {
    KVCRUMB_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = Field == 0 ? w[i] & 0x00FF00FFu : ptx::permute_bytes(w[i], 0u, 0x4341u);
    }
  } else {
    constexpr int target = Layout::factor_log2(row, 0);
    constexpr std::uint32_t mask = (((1u << bits) - 1u) * 0x00010001u) << target;
    KVCRUMB_UNROLL
    for (int i = 0; i < 4; ++i)
      a[i] = detail::field<bits * Field - target>(w[i], mask);
  }
}

}  // namespace kvcrumb::inline v0::warp
