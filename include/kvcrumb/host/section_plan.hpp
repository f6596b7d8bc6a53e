// SPDX-License-Identifier: Apache-2.0
//! @file section_plan: the numbers by which host kernels walk over a section in the fragment layout.
#pragma once

#include "kvcrumb/layout/fragment.hpp"

namespace kvcrumb::inline v0::host {

//! A section as the matrix of one side: rows are what attention has results for (tokens of keys, channels of
//! values), columns what it sums over. Rows and columns are numbered in *operand order*, the order of
//! fragment::param_index: 32 M + 8 t + 2 e + h for the index 32 M + 8 e + 2 t + h.
//!
//! A 64-byte line holds, of one unit (kk, pp) and one g, four 16-byte lanes t with words a = r + 2 c. After
//! the byte shuffle of docs/host.md dword d of a lane has the four columns 16 k + 2 t + {0, 1, 8, 9} of row
//! 16 p + 8 (d & 1) + g; `shift` s of S = 8 / bits selects one of the codes in each byte, and p and k follow
//! from (pp, s, d >> 1) and (kk, s, d >> 1).
struct section_plan {
  int rows = 0, columns = 0;
  int bits = 0;    //!< of the codes as kernels read them: 3-bit sections are widened to 4 bits
  int shifts = 0;  //!< codes per byte
  int p_units = 0, k_units = 0;
  int p_fields = 0, k_fields = 0;
  bool column_owned = false;    //!< parameters belong to columns and are folded into the operand
  int groups = 0;               //!< parameter vectors of a plane
  int group = 0;                //!< rows (column_owned) or columns of one group
  std::int64_t code_bytes = 0;  //!< of the stored section: where parameters begin
  std::int64_t line_bytes = 0;  //!< of the codes as kernels read them

  static section_plan of(section_spec const& s) noexcept {
    section_plan p;
    bool const key = s.which == side::key;
    p.rows = key ? s.shape.tile_tokens : s.shape.head_dim;
    p.columns = key ? s.shape.head_dim : s.shape.tile_tokens;
    p.bits = s.bits == 3 ? 4 : s.bits;
    p.shifts = 8 / p.bits;
    fragment::dealing const d = fragment::deal(s);
    p.p_fields = d.p_fields;
    p.k_fields = d.k_fields;
    p.p_units = d.p_blocks / d.p_fields;
    p.k_units = d.units / p.p_units;
    p.column_owned = key == s.per_channel;
    p.groups = s.groups();
    p.group = s.group;
    p.code_bytes = fragment::code_bytes(s);
    p.line_bytes = static_cast<std::int64_t>(d.units) * 512;
    return p;
  }

  int owners() const noexcept { return column_owned ? columns : rows; }
  //! 16-row block of a code: unit pp, shift s, upper half of the lane or not.
  int p_of(int pp, int s, int upper) const noexcept {
    return k_fields == 1 ? pp * p_fields + s + shifts * upper : pp * p_fields + s % p_fields;
  }
  //! 16-column block; may lie beyond the last one, where codes are padding.
  int k_of(int kk, int s, int upper) const noexcept {
    return k_fields == 1 ? kk : kk * k_fields + s / p_fields + shifts / p_fields * upper;
  }
  //! Columns of one unit.
  int unit_columns() const noexcept { return 16 * k_fields; }
  //! Group of rows that begins at operand-order row block (M, e): rows 32 M + 8 e ... + 7 of the section.
  int row_group(int p, int r) const noexcept { return (16 * p + 8 * r) / group; }
  int row_groups() const noexcept { return column_owned ? groups : 1; }
};

//! Columns rounded up to whole 64-byte vectors of terms.
constexpr int padded_columns(section_plan const& p) noexcept { return (p.columns + 63) / 64 * 64; }

//! Blocks of four units of columns, as many as a matrix unit multiplies at once.
constexpr int matrix_depth(section_plan const& p) noexcept { return (p.k_units + 3) / 4; }

//! The place of an index in operand order. The permutation is its own inverse.
constexpr int operand_place(int index) noexcept { return fragment::param_index(index); }

//! Which operand each code of a section is multiplied with: codes of unit pp and shift s use the set
//! of[pp * shifts + s]. Sets differ where the codes of a line lie in different column blocks or row groups.
struct operand_sets {
  static constexpr int most = 24;  //!< p_units * shifts, largest at 1 bit and 96 or 192 channels
  //! Of element d of a 16-byte lane: the column block, beyond k_fields * kk, and the row group.
  struct element {
    std::int16_t block = 0, group = 0;
    friend constexpr bool operator==(element const&, element const&) = default;
  };
  struct set {
    element elements[4];
    friend constexpr bool operator==(set const&, set const&) = default;
  };
  std::uint8_t of[most] = {};
  std::int16_t place[most][4] =
      {};  //!< of row 16 p + 8 (d & 1) of element d; row g further on has row_offset(g)
  set sets[most] = {};
  int count = 0;
  bool uniform = true;  //!< all shifts of a unit use the same set
  // For matrix units, which multiply all four elements of a lane with the same operand:
  element distinct[4 * most];  //!< the different elements of all sets
  int distinct_count = 0;
  bool single = true;                   //!< no two elements of a set differ
  std::uint8_t distinct_in[most] = {};  //!< different elements of a set
  std::uint8_t numbers[most][4] = {};   //!< their numbers in `distinct`
  std::uint8_t place_in[most][4] = {};  //!< which of them element d is

  static constexpr int row_offset(int g) noexcept { return 8 * (g >> 1) + (g & 1); }

  static operand_sets of_plan(section_plan const& p) noexcept {
    operand_sets all;
    for (int i = 0; i < p.p_units * p.shifts; ++i) {
      int const pp = i / p.shifts, s = i % p.shifts;
      set one;
      for (int d = 0; d < 4; ++d) {
        int const group = p.column_owned ? p.row_group(p.p_of(pp, s, d >> 1), d & 1) : 0;
        all.place[i][d] =
            static_cast<std::int16_t>(fragment::param_index(16 * p.p_of(pp, s, d >> 1) + 8 * (d & 1)));
        one.elements[d] = {static_cast<std::int16_t>(p.k_of(0, s, d >> 1)), static_cast<std::int16_t>(group)};
      }
      int found = 0;
      while (found < all.count && !(all.sets[found] == one))
        ++found;
      if (found == all.count) {
        all.sets[all.count++] = one;
        all.add_distinct(found);
      }
      all.of[i] = static_cast<std::uint8_t>(found);
      if (s != 0 && all.of[i] != all.of[i - 1]) all.uniform = false;
    }
    return all;
  }

 private:
  constexpr void add_distinct(int number) noexcept {
    set const& s = sets[number];
    for (int d = 0; d < 4; ++d) {
      int same = 0;
      while (!(s.elements[same] == s.elements[d]))
        ++same;
      if (same < d) {
        place_in[number][d] = place_in[number][same];
        continue;
      }
      int found = 0;
      while (found < distinct_count && !(distinct[found] == s.elements[d]))
        ++found;
      if (found == distinct_count) distinct[distinct_count++] = s.elements[d];
      place_in[number][d] = distinct_in[number];
      numbers[number][distinct_in[number]++] = static_cast<std::uint8_t>(found);
    }
    if (distinct_in[number] > 1) single = false;
  }
};

}  // namespace kvcrumb::inline v0::host
