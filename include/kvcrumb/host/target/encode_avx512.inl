// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target avx512_vnni. Arithmetic names its rounding, so that no flag
//! changes it. Included once by targets.hpp.

struct encode_ops : plain_encode_ops {
  static constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  static KVCRUMB_TARGET_INLINE __m512i raw(i32x16 const& v) noexcept { return reinterpret_cast<__m512i>(v); }
  static KVCRUMB_TARGET_INLINE __m512i raw(i16x32 const& v) noexcept { return reinterpret_cast<__m512i>(v); }
  static KVCRUMB_TARGET_INLINE __m512i raw(u16x32 const& v) noexcept { return reinterpret_cast<__m512i>(v); }

  static KVCRUMB_TARGET_INLINE f32x16 add(f32x16 const& a, f32x16 const& b) noexcept {
    return _mm512_add_round_ps(a, b, nearest);
  }
  static KVCRUMB_TARGET_INLINE f32x16 sub(f32x16 const& a, f32x16 const& b) noexcept {
    return _mm512_sub_round_ps(a, b, nearest);
  }
  static KVCRUMB_TARGET_INLINE f32x16 mul(f32x16 const& a, f32x16 const& b) noexcept {
    return _mm512_mul_round_ps(a, b, nearest);
  }
  static KVCRUMB_TARGET_INLINE f32x16 div(f32x16 const& a, f32x16 const& b) noexcept {
    return _mm512_div_round_ps(a, b, nearest);
  }
  static KVCRUMB_TARGET_INLINE f32x16 square_root(f32x16 const& a) noexcept {
    return _mm512_sqrt_round_ps(a, nearest);
  }
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    return reinterpret_cast<u16x16>(_mm512_cvtps_ph(x, nearest));
  }
  static KVCRUMB_TARGET_INLINE f32x16 widen(u16x16 const& h) noexcept {
    return _mm512_cvtph_ps(reinterpret_cast<__m256i>(h));
  }
  static KVCRUMB_TARGET_INLINE i16x32 splat(std::int16_t x) noexcept {
    return reinterpret_cast<i16x32>(_mm512_set1_epi16(x));
  }
  static KVCRUMB_TARGET_INLINE i32x16 sign_extended(u16x16 const& h) noexcept {
    return reinterpret_cast<i32x16>(_mm512_cvtepi16_epi32(reinterpret_cast<__m256i>(h)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return reinterpret_cast<i32x16>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(h)));
  }
  static KVCRUMB_TARGET_INLINE u16x16 low_halves(i32x16 const& v) noexcept {
    return reinterpret_cast<u16x16>(_mm512_cvtepi32_epi16(raw(v)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 above(i32x16 const& a, i32x16 const& b) noexcept {
    return reinterpret_cast<i32x16>(_mm512_movm_epi32(_mm512_cmpgt_epi32_mask(raw(a), raw(b))));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    return reinterpret_cast<i32x16>(_mm512_max_epi32(raw(a), raw(b)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 smaller(i32x16 const& a, i32x16 const& b) noexcept {
    return reinterpret_cast<i32x16>(_mm512_min_epi32(raw(a), raw(b)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 larger(i16x32 const& a, i16x32 const& b) noexcept {
    return reinterpret_cast<i16x32>(_mm512_max_epi16(raw(a), raw(b)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 smaller(i16x32 const& a, i16x32 const& b) noexcept {
    return reinterpret_cast<i16x32>(_mm512_min_epi16(raw(a), raw(b)));
  }
  static KVCRUMB_TARGET_INLINE u16x32 add_above(u16x32 const& sum, i16x32 const& a, i16x32 const& b,
                                                u16x32 const& weight) noexcept {
    return reinterpret_cast<u16x32>(
        _mm512_mask_add_epi16(raw(sum), _mm512_cmpgt_epi16_mask(raw(a), raw(b)), raw(sum), raw(weight)));
  }
  static KVCRUMB_TARGET_INLINE bool any(i32x16 const& mask) noexcept {
    return _mm512_movepi32_mask(raw(mask)) != 0;
  }
  static KVCRUMB_TARGET_INLINE i16x32 key(i16x32 const& v) noexcept {
    // x ^ (sign & 0x7FFF) in one instruction
    return reinterpret_cast<i16x32>(
        _mm512_ternarylogic_epi32(raw(v), _mm512_srai_epi16(raw(v), 15), _mm512_set1_epi16(0x7FFF), 0x78));
  }
  //! The same, for loops of minima and maxima: those have the port of shifts for themselves.
  static KVCRUMB_TARGET_INLINE i16x32 key_beside_extremes(i16x32 const& v) noexcept {
    __mmask32 const negative = _mm512_test_epi16_mask(raw(v), _mm512_set1_epi16(-0x8000));
    return reinterpret_cast<i16x32>(
        _mm512_mask_sub_epi16(raw(v), negative, _mm512_set1_epi16(0x7FFF), raw(v)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 key(i32x16 const& v) noexcept {
    return reinterpret_cast<i32x16>(_mm512_ternarylogic_epi32(raw(v), _mm512_srai_epi32(raw(v), 31),
                                                              _mm512_set1_epi32(0x7FFFFFFF), 0x78));
  }
  template <int Block>
  static KVCRUMB_TARGET_INLINE i32x16 line(u16x32 const& a, u16x32 const& b) noexcept {
    __m512i const index =
        _mm512_add_epi32(_mm512_setr_epi32(0, 16, 4, 20, 1, 17, 5, 21, 2, 18, 6, 22, 3, 19, 7, 23),
                         _mm512_set1_epi32(8 * Block));
    return reinterpret_cast<i32x16>(_mm512_permutex2var_epi32(raw(a), index, raw(b)));
  }
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    return reinterpret_cast<u16x32>(_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(raw(a))),
                                                       _mm512_cvtepi32_epi16(raw(b)), 1));
  }
  template <int Count>
  static KVCRUMB_TARGET_INLINE i32x16 rank(codebook_steps const& steps, i32x16 const& key) noexcept {
    __mmask16 const used = (1u << Count) - 1u;  // 3, 7 or 15 steps; the one behind them is above everything
    __m512i const table = _mm512_mask_loadu_epi32(_mm512_set1_epi32(0x7FFFFFFF), used, steps.above);
    __m512i n = _mm512_setzero_si512();
    KVCRUMB_TARGET_UNROLL
    for (int half = (Count + 1) / 2; half > 0;
         half /= 2) {  // n + half - 1 is the last step of the lower half
      __m512i const middle =
          _mm512_permutexvar_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(half - 1)), table);
      n = _mm512_mask_add_epi32(n, _mm512_cmpgt_epi32_mask(raw(key), middle), n, _mm512_set1_epi32(half));
    }
    return reinterpret_cast<i32x16>(n);
  }
  static KVCRUMB_TARGET_INLINE u16x16 lower_half(u16x32 const& v) noexcept {
    return reinterpret_cast<u16x16>(_mm512_castsi512_si256(raw(v)));
  }
  static KVCRUMB_TARGET_INLINE u16x16 upper_half(u16x32 const& v) noexcept {
    return reinterpret_cast<u16x16>(_mm512_extracti64x4_epi64(raw(v), 1));
  }
  static KVCRUMB_TARGET_INLINE u16x32 joined(u16x16 const& a, u16x16 const& b) noexcept {
    return reinterpret_cast<u16x32>(_mm512_inserti64x4(_mm512_castsi256_si512(reinterpret_cast<__m256i>(a)),
                                                       reinterpret_cast<__m256i>(b), 1));
  }
};
