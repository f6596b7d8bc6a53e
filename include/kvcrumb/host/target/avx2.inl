// SPDX-License-Identifier: Apache-2.0
//! @file The target avx2: operations and integer sums by VPMADDUBSW. Included once by targets.hpp.

struct ops : plain_ops {
  static KVCRUMB_TARGET_INLINE __m256 part(f32x16 const& v, int i) noexcept {
    __m256 out;
    std::memcpy(&out, reinterpret_cast<char const*>(&v) + 32 * i, sizeof out);
    return out;
  }
  static KVCRUMB_TARGET_INLINE f32x16 whole(__m256 a, __m256 b) noexcept {
    f32x16 v;
    std::memcpy(&v, &a, sizeof a);
    std::memcpy(reinterpret_cast<char*>(&v) + 32, &b, sizeof b);
    return v;
  }
  //! g++ 12.2 fills a vector that is wider than a register number by number.
  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept {
    return whole(_mm256_set1_ps(x), _mm256_set1_ps(x));
  }
  static KVCRUMB_TARGET_INLINE f32x16 multiply_add(f32x16 const& a, f32x16 const& b,
                                                   f32x16 const& c) noexcept {
    return whole(_mm256_fmadd_ps(part(a, 0), part(b, 0), part(c, 0)),
                 _mm256_fmadd_ps(part(a, 1), part(b, 1), part(c, 1)));
  }
  static KVCRUMB_TARGET_INLINE f32x16 maximum(f32x16 const& a, f32x16 const& b) noexcept {
    return whole(_mm256_max_ps(part(a, 0), part(b, 0)), _mm256_max_ps(part(a, 1), part(b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 round(f32x16 const& x) noexcept {
    return bits(whole(_mm256_castsi256_ps(_mm256_cvtps_epi32(part(x, 0))),
                      _mm256_castsi256_ps(_mm256_cvtps_epi32(part(x, 1)))));
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    __m128i const* const at = static_cast<__m128i const*>(p);
    return whole(_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1)));
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept {
    __m256 const a = _mm256_add_ps(part(v, 0), part(v, 1));
    __m128 const b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 const c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
  }
};

//! Products of one line with one query row: sums[s][d] += codes of shift s in 4-byte element d of every lane.
//! 16-bit sums of pairs are widened before they can overflow.
template <int Bits, bool Levels>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  static constexpr int fields = Bits == 8 ? 2 : shifts;  // VPMADDUBSW saturates: 8-bit codes go by halves
  static constexpr int field_bits = Bits == 8 ? 4 : Bits;
  static constexpr int terms = Levels ? 3 : 2;
  static constexpr int lines =
      Levels ? 1 : 32767 / (((1 << field_bits) - 1) * 128 * 4);  // until they are widened
  std::int32_t sums[shifts][4] = {};
  __m256i narrow[fields][terms], wide[fields][terms];
  int pending = 0;

  KVCRUMB_TARGET_INLINE line_products() noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      KVCRUMB_TARGET_UNROLL
      for (int i = 0; i < terms; ++i)
        narrow[s][i] = wide[s][i] = _mm256_setzero_si256();
    }
  }
  KVCRUMB_TARGET_INLINE void add(std::byte const* line, std::byte const* const (&operand)[shifts],
                                 level_table const* levels) noexcept {
    __m256i const order =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15));
    KVCRUMB_TARGET_UNROLL
    for (int part = 0; part < 2; ++part) {
      __m256i const x =
          _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(line + 32 * part)), order);
      KVCRUMB_TARGET_UNROLL
      for (int s = 0; s < fields; ++s) {
        __m256i c = _mm256_and_si256(s == 0 ? x : _mm256_srli_epi16(x, s * field_bits),
                                     _mm256_set1_epi8((1 << field_bits) - 1));
        __m256i c_low = c;
        if constexpr (Levels) {
          c_low = _mm256_shuffle_epi8(table(levels->low), c);
          c = _mm256_shuffle_epi8(table(levels->high), c);
        }
        __m256i const* const at = reinterpret_cast<__m256i const*>(operand[Bits == 8 ? 0 : s] + 32 * part);
        __m256i const high = _mm256_load_si256(at), low = _mm256_load_si256(at + 2);
        accumulate(s, 0, c, high);
        accumulate(s, 1, c, low);
        if constexpr (Levels) accumulate(s, 2, c_low, high);
      }
    }
    if (!Levels && ++pending == lines) widen();
  }
  KVCRUMB_TARGET_INLINE void finish() noexcept {
    if (!Levels) widen();
    std::int32_t totals[fields][4];
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      __m256i total = _mm256_add_epi32(_mm256_slli_epi32(wide[s][0], 8), wide[s][1]);
      if constexpr (Levels) total = _mm256_add_epi32(total, wide[s][2]);
      __m128i const both = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(totals[s]), both);
    }
    for (int d = 0; d < 4; ++d) {
      if constexpr (Bits == 8) {
        sums[0][d] = totals[0][d] + 16 * totals[1][d];
      } else {
        for (int s = 0; s < shifts; ++s)
          sums[s][d] = totals[s][d];
      }
    }
  }

 private:
  static KVCRUMB_TARGET_INLINE __m256i table(std::uint8_t const* levels) noexcept {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels)));
  }
  //! Levels have 8 bits, with which VPMADDUBSW saturates: they go by halves.
  KVCRUMB_TARGET_INLINE void accumulate(int s, int i, __m256i codes, __m256i operand) noexcept {
    if constexpr (Levels) {
      __m256i const nibble = _mm256_set1_epi8(15);
      __m256i const upper = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
      __m256i const lower_pairs = _mm256_maddubs_epi16(_mm256_and_si256(codes, nibble), operand);
      __m256i const upper_pairs = _mm256_maddubs_epi16(upper, operand);
      wide[s][i] = _mm256_add_epi32(wide[s][i], _mm256_madd_epi16(lower_pairs, _mm256_set1_epi16(1)));
      wide[s][i] = _mm256_add_epi32(wide[s][i], _mm256_madd_epi16(upper_pairs, _mm256_set1_epi16(16)));
    } else {
      narrow[s][i] = _mm256_add_epi16(narrow[s][i], _mm256_maddubs_epi16(codes, operand));
    }
  }
  KVCRUMB_TARGET_INLINE void widen() noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      KVCRUMB_TARGET_UNROLL
      for (int i = 0; i < terms; ++i) {
        wide[s][i] = _mm256_add_epi32(wide[s][i], _mm256_madd_epi16(narrow[s][i], _mm256_set1_epi16(1)));
        narrow[s][i] = _mm256_setzero_si256();
      }
    }
    pending = 0;
  }
};
