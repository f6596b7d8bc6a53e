// SPDX-License-Identifier: Apache-2.0
//! @file Sums of a section in binary32, without the split of the operand into bytes. Included once per
//! target.

//! Operands in binary32: for each set, upper half, k unit and half h the factors of the words (t, a) of a
//! line.
inline void build_exact_operand(section_plan const& p, operand_sets const& sets, float const* folded,
                                float* operand) noexcept {
  int const padded = padded_columns(p);
  for (int number = 0; number < sets.count; ++number) {
    for (int upper = 0; upper < 2; ++upper) {
      for (int kk = 0; kk < p.k_units; ++kk) {
        for (int h = 0; h < 2; ++h, operand += 16) {
          for (int i = 0; i < 16; ++i) {
            int const t = i / 4, r = i & 1, c = i >> 1 & 1;
            operand_sets::element const& e = sets.sets[number].elements[r + 2 * upper];
            int const k = kk * p.k_fields + e.block;
            int const place = 32 * (k >> 1) + 8 * t + 4 * (k & 1) + 2 * c + h;
            operand[i] =
                16 * k < p.columns ? folded[static_cast<std::int64_t>(e.group) * padded + place] : 0.0f;
          }
        }
      }
    }
  }
}

//! sums[row in operand order] = sum over the columns of unit(code) * operand; `units` holds the 16 levels,
//! without their base.
template <int Bits, bool Levels>
void sum_exact(section_plan const& p, operand_sets const& sets, std::byte const* codes, float const* operand,
               float* sums, int k_begin, int k_end, float const* units) noexcept {
  constexpr int shifts = 8 / Bits, fields = 2 * shifts;
  std::memset(sums, 0, static_cast<std::size_t>(p.rows) * sizeof(float));
  std::int64_t const stride = static_cast<std::int64_t>(p.p_units) * 512;
  for (int pp = 0; pp < p.p_units; ++pp) {
    for (int g = 0; g < 8; ++g) {
      f32x16 total[fields];
      KVCRUMB_TARGET_UNROLL
      for (int f = 0; f < fields; ++f)
        total[f] = f32x16{};
      std::byte const* line = codes + (pp * 512 + g * 64) + k_begin * stride;
      for (int kk = k_begin; kk < k_end; ++kk, line += stride) {
        auto const words = load_as<u32x16>(line);
        KVCRUMB_TARGET_UNROLL
        for (int f = 0; f < fields; ++f) {
          std::int64_t const set = sets.of[pp * shifts + f % shifts];
          float const* const at = operand + (((set * 2 + f / shifts) * p.k_units + kk) * 2) * 16;
          KVCRUMB_TARGET_UNROLL
          for (int h = 0; h < 2; ++h) {
            auto const code =
                cast<i32x16>((words >> static_cast<unsigned>(16 * h + Bits * f)) & ((1u << Bits) - 1u));
            f32x16 const unit = Levels ? ops::look_up(units, code) : to_floats(code);
            total[f] = ops::multiply_add(unit, load(at + 16 * h), total[f]);
          }
        }
      }
      for (int f = 0; f < fields; ++f) {
        float part[16];
        store(part, total[f]);
        for (int r = 0; r < 2; ++r) {
          float sum = 0.0f;
          for (int t = 0; t < 4; ++t)
            sum += part[4 * t + r] + part[4 * t + r + 2];
          sums[sets.place[pp * shifts + f % shifts][r + 2 * (f / shifts)] + operand_sets::row_offset(g)] +=
              sum;
        }
      }
    }
  }
}
