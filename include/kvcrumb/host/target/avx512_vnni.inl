// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the target avx512_vnni. Included once by targets.hpp.

struct ops {
  static KVCRUMB_TARGET_INLINE f32x16 multiply_add(f32x16 const& a, f32x16 const& b,
                                                   f32x16 const& c) noexcept {
    return _mm512_fmadd_ps(a, b, c);
  }
  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept { return _mm512_set1_ps(x); }
  static KVCRUMB_TARGET_INLINE void prefetch(void const* p) noexcept { _mm_prefetch(p, _MM_HINT_T1); }
  static KVCRUMB_TARGET_INLINE f32x16 maximum(f32x16 const& a, f32x16 const& b) noexcept {
    return _mm512_max_ps(a, b);
  }
  static KVCRUMB_TARGET_INLINE i32x16 round(f32x16 const& x) noexcept {
    return reinterpret_cast<i32x16>(_mm512_cvtps_epi32(x));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(void const* p) noexcept {
    return reinterpret_cast<i32x16>(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<__m256i const*>(p))));
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<__m256i const*>(p)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    return reinterpret_cast<i32x16>(
        _mm512_max_epi32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
  }
  //! x where value is not 0, else 0.
  static KVCRUMB_TARGET_INLINE f32x16 unless_zero(f32x16 const& value, f32x16 const& x) noexcept {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_NEQ_UQ), x);
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept { return _mm512_reduce_add_ps(v); }
  static KVCRUMB_TARGET_INLINE float largest(f32x16 const& v) noexcept { return _mm512_reduce_max_ps(v); }
  static KVCRUMB_TARGET_INLINE std::int32_t largest(i32x16 const& v) noexcept {
    return _mm512_reduce_max_epi32(reinterpret_cast<__m512i>(v));
  }
  //! table[index[i]] of sixteen floats.
  static KVCRUMB_TARGET_INLINE f32x16 look_up(float const* table, i32x16 const& index) noexcept {
    return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), _mm512_loadu_ps(table));
  }
  //! Four floats a[e] to the places 8 t + 2 e + h of sixteen.
  static KVCRUMB_TARGET_INLINE f32x16 spread(float const* a) noexcept {
    __m512i const index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3);
    return _mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_loadu_ps(a)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 evens(i32x16 const& a, i32x16 const& b) noexcept {
    __m512i const index = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return reinterpret_cast<i32x16>(
        _mm512_permutex2var_epi32(reinterpret_cast<__m512i>(a), index, reinterpret_cast<__m512i>(b)));
  }
  static KVCRUMB_TARGET_INLINE i32x16 odds(i32x16 const& a, i32x16 const& b) noexcept {
    __m512i const index = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return reinterpret_cast<i32x16>(
        _mm512_permutex2var_epi32(reinterpret_cast<__m512i>(a), index, reinterpret_cast<__m512i>(b)));
  }
};
