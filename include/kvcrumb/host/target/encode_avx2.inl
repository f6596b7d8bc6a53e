// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target avx2. Arithmetic is written as instructions: -ffast-math
//! replaces even the division of an intrinsic by an estimate (g++ 12.2). Nothing is stored by quarters:
//! halves that are loaded from such would wait until the stores have left the processor. Included once by
//! targets.hpp.

struct encode_ops : plain_encode_ops {
  static KVCRUMB_TARGET_INLINE __m256i part(void const* v, int i) noexcept {
    return _mm256_loadu_si256(static_cast<__m256i const*>(v) + i);
  }
  template <class Vector>
  static KVCRUMB_TARGET_INLINE Vector joined(__m256i a, __m256i b) noexcept {
    Vector v;
    std::memcpy(&v, &a, sizeof a);
    std::memcpy(reinterpret_cast<char*>(&v) + 32, &b, sizeof b);
    return v;
  }
  static KVCRUMB_TARGET_INLINE i16x32 splat(std::int16_t x) noexcept {
    return joined<i16x32>(_mm256_set1_epi16(x), _mm256_set1_epi16(x));
  }
  static KVCRUMB_TARGET_INLINE f32x16 add(f32x16 const& a, f32x16 const& b) noexcept {
    __m256 r[2];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2; ++i)
      __asm__("vaddps %2, %1, %0" : "=x"(r[i]) : "x"(ops::part(a, i)), "x"(ops::part(b, i)));
    return ops::whole(r[0], r[1]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 sub(f32x16 const& a, f32x16 const& b) noexcept {
    __m256 r[2];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2; ++i)
      __asm__("vsubps %2, %1, %0" : "=x"(r[i]) : "x"(ops::part(a, i)), "x"(ops::part(b, i)));
    return ops::whole(r[0], r[1]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 mul(f32x16 const& a, f32x16 const& b) noexcept {
    __m256 r[2];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2; ++i)
      __asm__("vmulps %2, %1, %0" : "=x"(r[i]) : "x"(ops::part(a, i)), "x"(ops::part(b, i)));
    return ops::whole(r[0], r[1]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 div(f32x16 const& a, f32x16 const& b) noexcept {
    __m256 r[2];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2; ++i)
      __asm__("vdivps %2, %1, %0" : "=x"(r[i]) : "x"(ops::part(a, i)), "x"(ops::part(b, i)));
    return ops::whole(r[0], r[1]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 square_root(f32x16 const& a) noexcept {
    __m256 r[2];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 2; ++i)
      __asm__("vsqrtps %1, %0" : "=x"(r[i]) : "x"(ops::part(a, i)));
    return ops::whole(r[0], r[1]);
  }
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    return reinterpret_cast<u16x16>(
        _mm256_set_m128i(_mm256_cvtps_ph(ops::part(x, 1), _MM_FROUND_TO_NEAREST_INT),
                         _mm256_cvtps_ph(ops::part(x, 0), _MM_FROUND_TO_NEAREST_INT)));
  }
  static KVCRUMB_TARGET_INLINE f32x16 widen(u16x16 const& h) noexcept {
    return ops::whole(_mm256_cvtph_ps(quarter_of(h, 0)), _mm256_cvtph_ps(quarter_of(h, 1)));
  }
  static KVCRUMB_TARGET_INLINE __m128i quarter_of(u16x16 const& h, int i) noexcept {
    return _mm_loadu_si128(reinterpret_cast<__m128i const*>(&h) + i);
  }
  static KVCRUMB_TARGET_INLINE i32x16 sign_extended(u16x16 const& h) noexcept {
    return joined<i32x16>(_mm256_cvtepi16_epi32(quarter_of(h, 0)), _mm256_cvtepi16_epi32(quarter_of(h, 1)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return joined<i32x16>(_mm256_cvtepu16_epi32(quarter_of(h, 0)), _mm256_cvtepu16_epi32(quarter_of(h, 1)));
  }
  static KVCRUMB_TARGET_INLINE u16x16 low_halves(i32x16 const& v) noexcept {
    __m256i const low = _mm256_set1_epi32(0xFFFF);
    return reinterpret_cast<u16x16>(
        packed(_mm256_and_si256(part(&v, 0), low), _mm256_and_si256(part(&v, 1), low)));
  }
  //! Numbers below 2^16; VPACKUSDW works within 128-bit lanes.
  static KVCRUMB_TARGET_INLINE __m256i packed(__m256i a, __m256i b) noexcept {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
  }
  static KVCRUMB_TARGET_INLINE i16x32 key(i16x32 const& v) noexcept {
    return joined<i16x32>(short_key(part(&v, 0)), short_key(part(&v, 1)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 key_beside_extremes(i16x32 const& v) noexcept { return key(v); }
  static KVCRUMB_TARGET_INLINE __m256i short_key(__m256i x) noexcept {  // x ^ (sign & 0x7FFF)
    return _mm256_xor_si256(x, _mm256_srli_epi16(_mm256_srai_epi16(x, 15), 1));
  }
  static KVCRUMB_TARGET_INLINE i32x16 key(i32x16 const& v) noexcept {
    return joined<i32x16>(long_key(part(&v, 0)), long_key(part(&v, 1)));
  }
  static KVCRUMB_TARGET_INLINE __m256i long_key(__m256i x) noexcept {
    return _mm256_xor_si256(x, _mm256_srli_epi32(_mm256_srai_epi32(x, 31), 1));
  }
  static KVCRUMB_TARGET_INLINE i32x16 evens(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<i32x16>(every_second<0x88>(a), every_second<0x88>(b));
  }
  static KVCRUMB_TARGET_INLINE i32x16 odds(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<i32x16>(every_second<0xDD>(a), every_second<0xDD>(b));
  }
  template <int Which>
  static KVCRUMB_TARGET_INLINE __m256i every_second(i32x16 const& v) noexcept {
    __m256 const low = _mm256_castsi256_ps(part(&v, 0)), high = _mm256_castsi256_ps(part(&v, 1));
    return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(low, high, Which)), 0xD8);
  }
  template <int Block>
  static KVCRUMB_TARGET_INLINE i32x16 line(u16x32 const& a, u16x32 const& b) noexcept {
    __m256i const x = part(&a, Block), y = part(&b, Block);
    return joined<i32x16>(_mm256_permute4x64_epi64(_mm256_unpacklo_epi32(x, y), 0xD8),
                          _mm256_permute4x64_epi64(_mm256_unpackhi_epi32(x, y), 0xD8));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<i32x16>(_mm256_max_epi32(part(&a, 0), part(&b, 0)),
                          _mm256_max_epi32(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 smaller(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<i32x16>(_mm256_min_epi32(part(&a, 0), part(&b, 0)),
                          _mm256_min_epi32(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 larger(i16x32 const& a, i16x32 const& b) noexcept {
    return joined<i16x32>(_mm256_max_epi16(part(&a, 0), part(&b, 0)),
                          _mm256_max_epi16(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 smaller(i16x32 const& a, i16x32 const& b) noexcept {
    return joined<i16x32>(_mm256_min_epi16(part(&a, 0), part(&b, 0)),
                          _mm256_min_epi16(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 above(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<i32x16>(_mm256_cmpgt_epi32(part(&a, 0), part(&b, 0)),
                          _mm256_cmpgt_epi32(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE i16x32 above(i16x32 const& a, i16x32 const& b) noexcept {
    return joined<i16x32>(_mm256_cmpgt_epi16(part(&a, 0), part(&b, 0)),
                          _mm256_cmpgt_epi16(part(&a, 1), part(&b, 1)));
  }
  static KVCRUMB_TARGET_INLINE u16x32 add_above(u16x32 const& sum, i16x32 const& a, i16x32 const& b,
                                                u16x32 const& weight) noexcept {
    return sum + (reinterpret_cast<u16x32>(above(a, b)) & weight);
  }
  template <int Count>
  static KVCRUMB_TARGET_INLINE i32x16 rank(codebook_steps const& steps, i32x16 const& key) noexcept {
    __m256i n[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    __m256i const x[2] = {part(&key, 0), part(&key, 1)};
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < Count; ++i) {
      __m256i const step = _mm256_set1_epi32(steps.above[i]);
      n[0] = _mm256_sub_epi32(n[0], _mm256_cmpgt_epi32(x[0], step));
      n[1] = _mm256_sub_epi32(n[1], _mm256_cmpgt_epi32(x[1], step));
    }
    return joined<i32x16>(n[0], n[1]);
  }
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<u16x32>(packed(part(&a, 0), part(&a, 1)), packed(part(&b, 0), part(&b, 1)));
  }
};
