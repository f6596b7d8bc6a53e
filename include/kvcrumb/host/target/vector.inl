// SPDX-License-Identifier: Apache-2.0
//! @file Sixteen numbers at a time, on what vectors_whole.inl or vectors_halved.inl and the ops of the target
//! have. Included once per target by targets.hpp.

KVCRUMB_TARGET_INLINE f32x16 load(float const* p) noexcept { return load_as<f32x16>(p); }
KVCRUMB_TARGET_INLINE void store(float* p, f32x16 const& v) noexcept { store_as(p, v); }
KVCRUMB_TARGET_INLINE i32x16 load(std::int32_t const* p) noexcept { return load_as<i32x16>(p); }
KVCRUMB_TARGET_INLINE void store(std::int32_t* p, i32x16 const& v) noexcept { store_as(p, v); }
KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept { return ops::splat(x); }
KVCRUMB_TARGET_INLINE f32x16 to_floats(i32x16 const& v) noexcept { return convert<f32x16>(v); }
KVCRUMB_TARGET_INLINE i32x16 bits_of(f32x16 const& v) noexcept { return cast<i32x16>(v); }
KVCRUMB_TARGET_INLINE f32x16 floats_of(i32x16 const& v) noexcept { return cast<f32x16>(v); }

//! Where the mask is -1 a, where it is 0 b.
KVCRUMB_TARGET_INLINE f32x16 select(i32x16 const& mask, f32x16 const& a, f32x16 const& b) noexcept {
  return floats_of((mask & bits_of(a)) | (~mask & bits_of(b)));
}

//! Sixteen stored floats.
KVCRUMB_TARGET_INLINE f32x16 load(bfloat16 const* p) noexcept {
  return cast<f32x16>(ops::zero_extended(p) << 16);
}
KVCRUMB_TARGET_INLINE f32x16 load(float8_e4m3 const* p) noexcept {
  float v[16];
  for (int i = 0; i < 16; ++i)
    v[i] = to_float(p[i]);
  return load(v);
}
KVCRUMB_TARGET_INLINE f32x16 load(float16 const* p) noexcept { return ops::from_half(p); }
KVCRUMB_TARGET_INLINE f32x16 load_stored(std::byte const* p, float16) noexcept { return ops::from_half(p); }
KVCRUMB_TARGET_INLINE f32x16 load_stored(std::byte const* p, bfloat16) noexcept {
  return cast<f32x16>(ops::zero_extended(p) << 16);
}
KVCRUMB_TARGET_INLINE f32x16 load_stored(std::byte const* p, float) noexcept { return load_as<f32x16>(p); }

//! c tanh(s / c), NaN of a NaN.
KVCRUMB_TARGET_INLINE f32x16 capped(f32x16 const& s, float cap) noexcept {
  i32x16 const sign = filled<i32x16>(std::numeric_limits<std::int32_t>::min());
  f32x16 const x = s * splat(1.0f / cap);
  f32x16 const e = power_of_two(floats_of(bits_of(x) & ~sign) * splat(-2.0f * log2_e));
  f32x16 const y = (splat(1.0f) - e) / (splat(1.0f) + e) * splat(cap);
  return select(x == x, floats_of(bits_of(y) | (bits_of(x) & sign)), x);
}

//! Words number n of 16 lanes of a 3-bit section: pairs of words of a lane are neighbours.
KVCRUMB_TARGET_INLINE u32x16 load_words(std::byte const* section, int n, int lane) noexcept {
  std::byte const* const at = section + (static_cast<std::int64_t>(n >> 1) * 32 + lane) * 8;
  auto const a = load_as<i32x16>(at), b = load_as<i32x16>(at + sizeof a);
  return cast<u32x16>((n & 1) == 0 ? ops::evens(a, b) : ops::odds(a, b));
}
