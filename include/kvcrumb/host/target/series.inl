// SPDX-License-Identifier: Apache-2.0
//! @file The series of 2^x near 0. Included once per target by targets.hpp, after its ops.

//! 2^x for |x| <= 0.5 by its Taylor series (coefficients ln(2)^k / k!); relative error about 2e-7.
KVCRUMB_TARGET_INLINE f32x16 power_series(f32x16 const& x) noexcept {
  constexpr float factors[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f,
                               2.4022651e-1f, 6.9314718e-1f, 1.0f};
  f32x16 p = ops::splat(1.5403530e-4f);
  KVCRUMB_TARGET_UNROLL
  for (int i = 0; i < 6; ++i)
    p = ops::multiply_add(p, x, ops::splat(factors[i]));
  return p;
}
