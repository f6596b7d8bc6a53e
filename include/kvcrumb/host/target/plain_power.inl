// SPDX-License-Identifier: Apache-2.0
//! @file 2^x of targets without VSCALEFPS. Included once per target by targets.hpp.

//! 2^x for x <= 0, 0 below -125, NaN of a NaN; relative error about 2e-7.
KVCRUMB_TARGET_INLINE ops::f32x16 power_of_two(ops::f32x16 const& x) noexcept {
  ops::i32x16 const below = x < -125.0f, unordered = x != x;
  ops::f32x16 const clamped = ops::maximum(x, ops::f32x16{} - 125.0f);  // also of a NaN
  ops::i32x16 const whole = ops::round(clamped);
  ops::f32x16 const series = power_series(clamped - __builtin_convertvector(whole, ops::f32x16));
  ops::i32x16 const scaled = reinterpret_cast<ops::i32x16>(series) + (whole << 23);
  return reinterpret_cast<ops::f32x16>((~below & ~unordered & scaled) |
                                       (unordered & reinterpret_cast<ops::i32x16>(x)));
}
