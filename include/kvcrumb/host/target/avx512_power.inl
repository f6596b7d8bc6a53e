// SPDX-License-Identifier: Apache-2.0
//! @file 2^x by VSCALEFPS. Included once by targets.hpp.

//! 2^x for x <= 0, 0 below -125, NaN of a NaN; relative error about 2e-7.
KVCRUMB_TARGET_INLINE f32x16 power_of_two(f32x16 const& x) noexcept {
  __mmask16 const kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ);
  __m512 const whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_maskz_scalef_ps(kept, power_series(_mm512_sub_ps(x, whole)), whole);
}
