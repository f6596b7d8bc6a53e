// SPDX-License-Identifier: Apache-2.0
//! @file The target avx2: operations and integer sums by VPMADDUBSW. Included once by targets.hpp.

struct ops {
  static KVCRUMB_TARGET_INLINE void prefetch(void const* p) noexcept { _mm_prefetch(p, _MM_HINT_T1); }
  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
  }
  static KVCRUMB_TARGET_INLINE f32x16 multiply_add(f32x16 const& a, f32x16 const& b,
                                                   f32x16 const& c) noexcept {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static KVCRUMB_TARGET_INLINE f32x16 maximum(f32x16 const& a, f32x16 const& b) noexcept {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE i32x16 round(f32x16 const& x) noexcept {
    return of(_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(void const* p) noexcept {
    __m128i const* const at = static_cast<__m128i const*>(p);
    return of(_mm256_cvtepu16_epi32(_mm_loadu_si128(at)), _mm256_cvtepu16_epi32(_mm_loadu_si128(at + 1)));
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    __m128i const* const at = static_cast<__m128i const*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    return of(_mm256_max_epi32(raw(a.low), raw(b.low)), _mm256_max_epi32(raw(a.high), raw(b.high)));
  }
  //! x where value is not 0, else 0.
  static KVCRUMB_TARGET_INLINE f32x16 unless_zero(f32x16 const& value, f32x16 const& x) noexcept {
    __m256 const zero = _mm256_setzero_ps();
    return {_mm256_and_ps(_mm256_cmp_ps(value.low, zero, _CMP_NEQ_UQ), x.low),
            _mm256_and_ps(_mm256_cmp_ps(value.high, zero, _CMP_NEQ_UQ), x.high)};
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept {
    __m256 const a = _mm256_add_ps(v.low, v.high);
    __m128 const b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 const c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
  //! The largest; NaN only if all are.
  static KVCRUMB_TARGET_INLINE float largest(f32x16 const& v) noexcept {
    __m256 const a = larger_number(v.low, v.high);
    __m256 const b = larger_number(a, _mm256_permute2f128_ps(a, a, 1));
    __m256 const c = larger_number(b, _mm256_permute_ps(b, 0x4E));
    return _mm256_cvtss_f32(larger_number(c, _mm256_permute_ps(c, 0xB1)));
  }
  static KVCRUMB_TARGET_INLINE std::int32_t largest(i32x16 const& v) noexcept {
    __m256i const a = _mm256_max_epi32(raw(v.low), raw(v.high));
    __m128i const b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i const c = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(c, _mm_shuffle_epi32(c, 0xB1)));
  }
  //! table[index[i]] of sixteen floats.
  static KVCRUMB_TARGET_INLINE f32x16 look_up(float const* table, i32x16 const& index) noexcept {
    __m256 const lower = _mm256_loadu_ps(table), upper = _mm256_loadu_ps(table + 8);
    return {look_up(lower, upper, raw(index.low)), look_up(lower, upper, raw(index.high))};
  }
  //! Four floats a[e] to the places 8 t + 2 e + h of sixteen.
  static KVCRUMB_TARGET_INLINE f32x16 spread(float const* a) noexcept {
    __m256i const index = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    __m256 const v = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), index);
    return {v, v};
  }
  //! Elements 0, 2, 4, ... of a, then of b; and elements 1, 3, 5, ...
  static KVCRUMB_TARGET_INLINE i32x16 evens(i32x16 const& a, i32x16 const& b) noexcept {
    return of(every_second<0x88>(a), every_second<0x88>(b));
  }
  static KVCRUMB_TARGET_INLINE i32x16 odds(i32x16 const& a, i32x16 const& b) noexcept {
    return of(every_second<0xDD>(a), every_second<0xDD>(b));
  }

  static KVCRUMB_TARGET_INLINE __m256i raw(i32x16::half const& v) noexcept { return cast<__m256i>(v); }
  static KVCRUMB_TARGET_INLINE __m256i raw(u32x16::half const& v) noexcept { return cast<__m256i>(v); }
  static KVCRUMB_TARGET_INLINE i32x16 of(__m256i low, __m256i high) noexcept {
    return {cast<i32x16::half>(low), cast<i32x16::half>(high)};
  }

 private:
  //! a where b is NaN, b where a is.
  static KVCRUMB_TARGET_INLINE __m256 larger_number(__m256 a, __m256 b) noexcept {
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(b, b, _CMP_UNORD_Q));
  }
  static KVCRUMB_TARGET_INLINE __m256 look_up(__m256 lower, __m256 upper, __m256i index) noexcept {
    // Bit 3 of the index becomes the sign of what VBLENDVPS looks at.
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, index), _mm256_permutevar8x32_ps(upper, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  template <int Which>
  static KVCRUMB_TARGET_INLINE __m256i every_second(i32x16 const& v) noexcept {
    __m256 const both = _mm256_shuffle_ps(cast<__m256>(v.low), cast<__m256>(v.high), Which);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8);
  }
};

//! Stores element i of the four vectors at words 4 i, 4 i + 1, ...
KVCRUMB_TARGET_INLINE void store_interleaved(std::byte* p, u32x16 const (&v)[4]) noexcept {
  KVCRUMB_TARGET_UNROLL
  for (int i = 0; i < 2; ++i, p += 128) {
    __m256i a[4];
    KVCRUMB_TARGET_UNROLL
    for (int j = 0; j < 4; ++j)
      a[j] = ops::raw(i == 0 ? v[j].low : v[j].high);
    __m256i const ab = _mm256_unpacklo_epi32(a[0], a[1]), AB = _mm256_unpackhi_epi32(a[0], a[1]);
    __m256i const cd = _mm256_unpacklo_epi32(a[2], a[3]), CD = _mm256_unpackhi_epi32(a[2], a[3]);
    __m256i const out[4] = {_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd),
                            _mm256_unpacklo_epi64(AB, CD), _mm256_unpackhi_epi64(AB, CD)};
    __m256i* const to = reinterpret_cast<__m256i*>(p);  // elements 0 to 3 are in the lower lanes
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(out[0], out[1], 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(out[2], out[3], 0x20));
    _mm256_storeu_si256(to + 2, _mm256_permute2x128_si256(out[0], out[1], 0x31));
    _mm256_storeu_si256(to + 3, _mm256_permute2x128_si256(out[2], out[3], 0x31));
  }
}

//! The low and high terms of 64 values v = 256 high + low as bytes: those of column block k at 16 k.
KVCRUMB_TARGET_INLINE void store_terms(i32x16 const (&v)[4], std::int8_t* high, std::int8_t* low) noexcept {
  // Packing works within lanes of 16 bytes. Two vectors, columns 0 to 31 in operand order, so come out as the
  // fours 0, 2, 4, 6 and 1, 3, 5, 7: the two column blocks.
  __m256i const half = _mm256_set1_epi16(128), byte = _mm256_set1_epi16(255);
  KVCRUMB_TARGET_UNROLL
  for (int i = 0; i < 2; ++i) {
    __m256i const a = _mm256_packs_epi32(ops::raw(v[2 * i].low), ops::raw(v[2 * i].high));
    __m256i const b = _mm256_packs_epi32(ops::raw(v[2 * i + 1].low), ops::raw(v[2 * i + 1].high));
    __m256i const upper = _mm256_packs_epi16(_mm256_srai_epi16(_mm256_add_epi16(a, half), 8),
                                             _mm256_srai_epi16(_mm256_add_epi16(b, half), 8));
    // v - 256 high is the last byte of v, read as a signed one.
    __m256i const lower = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(high) + i, upper);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(low) + i, lower);
  }
}
//! 64 bytes of an operand: element d of lane t are four terms of a column block, those at from[d] + 4 t.
KVCRUMB_TARGET_INLINE void deal_terms(std::byte* at, std::int8_t const* const (&from)[4]) noexcept {
  __m128i x[4];
  KVCRUMB_TARGET_UNROLL
  for (int d = 0; d < 4; ++d)
    x[d] = _mm_load_si128(reinterpret_cast<__m128i const*>(from[d]));
  __m128i const ab = _mm_unpacklo_epi32(x[0], x[1]), AB = _mm_unpackhi_epi32(x[0], x[1]);
  __m128i const cd = _mm_unpacklo_epi32(x[2], x[3]), CD = _mm_unpackhi_epi32(x[2], x[3]);
  __m128i* const to = reinterpret_cast<__m128i*>(at);
  _mm_store_si128(to, _mm_unpacklo_epi64(ab, cd));
  _mm_store_si128(to + 1, _mm_unpackhi_epi64(ab, cd));
  _mm_store_si128(to + 2, _mm_unpacklo_epi64(AB, CD));
  _mm_store_si128(to + 3, _mm_unpackhi_epi64(AB, CD));
}
//! The same with all of `from` equal.
KVCRUMB_TARGET_INLINE void repeat_terms(std::byte* at, std::int8_t const* from) noexcept {
  __m128i const x = _mm_load_si128(reinterpret_cast<__m128i const*>(from));
  __m128i* const to = reinterpret_cast<__m128i*>(at);
  _mm_store_si128(to, _mm_shuffle_epi32(x, 0x00));
  _mm_store_si128(to + 1, _mm_shuffle_epi32(x, 0x55));
  _mm_store_si128(to + 2, _mm_shuffle_epi32(x, 0xAA));
  _mm_store_si128(to + 3, _mm_shuffle_epi32(x, 0xFF));
}

//! Field s of half a line: bytes of the columns 16 k + 2 t + {0, 1, 8, 9} in each 4-byte element.
template <int Bits>
KVCRUMB_TARGET_INLINE __m256i codes_of(std::byte const* line, int part, int s) noexcept {
  __m256i const order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
  __m256i const x =
      _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(line) + part), order);
  return _mm256_and_si256(s == 0 ? x : _mm256_srli_epi16(x, s * Bits), _mm256_set1_epi8((1 << Bits) - 1));
}
//! sum += codes (unsigned bytes) * operand (signed bytes), pairs of neighbours in 16 bits.
KVCRUMB_TARGET_INLINE void add_products(__m256i& sum, __m256i codes, __m256i operand) noexcept {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, operand));
#if !defined(__clang__)  // g++ 12.2 adds in another order, and runs out of registers
  __asm__("" : "+x"(sum));
#endif
}

//! Products of lines with one query row, of all codes of a shift together. They are summed in 16 bits, and
//! `widen` has to take those sums over after `lines` lines. There are 16 registers: lines are read in several
//! passes where the sums of all fields would not leave enough of them.
template <int Bits, bool Levels, int Pass>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  static constexpr int passes = Bits == 1 ? 2 : 1;
  static constexpr int fields = Bits == 8 ? 2 : shifts / passes;  // VPMADDUBSW saturates: 8 bits by halves
  static constexpr int first = Pass * fields;
  static constexpr int field_bits = Bits == 8 ? 4 : Bits;
  static constexpr int lines = 32767 / (((1 << field_bits) - 1) * 128 * 4);  // two pairs of a line
  __m256i narrow[2 * fields], wide[fields];

  KVCRUMB_TARGET_INLINE explicit line_products(level_table const*) noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2 * fields; ++i)
      narrow[i] = _mm256_setzero_si256();
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s)
      wide[s] = _mm256_setzero_si256();
  }
  KVCRUMB_TARGET_INLINE void add(std::byte const* line, std::byte const* const (&operand)[shifts]) noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2 * fields; ++i) {
      int const part = i / fields, s = i % fields;
      __m256i const c = codes_of<field_bits>(line, part, first + s);
      __m256i const* const at = reinterpret_cast<__m256i const*>(operand[Bits == 8 ? 0 : first + s]) + part;
      add_products(narrow[2 * s], c, _mm256_load_si256(at));
      add_products(narrow[2 * s + 1], c, _mm256_load_si256(at + 2));
    }
  }
  KVCRUMB_TARGET_INLINE void widen() noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      __m256i const high = _mm256_madd_epi16(narrow[2 * s], _mm256_set1_epi16(256));
      __m256i const low = _mm256_madd_epi16(narrow[2 * s + 1], _mm256_set1_epi16(1));
      wide[s] = _mm256_add_epi32(wide[s], _mm256_add_epi32(high, low));
      narrow[2 * s] = narrow[2 * s + 1] = _mm256_setzero_si256();
    }
  }
  //! sums[s]: of the codes of shift s in the 4-byte elements 0 to 3 of every lane.
  KVCRUMB_TARGET_INLINE void total(__m128i (&sums)[shifts]) const noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < (Bits == 8 ? 1 : fields); ++s) {
      __m256i const all =
          Bits == 8 ? _mm256_add_epi32(wide[0], _mm256_slli_epi32(wide[1], field_bits)) : wide[s];
      sums[first + s] = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    }
  }
};

//! Of codes that stand for levels 256 H + L. H and L have 8 bits, with which VPMADDUBSW saturates: they go by
//! halves, each from its own table.
template <int Bits, int Pass>
struct line_products<Bits, true, Pass> {
  static constexpr int shifts = 8 / Bits;
  static constexpr int passes = 1;
  static constexpr int lines = 32767 / (15 * 128 * 2 * 4);  // two products of two pairs of a line
  __m256i lower_high, upper_high, lower_low, upper_low;     // tables: halves of H, halves of L
  __m256i narrow[4 * shifts], wide[shifts];

  KVCRUMB_TARGET_INLINE explicit line_products(level_table const* levels) noexcept
      : lower_high{table(levels->high, 0)},
        upper_high{table(levels->high, 4)},
        lower_low{table(levels->low, 0)},
        upper_low{table(levels->low, 4)} {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4 * shifts; ++i)
      narrow[i] = _mm256_setzero_si256();
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < shifts; ++s)
      wide[s] = _mm256_setzero_si256();
  }
  KVCRUMB_TARGET_INLINE void add(std::byte const* line, std::byte const* const (&operand)[shifts]) noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2 * shifts; ++i) {
      int const part = i / shifts, s = i % shifts;
      __m256i const c = codes_of<Bits>(line, part, s);
      __m256i const* const at = reinterpret_cast<__m256i const*>(operand[s]) + part;
      __m256i const high = _mm256_load_si256(at), low = _mm256_load_si256(at + 2);
      __m256i const lower = _mm256_shuffle_epi8(lower_high, c), upper = _mm256_shuffle_epi8(upper_high, c);
      add_products(narrow[4 * s], lower, low);
      add_products(narrow[4 * s], _mm256_shuffle_epi8(lower_low, c), high);
      add_products(narrow[4 * s + 1], upper, low);
      add_products(narrow[4 * s + 1], _mm256_shuffle_epi8(upper_low, c), high);
      add_products(narrow[4 * s + 2], lower, high);
      add_products(narrow[4 * s + 3], upper, high);
    }
  }
  KVCRUMB_TARGET_INLINE void widen() noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4 * shifts; ++i) {  // 1, 16, 256, 4096: what the halves are worth
      __m256i const worth = _mm256_set1_epi16(static_cast<short>(1 << (4 * (i % 4))));
      wide[i / 4] = _mm256_add_epi32(wide[i / 4], _mm256_madd_epi16(narrow[i], worth));
      narrow[i] = _mm256_setzero_si256();
    }
  }
  KVCRUMB_TARGET_INLINE void total(__m128i (&sums)[shifts]) const noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < shifts; ++s)
      sums[s] = _mm_add_epi32(_mm256_castsi256_si128(wide[s]), _mm256_extracti128_si256(wide[s], 1));
  }

 private:
  static KVCRUMB_TARGET_INLINE __m256i table(std::uint8_t const* levels, int shift) noexcept {
    __m256i const whole =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels)));
    return _mm256_and_si256(_mm256_srli_epi16(whole, shift), _mm256_set1_epi8(15));
  }
};

using line_sums = __m128i;
//! at[2 d + h] += element d of the sums of g + h, d = 0 and 1; the other elements go to `upper`.
KVCRUMB_TARGET_INLINE void add_sums(line_sums const& a, line_sums const& b, std::int32_t* at,
                                    std::int32_t* upper) noexcept {
  auto* const first = reinterpret_cast<__m128i*>(at);
  auto* const second = reinterpret_cast<__m128i*>(upper);
  _mm_storeu_si128(first, _mm_add_epi32(_mm_loadu_si128(first), _mm_unpacklo_epi32(a, b)));
  _mm_storeu_si128(second, _mm_add_epi32(_mm_loadu_si128(second), _mm_unpackhi_epi32(a, b)));
}
