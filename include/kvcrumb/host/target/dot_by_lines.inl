// SPDX-License-Identifier: Apache-2.0
//! @file Integer sums of a section by line_products. Included once by targets.hpp for each target that has
//! them.

//! Operands of one query row: for each set and k unit 64 bytes of high and 64 bytes of low terms. `terms`
//! holds for each row group the high and then the low bytes of all columns, as store_terms writes them.
inline void build_operand(section_plan const& p, operand_sets const& sets, std::int8_t const* terms,
                          std::byte* operand) noexcept {
  alignas(16) static constexpr std::int8_t padding[16] = {};
  int const padded = padded_columns(p);
  for (int number = 0; number < sets.count; ++number) {
    operand_sets::element const(&elements)[4] = sets.sets[number].elements;
    if (p.k_fields == 1 && elements[0] == elements[1] && elements[1] == elements[2] &&
        elements[2] == elements[3]) {
      std::int8_t const* high = terms + static_cast<std::int64_t>(elements[0].group) * 2 * padded;
      for (int k = 0; k < p.k_units; ++k, operand += 128, high += 16) {
        repeat_terms(operand, high);
        repeat_terms(operand + 64, high + padded);
      }
      continue;
    }
    for (int kk = 0; kk < p.k_units; ++kk, operand += 128) {
      std::int8_t const *high[4], *low[4];
      KVCRUMB_TARGET_UNROLL
      for (int d = 0; d < 4; ++d) {
        int const k = kk * p.k_fields + elements[d].block;
        bool const inside = 16 * k < p.columns;
        high[d] =
            inside ? terms + static_cast<std::int64_t>(elements[d].group) * 2 * padded + 16 * k : padding;
        low[d] = inside ? high[d] + padded : padding;
      }
      deal_terms(operand, high);
      deal_terms(operand + 64, low);
    }
  }
}

//! Sums of the lines of one g over the k units [k_begin, k_end), of all shifts. `operand` is where the k
//! units of each shift begin; `next` is fetched meanwhile, 64 bytes for each line, unless it is null.
template <int Bits, bool Levels, int Pass = 0>
KVCRUMB_TARGET_INLINE void add_lines(std::byte const* line, std::int64_t stride,
                                     std::byte const* const (&operand)[8 / Bits], int k_begin, int k_end,
                                     level_table const* levels, std::byte const* next,
                                     line_sums (&total)[8 / Bits]) noexcept {
  using products_type = line_products<Bits, Levels, Pass>;
  constexpr int shifts = 8 / Bits;
  products_type products{levels};
  std::byte const* at = line;
  std::byte const* of_shift[shifts];
  KVCRUMB_TARGET_UNROLL
  for (int s = 0; s < shifts; ++s)
    of_shift[s] = operand[s];
  for (int kk = k_begin; kk < k_end;) {
    int const stop = k_end - kk < products_type::lines ? k_end : kk + products_type::lines;
    for (; kk < stop; ++kk, at += stride) {
      products.add(at, of_shift);
      if (Pass == 0 && next != nullptr) {
        ops::prefetch(next);
        next += 64;
      }
      KVCRUMB_TARGET_UNROLL
      for (int s = 0; s < shifts; ++s)
        of_shift[s] += 128;
    }
    products.widen();
  }
  products.total(total);
  if constexpr (Pass + 1 < products_type::passes)
    add_lines<Bits, Levels, Pass + 1>(line, stride, operand, k_begin, k_end, levels, nullptr, total);
}

//! Integer sums of H query rows over the k units [k_begin, k_end): sums[h][row in operand order] = sum over
//! the columns of code * (256 high + low); of a codebook H * (256 high + low) + L * high, a level being
//! 256 H + L. `next` is fetched meanwhile, 64 bytes for each line, and `other` makes steps.
template <int Bits, bool Levels, int H>
void dot_section(section_plan const& p, operand_sets const& sets, std::byte const* codes,
                 std::byte const* const (&operands)[H], std::int32_t* const (&sums)[H], int k_begin,
                 int k_end, level_table const* levels, std::byte const* next, background& other) noexcept {
  constexpr int shifts = 8 / Bits;
  for (int h = 0; h < H; ++h)
    std::memset(sums[h], 0, static_cast<std::size_t>(p.rows) * sizeof(std::int32_t));
  std::int64_t const stride = static_cast<std::int64_t>(p.p_units) * 512;
  for (int pp = 0; pp < p.p_units; ++pp) {
    for (int g = 0; g < 8; g += 2) {
      for (int h = 0; h < H; ++h) {
        line_sums total[2][shifts];
        std::byte const* operand[shifts];
        KVCRUMB_TARGET_UNROLL
        for (int s = 0; s < shifts; ++s)
          operand[s] =
              operands[h] + (static_cast<std::int64_t>(sets.of[pp * shifts + s]) * p.k_units + k_begin) * 128;
        std::byte const* const line = codes + (pp * 512 + g * 64) + k_begin * stride;
        KVCRUMB_TARGET_UNROLL
        for (int i = 0; i < 2; ++i) {
          add_lines<Bits, Levels>(line + 64 * i, stride, operand, k_begin, k_end, levels,
                                  h == 0 ? next : nullptr, total[i]);
          if (h == 0) next += 64 * (k_end - k_begin);
        }
        KVCRUMB_TARGET_UNROLL
        for (int s = 0; s < shifts; ++s) {
          std::int16_t const* const place = sets.place[pp * shifts + s];
          std::int32_t* const rows = sums[h] + operand_sets::row_offset(g);
          add_sums(total[0][s], total[1][s], rows + place[0], rows + place[2]);
        }
      }
      other.step();
      other.step();
    }
  }
}
