// SPDX-License-Identifier: Apache-2.0
//! @file Vectors of 64 bytes as types of the compiler: where registers have 64 bytes, and for plain C++.
//! Included once by targets.hpp for each such target; vectors_halved.inl is for the others.

using f32x16 = float __attribute__((vector_size(64)));
using i32x16 = std::int32_t __attribute__((vector_size(64)));
using u32x16 = std::uint32_t __attribute__((vector_size(64)));
using u64x8 = std::uint64_t __attribute__((vector_size(64)));
using i16x32 = std::int16_t __attribute__((vector_size(64)));
using u16x32 = std::uint16_t __attribute__((vector_size(64)));
using u16x16 = std::uint16_t __attribute__((vector_size(32)));

//! The same bits as another vector.
template <class To, class From>
KVCRUMB_TARGET_INLINE To cast(From const& v) noexcept {
  return reinterpret_cast<To>(v);
}
//! The same numbers, fractions cut off.
template <class To, class From>
KVCRUMB_TARGET_INLINE To convert(From const& v) noexcept {
  return __builtin_convertvector(v, To);
}
template <class Vector>
KVCRUMB_TARGET_INLINE Vector load_as(void const* p) noexcept {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Vector>
KVCRUMB_TARGET_INLINE void store_as(void* p, Vector const& v) noexcept {
  std::memcpy(p, &v, sizeof v);
}
//! All elements x.
template <class Vector>
KVCRUMB_TARGET_INLINE Vector filled(std::remove_cvref_t<decltype(Vector{}[0])> x) noexcept {
  return Vector{} + x;
}

//! Sixteen bytes of a vector, for plain code: g++ 12.2 takes operations on wider vectors apart.
using u32x4 = std::uint32_t __attribute__((vector_size(16)));
KVCRUMB_TARGET_INLINE u32x4 quarter(void const* v, int i) noexcept {
  return load_as<u32x4>(static_cast<char const*>(v) + 16 * i);
}
//! Stores element i of the four vectors at words 4 i, 4 i + 1, ...
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
