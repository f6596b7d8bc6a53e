// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target avx2. Arithmetic is written as instructions: -ffast-math
//! replaces even the division of an intrinsic by an estimate (g++ 12.2). Included once by targets.hpp.

struct encode_ops {
  static KVCRUMB_TARGET_INLINE f32x16 add(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    __asm__("vaddps %2, %1, %0" : "=x"(r.low) : "x"(a.low), "x"(b.low));
    __asm__("vaddps %2, %1, %0" : "=x"(r.high) : "x"(a.high), "x"(b.high));
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 sub(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    __asm__("vsubps %2, %1, %0" : "=x"(r.low) : "x"(a.low), "x"(b.low));
    __asm__("vsubps %2, %1, %0" : "=x"(r.high) : "x"(a.high), "x"(b.high));
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 mul(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    __asm__("vmulps %2, %1, %0" : "=x"(r.low) : "x"(a.low), "x"(b.low));
    __asm__("vmulps %2, %1, %0" : "=x"(r.high) : "x"(a.high), "x"(b.high));
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 div(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    __asm__("vdivps %2, %1, %0" : "=x"(r.low) : "x"(a.low), "x"(b.low));
    __asm__("vdivps %2, %1, %0" : "=x"(r.high) : "x"(a.high), "x"(b.high));
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 square_root(f32x16 const& a) noexcept {
    f32x16 r;
    __asm__("vsqrtps %1, %0" : "=x"(r.low) : "x"(a.low));
    __asm__("vsqrtps %1, %0" : "=x"(r.high) : "x"(a.high));
    return r;
  }
  //! To binary16, nearest even; overflow gives infinity.
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    return cast<u16x16>(_mm256_set_m128i(_mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT),
                                         _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT)));
  }
  static KVCRUMB_TARGET_INLINE f32x16 widen(u16x16 const& h) noexcept {
    return {_mm256_cvtph_ps(lower(h)), _mm256_cvtph_ps(upper(h))};
  }
  static KVCRUMB_TARGET_INLINE i16x32 splat(std::int16_t x) noexcept {
    return of(_mm256_set1_epi16(x), _mm256_set1_epi16(x));
  }
  //! Patterns as integers, negative where their top bit is set, or not; and back.
  static KVCRUMB_TARGET_INLINE i32x16 sign_extended(u16x16 const& h) noexcept {
    return ops::of(_mm256_cvtepi16_epi32(lower(h)), _mm256_cvtepi16_epi32(upper(h)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return ops::of(_mm256_cvtepu16_epi32(lower(h)), _mm256_cvtepu16_epi32(upper(h)));
  }
  static KVCRUMB_TARGET_INLINE u16x16 low_halves(i32x16 const& v) noexcept { return packed(v & 0xFFFF); }
  //! -1 where a > b, else 0.
  static KVCRUMB_TARGET_INLINE i32x16 above(i32x16 const& a, i32x16 const& b) noexcept {
    return ops::of(_mm256_cmpgt_epi32(raw(a.low), raw(b.low)), _mm256_cmpgt_epi32(raw(a.high), raw(b.high)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 above(i16x32 const& a, i16x32 const& b) noexcept {
    return of(_mm256_cmpgt_epi16(raw(a.low), raw(b.low)), _mm256_cmpgt_epi16(raw(a.high), raw(b.high)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    return ops::larger(a, b);
  }
  static KVCRUMB_TARGET_INLINE i32x16 smaller(i32x16 const& a, i32x16 const& b) noexcept {
    return ops::of(_mm256_min_epi32(raw(a.low), raw(b.low)), _mm256_min_epi32(raw(a.high), raw(b.high)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 larger(i16x32 const& a, i16x32 const& b) noexcept {
    return of(_mm256_max_epi16(raw(a.low), raw(b.low)), _mm256_max_epi16(raw(a.high), raw(b.high)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 smaller(i16x32 const& a, i16x32 const& b) noexcept {
    return of(_mm256_min_epi16(raw(a.low), raw(b.low)), _mm256_min_epi16(raw(a.high), raw(b.high)));
  }
  //! sum + weight where a > b.
  static KVCRUMB_TARGET_INLINE u16x32 add_above(u16x32 const& sum, i16x32 const& a, i16x32 const& b,
                                                u16x32 const& weight) noexcept {
    return sum + (cast<u16x32>(above(a, b)) & weight);
  }
  //! Whether any element of a mask is set.
  static KVCRUMB_TARGET_INLINE bool any(i32x16 const& mask) noexcept {
    __m256i const all = raw(mask.low | mask.high);
    return _mm256_testz_si256(all, all) == 0;
  }
  //! Patterns as signed integers in the order of the values, see detail::ordered_key: x ^ (sign & 0x7FFF).
  static KVCRUMB_TARGET_INLINE i16x32 key(i16x32 const& v) noexcept {
    return of(short_key(raw(v.low)), short_key(raw(v.high)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 key_beside_extremes(i16x32 const& v) noexcept { return key(v); }
  static KVCRUMB_TARGET_INLINE i32x16 key(i32x16 const& v) noexcept {
    return ops::of(long_key(raw(v.low)), long_key(raw(v.high)));
  }
  //! Columns 16 block ... of rows g (a) and g + 8 (b) of a 16 x 16 block in the order of a line: dword 4 c +
  //! t of row half r to dword 4 t + 2 c + r.
  template <int Block>
  static KVCRUMB_TARGET_INLINE i32x16 line(u16x32 const& a, u16x32 const& b) noexcept {
    __m256i const x = raw(Block == 0 ? a.low : a.high), y = raw(Block == 0 ? b.low : b.high);
    return ops::of(_mm256_permute4x64_epi64(_mm256_unpacklo_epi32(x, y), 0xD8),
                   _mm256_permute4x64_epi64(_mm256_unpackhi_epi32(x, y), 0xD8));
  }
  //! The number of steps that each key is above, of 3, 7 or 15.
  template <int Count>
  static KVCRUMB_TARGET_INLINE i32x16 rank(codebook_steps const& steps, i32x16 const& key) noexcept {
    constexpr int first = Count == 15 ? 0 : Count == 7 ? 1 : 2;  // before it all keys are in part 0
    __m256i const begin = _mm256_set1_epi32(steps.search[first][0]);
    __m256i low = doubled(_mm256_setzero_si256(), raw(key.low), begin);  // parts
    __m256i high = doubled(_mm256_setzero_si256(), raw(key.high), begin);
    KVCRUMB_TARGET_UNROLL
    for (int l = first + 1; l < 4; ++l) {
      __m256i const middles = _mm256_load_si256(reinterpret_cast<__m256i const*>(steps.search[l]));
      low = doubled(low, raw(key.low), _mm256_permutevar8x32_epi32(middles, low));
      high = doubled(high, raw(key.high), _mm256_permutevar8x32_epi32(middles, high));
    }
    return ops::of(low, high);
  }
  //! Sixteen small integers each.
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    return {packed(a), packed(b)};
  }
  //! Elements 0 to 15, elements 16 to 31, and both together.
  static KVCRUMB_TARGET_INLINE u16x16 lower_half(u16x32 const& v) noexcept { return v.low; }
  static KVCRUMB_TARGET_INLINE u16x16 upper_half(u16x32 const& v) noexcept { return v.high; }
  static KVCRUMB_TARGET_INLINE u16x32 joined(u16x16 const& a, u16x16 const& b) noexcept { return {a, b}; }

 private:
  template <class Part>
  static KVCRUMB_TARGET_INLINE __m256i raw(Part const& v) noexcept {
    return cast<__m256i>(v);
  }
  static KVCRUMB_TARGET_INLINE i16x32 of(__m256i low, __m256i high) noexcept {
    return {cast<i16x32::half>(low), cast<i16x32::half>(high)};
  }
  static KVCRUMB_TARGET_INLINE __m128i lower(u16x16 const& h) noexcept {
    return _mm256_castsi256_si128(raw(h));
  }
  static KVCRUMB_TARGET_INLINE __m128i upper(u16x16 const& h) noexcept {
    return _mm256_extracti128_si256(raw(h), 1);
  }
  //! Numbers below 2^16; VPACKUSDW works within 128-bit lanes.
  static KVCRUMB_TARGET_INLINE u16x16 packed(i32x16 const& v) noexcept {
    return cast<u16x16>(_mm256_permute4x64_epi64(_mm256_packus_epi32(raw(v.low), raw(v.high)), 0xD8));
  }
  //! Twice the part, one more where the key is above its middle.
  static KVCRUMB_TARGET_INLINE __m256i doubled(__m256i part, __m256i key, __m256i middle) noexcept {
    return _mm256_sub_epi32(_mm256_add_epi32(part, part), _mm256_cmpgt_epi32(key, middle));
  }
  static KVCRUMB_TARGET_INLINE __m256i short_key(__m256i x) noexcept {
    return _mm256_xor_si256(x, _mm256_srli_epi16(_mm256_srai_epi16(x, 15), 1));
  }
  static KVCRUMB_TARGET_INLINE __m256i long_key(__m256i x) noexcept {
    return _mm256_xor_si256(x, _mm256_srli_epi32(_mm256_srai_epi32(x, 31), 1));
  }
};
