// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target avx2. Arithmetic is written as instructions: -ffast-math
//! replaces even the division of an intrinsic by an estimate (g++ 12.2). Included once by targets.hpp.

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
    __m128i const h[2] = {_mm256_cvtps_ph(ops::part(x, 0), _MM_FROUND_TO_NEAREST_INT),
                          _mm256_cvtps_ph(ops::part(x, 1), _MM_FROUND_TO_NEAREST_INT)};
    u16x16 out;
    std::memcpy(&out, h, sizeof out);
    return out;
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
    i32x16 n{};
    for (int i = 0; i < Count; ++i)
      n -= above(key, i32x16{} + steps.above[i]);
    return n;
  }
  //! Small integers: VPACKUSDW works within 128-bit lanes.
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    return joined<u16x32>(_mm256_permute4x64_epi64(_mm256_packus_epi32(part(&a, 0), part(&a, 1)), 0xD8),
                          _mm256_permute4x64_epi64(_mm256_packus_epi32(part(&b, 0), part(&b, 1)), 0xD8));
  }
};
