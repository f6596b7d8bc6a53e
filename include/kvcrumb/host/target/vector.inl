// SPDX-License-Identifier: Apache-2.0
//! @file The 64-byte vectors that the code of every target computes with; the compiler splits them where
//! registers are narrower. Included once per target by targets.hpp.

using f32x16 = float __attribute__((vector_size(64)));
using i32x16 = std::int32_t __attribute__((vector_size(64)));
using u32x16 = std::uint32_t __attribute__((vector_size(64)));
using u16x16 = std::uint16_t __attribute__((vector_size(32)));

KVCRUMB_TARGET_INLINE f32x16 load(float const* p) noexcept {
  f32x16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
KVCRUMB_TARGET_INLINE void store(float* p, f32x16 const& v) noexcept { std::memcpy(p, &v, sizeof v); }
KVCRUMB_TARGET_INLINE i32x16 load(std::int32_t const* p) noexcept {
  i32x16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
KVCRUMB_TARGET_INLINE void store(std::int32_t* p, i32x16 const& v) noexcept { std::memcpy(p, &v, sizeof v); }
KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept { return ops::splat(x); }
KVCRUMB_TARGET_INLINE f32x16 to_floats(i32x16 const& v) noexcept {
  return __builtin_convertvector(v, f32x16);
}
KVCRUMB_TARGET_INLINE i32x16 bits_of(f32x16 const& v) noexcept { return reinterpret_cast<i32x16>(v); }
KVCRUMB_TARGET_INLINE f32x16 floats_of(i32x16 const& v) noexcept { return reinterpret_cast<f32x16>(v); }

//! Where the mask is -1 a, where it is 0 b.
KVCRUMB_TARGET_INLINE f32x16 select(i32x16 const& mask, f32x16 const& a, f32x16 const& b) noexcept {
  return floats_of((mask & bits_of(a)) | (~mask & bits_of(b)));
}

//! Sixteen stored floats.
KVCRUMB_TARGET_INLINE f32x16 load(bfloat16 const* p) noexcept {
  u16x16 v;
  std::memcpy(&v, p, sizeof v);
  return reinterpret_cast<f32x16>(__builtin_convertvector(v, u32x16) << 16);
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
  u16x16 v;
  std::memcpy(&v, p, sizeof v);
  return reinterpret_cast<f32x16>(__builtin_convertvector(v, u32x16) << 16);
}
KVCRUMB_TARGET_INLINE f32x16 load_stored(std::byte const* p, float) noexcept {
  f32x16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

//! c tanh(s / c), NaN of a NaN.
KVCRUMB_TARGET_INLINE f32x16 capped(f32x16 const& s, float cap) noexcept {
  i32x16 const sign = i32x16{} + std::numeric_limits<std::int32_t>::min();
  f32x16 const x = s * splat(1.0f / cap);
  f32x16 const e = power_of_two(floats_of(bits_of(x) & ~sign) * splat(-2.0f * log2_e));
  f32x16 const y = (splat(1.0f) - e) / (splat(1.0f) + e) * splat(cap);
  return select(x == x, floats_of(bits_of(y) | (bits_of(x) & sign)), x);
}

//! Words number n of 16 lanes of a 3-bit section: pairs of words of a lane are neighbours.
KVCRUMB_TARGET_INLINE u32x16 load_words(std::byte const* section, int n, int lane) noexcept {
  u32x16 a, b;
  std::byte const* const at = section + (static_cast<std::int64_t>(n >> 1) * 32 + lane) * 8;
  std::memcpy(&a, at, sizeof a);
  std::memcpy(&b, at + sizeof a, sizeof b);
  return (n & 1) == 0
             ? __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
             : __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

//! Element i of the four vectors at words 4 i, 4 i + 1, ...
KVCRUMB_TARGET_INLINE void store_interleaved(std::byte* p, u32x16 const (&v)[4]) noexcept {
  u32x16 const ab =
      __builtin_shufflevector(v[0], v[1], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  u32x16 const AB =
      __builtin_shufflevector(v[0], v[1], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  u32x16 const cd =
      __builtin_shufflevector(v[2], v[3], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  u32x16 const CD =
      __builtin_shufflevector(v[2], v[3], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  u32x16 const out[4] = {
      __builtin_shufflevector(ab, cd, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23),
      __builtin_shufflevector(ab, cd, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31),
      __builtin_shufflevector(AB, CD, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23),
      __builtin_shufflevector(AB, CD, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31)};
  std::memcpy(p, out, sizeof out);
}
