// SPDX-License-Identifier: Apache-2.0
//! @file Integer sums of a section by line_products. Included once by targets.hpp for each target that has
//! them.

KVCRUMB_TARGET_INLINE void store_terms(i32x16 const (&v)[4], std::int8_t* high, std::int8_t* low) noexcept {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 16; ++j) {
      int const upper = (v[i][j] + 128) >> 8;
      high[16 * i + j] = static_cast<std::int8_t>(upper);
      low[16 * i + j] = static_cast<std::int8_t>(v[i][j] - 256 * upper);
    }
  }
}

//! Operands of one query row: for each set and k unit 64 bytes of high and 64 bytes of low terms. `terms`
//! holds for each row group the high and then the low bytes of all columns.
inline void build_operand(section_plan const& p, operand_sets const& sets, std::int8_t const* terms,
                          std::byte* operand) noexcept {
  int const padded = padded_columns(p);
  for (int number = 0; number < sets.count; ++number) {
    for (int kk = 0; kk < p.k_units; ++kk, operand += 128) {
      for (int d = 0; d < 4; ++d) {
        operand_sets::element const& e = sets.sets[number].elements[d];
        int const k = kk * p.k_fields + e.block;
        bool const padding = 16 * k >= p.columns;
        std::int8_t const* const source = terms + static_cast<std::int64_t>(e.group) * 2 * padded +
                                          (padding ? 0 : 32 * (k >> 1) + 4 * (k & 1));
        for (int t = 0; t < 4; ++t) {
          for (int term = 0; term < 2; ++term) {
            std::byte* const at = operand + 64 * term + 16 * t + 4 * d;
            if (padding) {
              std::memset(at, 0, 4);
            } else {
              std::memcpy(at, source + term * padded + 8 * t, 4);
            }
          }
        }
      }
    }
  }
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
    for (int g = 0; g < 8; ++g) {
      for (int h = 0; h < H; ++h) {
        line_products<Bits, Levels> products;
        std::byte const* operand[shifts];
        KVCRUMB_TARGET_UNROLL
        for (int s = 0; s < shifts; ++s)
          operand[s] =
              operands[h] + (static_cast<std::int64_t>(sets.of[pp * shifts + s]) * p.k_units + k_begin) * 128;
        std::byte const* line = codes + (pp * 512 + g * 64) + k_begin * stride;
        for (int kk = k_begin; kk < k_end; ++kk, line += stride) {
          products.add(line, operand, levels);
          if (h == 0) {
            ops::prefetch(next);
            next += 64;
          }
          KVCRUMB_TARGET_UNROLL
          for (int s = 0; s < shifts; ++s)
            operand[s] += 128;
        }
        products.finish();
        for (int s = 0; s < shifts; ++s) {
          for (int d = 0; d < 4; ++d)
            sums[h][sets.place[pp * shifts + s][d] + operand_sets::row_offset(g)] += products.sums[s][d];
        }
      }
      other.step();
    }
  }
}
