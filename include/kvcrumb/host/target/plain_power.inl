// SPDX-License-Identifier: Apache-2.0
//! @file 2^x of targets without VSCALEFPS. Included once per target by targets.hpp.

//! 2^x for x <= 0, 0 below -125, NaN of a NaN; relative error about 2e-7.
KVCRUMB_TARGET_INLINE f32x16 power_of_two(f32x16 const& x) noexcept {
  f32x16 const least = ops::splat(-125.0f);
  i32x16 const below = x < least, unordered = x != x;
  f32x16 const clamped = ops::maximum(x, least);  // also of a NaN
  i32x16 const whole = ops::round(clamped);
  f32x16 const series = power_series(clamped - convert<f32x16>(whole));
  i32x16 const scaled = cast<i32x16>(series) + (whole << 23);
  return cast<f32x16>((~below & ~unordered & scaled) | (unordered & cast<i32x16>(x)));
}
