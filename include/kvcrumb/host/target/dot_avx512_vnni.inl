// SPDX-License-Identifier: Apache-2.0
//! @file Integer sums of a section by VPDPBUSD. Included once by targets.hpp.

//! accumulator += codes (unsigned bytes) * operand (signed bytes), four neighbours each.
KVCRUMB_TARGET_INLINE void multiply_bytes(__m512i& accumulator, __m512i codes, __m512i operand) noexcept {
#if defined(__clang__)
  accumulator = _mm512_dpbusd_epi32(accumulator, codes, operand);
#else  // g++ 12.2 copies and spills the accumulators around the intrinsic
  __asm__("vpdpbusd %2, %1, %0" : "+v"(accumulator) : "v"(codes), "v"(operand));
#endif
}

//! All 16-bit elements. (Not the intrinsic: without optimization it is a macro for constants.)
KVCRUMB_TARGET_INLINE __m512i shifted_right(__m512i const& x, int bits) noexcept {
  return reinterpret_cast<__m512i>(reinterpret_cast<u16x32>(x) >> static_cast<std::uint16_t>(bits));
}

//! Sums over the four 16-byte lanes of four vectors: lane i of the result belongs to v[i].
KVCRUMB_TARGET_INLINE __m512i sum_lanes(__m512i const* v) noexcept {
  __m512i const ab =
      _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x44), _mm512_shuffle_i32x4(v[0], v[1], 0xEE));
  __m512i const cd =
      _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x44), _mm512_shuffle_i32x4(v[2], v[3], 0xEE));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xDD));
}

//! Bytes of the columns 16 k + 2 t + {0, 1, 8, 9} in each 32-bit element; see section_plan.
KVCRUMB_TARGET_INLINE __m512i byte_order() noexcept {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
}

//! The low and high terms of 64 values v = 256 high + low as bytes, in the order of VPACKSS: 4-byte element 4
//! L + j holds the values 16 j + 4 L ... + 3.
KVCRUMB_TARGET_INLINE void store_terms(i32x16 const (&v)[4], std::int8_t* high, std::int8_t* low) noexcept {
  __m512i const a = _mm512_packs_epi32(reinterpret_cast<__m512i>(v[0]), reinterpret_cast<__m512i>(v[1]));
  __m512i const b = _mm512_packs_epi32(reinterpret_cast<__m512i>(v[2]), reinterpret_cast<__m512i>(v[3]));
  __m512i const half = _mm512_set1_epi16(128), byte = _mm512_set1_epi16(255);
  _mm512_store_si512(high, _mm512_packs_epi16(_mm512_srai_epi16(_mm512_add_epi16(a, half), 8),
                                              _mm512_srai_epi16(_mm512_add_epi16(b, half), 8)));
  // v - 256 high is the last byte of v, read as a signed one.
  _mm512_store_si512(low, _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte)));
}

//! Operands of one query row: for each set and k unit 64 bytes of high and 64 bytes of low terms. `terms`
//! holds for each row group the high and then the low bytes of all columns, as store_terms writes them.
KVCRUMB_TARGET_INLINE void build_operand(section_plan const& p, operand_sets const& sets,
                                         std::int8_t const* terms, std::byte* operand) noexcept {
  // Lane t of the operand of column block k needs the 4-byte element D = 8 (k >> 1) + 2 t + (k & 1) of the
  // terms, which is number 4 (D % 4) + D / 4 % 4 of the vector D / 16.
  __m512i const even = _mm512_setr_epi32(0, 0, 0, 0, 8, 8, 8, 8, 1, 1, 1, 1, 9, 9, 9, 9);
  int const padded = padded_columns(p);
  for (int number = 0; number < sets.count; ++number) {
    operand_sets::set const& set = sets.sets[number];
    std::byte* at = operand + static_cast<std::int64_t>(number) * p.k_units * 128;
    if (set.elements[0] == set.elements[1] && set.elements[1] == set.elements[2] &&
        set.elements[2] == set.elements[3] && p.k_fields == 1) {
      std::int8_t const* const source = terms + static_cast<std::int64_t>(set.elements[0].group) * 2 * padded;
      for (int k = 0; k < p.k_units; ++k, at += 128) {
        __m512i const index = _mm512_add_epi32(even, _mm512_set1_epi32(4 * (k & 1) + (k & 2)));
        _mm512_store_si512(at, _mm512_permutexvar_epi32(index, _mm512_load_si512(source + (k >> 2) * 64)));
        _mm512_store_si512(
            at + 64, _mm512_permutexvar_epi32(index, _mm512_load_si512(source + padded + (k >> 2) * 64)));
      }
      continue;
    }
    for (int kk = 0; kk < p.k_units; ++kk, at += 128) {
      __m512i high = _mm512_setzero_si512(), low = high;
      for (int d = 0; d < 4; ++d) {
        int const k = kk * p.k_fields + set.elements[d].block;
        if (16 * k >= p.columns) continue;  // padding
        std::int8_t const* const source =
            terms + static_cast<std::int64_t>(set.elements[d].group) * 2 * padded + (k >> 2) * 64;
        __m512i const index = _mm512_add_epi32(even, _mm512_set1_epi32(4 * (k & 1) + (k & 2)));
        __mmask16 const here = static_cast<__mmask16>(0x1111 << d);
        high = _mm512_mask_permutexvar_epi32(high, here, index, _mm512_load_si512(source));
        low = _mm512_mask_permutexvar_epi32(low, here, index, _mm512_load_si512(source + padded));
      }
      _mm512_store_si512(at, high);
      _mm512_store_si512(at + 64, low);
    }
  }
}

//! Stores the sums of one unit and half of g in operand order; lane i of row[s] belongs to g = 4 half + i and
//! its element d to row half d & 1 and upper d >> 1. Where a line holds several column blocks their sums are
//! added.
template <int Shifts>
KVCRUMB_TARGET_INLINE void store_rows(section_plan const& p, int pp, int half, __m512i* row,
                                      std::int32_t* sums) noexcept {
  // Place 8 t' + 2 e + h takes lane 2 t' + h, element (e & 1) + 2 upper, of the block p = 2 M + (e >> 1).
  __m512i const lower = _mm512_setr_epi32(0, 4, 1, 5, 16, 20, 17, 21, 8, 12, 9, 13, 24, 28, 25, 29);
  __m512i const upper = _mm512_setr_epi32(2, 6, 3, 7, 18, 22, 19, 23, 10, 14, 11, 15, 26, 30, 27, 31);
  __m512i const mixed = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  std::int32_t* const out = sums + 16 * pp * p.p_fields + 16 * half;
  if (p.k_fields == 1) {
    KVCRUMB_TARGET_UNROLL
    for (int pair = 0; pair < Shifts; ++pair) {
      int const s = 2 * pair % Shifts;
      __m512i const from = Shifts == 1 ? mixed : 2 * pair >= Shifts ? upper : lower;
      _mm512_storeu_si512(out + 32 * pair,
                          _mm512_permutex2var_epi32(row[s], from, row[Shifts == 1 ? s : s + 1]));
    }
    return;
  }
  for (int s = p.p_fields; s < Shifts; ++s)
    row[s % p.p_fields] = _mm512_add_epi32(row[s % p.p_fields], row[s]);
  for (int s = 0; s < p.p_fields; ++s)
    row[s] = _mm512_add_epi32(row[s], _mm512_shuffle_epi32(row[s], _MM_PERM_BADC));
  for (int s = 0; s < p.p_fields; s += 2)
    _mm512_storeu_si512(out + 16 * s, _mm512_permutex2var_epi32(row[s], lower, row[Shifts == 1 ? s : s + 1]));
}

//! Integer sums of H query rows over the k units [k_begin, k_end): sums[h][row in operand order] = sum over
//! the columns of code * (256 high + low); of a codebook H * (256 high + low) + L * high, a level being
//! 256 H + L. `next` is fetched meanwhile, 64 bytes for each line, and `other` makes steps.
template <int Bits, bool Levels, bool Uniform, int H>
void dot_section_of(section_plan const& p, operand_sets const& sets, std::byte const* codes,
                    std::byte const* const (&operands)[H], std::int32_t* const (&sums)[H], int k_begin,
                    int k_end, level_table const* levels, std::byte const* next, background& other) noexcept {
  constexpr int shifts = 8 / Bits, terms = Levels ? 3 : 2;
  constexpr int together =
      shifts * H >= 4 ? 1 : 4 / (shifts * H);  // values of g that keep the multipliers busy
  __m512i const order = byte_order();
  __m512i high_level = _mm512_setzero_si512(), low_level = high_level;
  if constexpr (Levels) {
    high_level = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels->high)));
    low_level = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels->low)));
  }
  std::int64_t const stride = static_cast<std::int64_t>(p.p_units) * 512;
  for (int pp = 0; pp < p.p_units; ++pp) {
    std::int64_t set_at[shifts];
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < shifts; ++s)
      set_at[s] = static_cast<std::int64_t>(sets.of[pp * shifts + s]) * p.k_units * 128;
    for (int half = 0; half < 2; ++half) {
      __m512i part[H][shifts][4];
      KVCRUMB_TARGET_UNROLL
      for (int g = 0; g < 4; g += together) {
        // One flat array and one flat loop over (shift, row): g++ 12.2 keeps deeper nests in memory.
        __m512i a[together * shifts * H * terms];
        KVCRUMB_TARGET_UNROLL
        for (int i = 0; i < together * shifts * H * terms; ++i)
          a[i] = _mm512_setzero_si512();
        std::byte const* line = codes + (pp * 512 + (4 * half + g) * 64) + k_begin * stride;
        for (int kk = k_begin; kk < k_end; ++kk, line += stride) {
          __m512i high_0[H], low_0[H];
          KVCRUMB_TARGET_UNROLL
          for (int h = 0; Uniform && h < H; ++h) {
            high_0[h] = _mm512_load_si512(operands[h] + set_at[0] + kk * 128);
            low_0[h] = _mm512_load_si512(operands[h] + set_at[0] + kk * 128 + 64);
          }
          KVCRUMB_TARGET_UNROLL
          for (int i = 0; i < together; ++i) {
            __m512i const x = _mm512_shuffle_epi8(_mm512_loadu_si512(line + 64 * i), order);
            ops::prefetch(next);
            next += 64;
            __m512i c = x, c_low = x;
            KVCRUMB_TARGET_UNROLL
            for (int j = 0; j < shifts * H; ++j) {
              int const s = j / H, h = j % H;
              if (h == 0) {
                if constexpr (Levels) {
                  c = _mm512_and_si512(s == 0 ? x : shifted_right(x, s * Bits),
                                       _mm512_set1_epi8((1 << Bits) - 1));
                  c_low = _mm512_shuffle_epi8(low_level, c);
                  c = _mm512_shuffle_epi8(high_level, c);
                } else if (Uniform && s + 1 == shifts) {
                  c = x;  // with the codes below it, whose sums are taken away at the end
                } else {
                  c = _mm512_and_si512(x,
                                       _mm512_set1_epi8(static_cast<char>(((1 << Bits) - 1) << (s * Bits))));
                }
              }
              __m512i const high =
                  Uniform ? high_0[h] : _mm512_load_si512(operands[h] + set_at[s] + kk * 128);
              __m512i const low =
                  Uniform ? low_0[h] : _mm512_load_si512(operands[h] + set_at[s] + kk * 128 + 64);
              int const at = (i * shifts * H + j) * terms;
              multiply_bytes(a[at], c, high);
              multiply_bytes(a[at + 1], c, low);
              if constexpr (Levels) multiply_bytes(a[at + 2], c_low, high);
            }
          }
        }
        KVCRUMB_TARGET_UNROLL
        for (int i = 0; i < together * shifts * H; ++i) {
          __m512i total = _mm512_add_epi32(_mm512_slli_epi32(a[i * terms], 8), a[i * terms + 1]);
          if constexpr (Levels) total = _mm512_add_epi32(total, a[i * terms + 2]);
          part[i % H][i / H % shifts][g + i / (shifts * H)] = total;
        }
        other.step();
      }
      KVCRUMB_TARGET_UNROLL
      for (int h = 0; h < H; ++h) {
        __m512i row[shifts];  // lane: g, element d
        __m512i below = _mm512_setzero_si512();
        KVCRUMB_TARGET_UNROLL
        for (int s = 0; s < shifts; ++s) {
          row[s] = sum_lanes(part[h][s]);
          if (!Uniform || Levels) continue;
          if (s + 1 == shifts) row[s] = _mm512_sub_epi32(row[s], below);
          below = _mm512_add_epi32(below, row[s]);
        }
        KVCRUMB_TARGET_UNROLL
        for (int s = 1; s < shifts; ++s)
          if (!Levels) row[s] = reinterpret_cast<__m512i>(reinterpret_cast<i32x16>(row[s]) >> (s * Bits));
        store_rows<shifts>(p, pp, half, row, sums[h]);
      }
    }
  }
}

template <int Bits, bool Levels, int H>
KVCRUMB_TARGET_INLINE void dot_section(section_plan const& p, operand_sets const& sets,
                                       std::byte const* codes, std::byte const* const (&operands)[H],
                                       std::int32_t* const (&sums)[H], int k_begin, int k_end,
                                       level_table const* levels, std::byte const* next,
                                       background& other) noexcept {
  constexpr int accumulators = 8 / Bits * H * (Levels ? 3 : 2);
  if constexpr (H > 1 && accumulators > 24) {  // there are 32 registers, and codes and operands need some
    for (int h = 0; h < H; ++h) {
      std::byte const* const operand[1] = {operands[h]};
      std::int32_t* const sum[1] = {sums[h]};
      dot_section<Bits, Levels, 1>(p, sets, codes, operand, sum, k_begin, k_end, levels, next, other);
    }
  } else if (sets.uniform) {
    dot_section_of<Bits, Levels, true, H>(p, sets, codes, operands, sums, k_begin, k_end, levels, next,
                                          other);
  } else {
    dot_section_of<Bits, Levels, false, H>(p, sets, codes, operands, sums, k_begin, k_end, levels, next,
                                           other);
  }
}
