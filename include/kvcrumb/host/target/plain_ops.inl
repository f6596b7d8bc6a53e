// SPDX-License-Identifier: Apache-2.0
//! @file Operations on vectors in plain C++, for targets that have nothing better. Included by targets.hpp
//! after vectors_whole.inl.

struct plain_ops {
  static KVCRUMB_TARGET_INLINE i32x16 bits(f32x16 const& x) noexcept { return cast<i32x16>(x); }
  static KVCRUMB_TARGET_INLINE f32x16 floats(i32x16 const& x) noexcept { return cast<f32x16>(x); }

  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept { return f32x16{} + x; }
  static KVCRUMB_TARGET_INLINE void prefetch(void const* p) noexcept { __builtin_prefetch(p, 0, 2); }
  static KVCRUMB_TARGET_INLINE f32x16 multiply_add(f32x16 const& a, f32x16 const& b,
                                                   f32x16 const& c) noexcept {
    return a * b + c;
  }
  //! The larger one, b where one is NaN.
  static KVCRUMB_TARGET_INLINE f32x16 maximum(f32x16 const& a, f32x16 const& b) noexcept {
    i32x16 const first = a > b;
    return floats((first & bits(a)) | (~first & bits(b)));
  }
  //! To nearest, ties to even; |x| < 2^22.
  static KVCRUMB_TARGET_INLINE i32x16 round(f32x16 const& x) noexcept {
    f32x16 const shifted = x + 12582912.0f;  // 1.5 * 2^23: the last bit of the sum is worth 1
    return bits(shifted) - 0x4B400000;
  }
  //! Sixteen patterns of two bytes as integers.
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(void const* p) noexcept {
    return convert<i32x16>(load_as<u16x16>(p));
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    i32x16 const wide = zero_extended(p);
    i32x16 const magnitude = (wide & 0x7FFF) << 13;
    f32x16 const value = floats(magnitude) * 0x1p112f;  // exact, also for subnormal numbers
    i32x16 const special = magnitude >= 0x0F800000;
    return floats(bits(value) | (special & (magnitude | 0x7F800000)) | ((wide & 0x8000) << 16));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    i32x16 const first = a > b;
    return (first & a) | (~first & b);
  }
  //! x where value is not 0, else 0.
  static KVCRUMB_TARGET_INLINE f32x16 unless_zero(f32x16 const& value, f32x16 const& x) noexcept {
    i32x16 const zero = value == 0.0f;
    return floats(~zero & bits(x));
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept {
    float total[8];
    for (int i = 0; i < 8; ++i)
      total[i] = v[i] + v[i + 8];
    return ((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7]));
  }
  //! The largest; NaN only if all are.
  static KVCRUMB_TARGET_INLINE float largest(f32x16 const& v) noexcept {
    float top = v[0];
    for (int i = 1; i < 16; ++i)
      top = v[i] > top || top != top ? v[i] : top;
    return top;
  }
  static KVCRUMB_TARGET_INLINE std::int32_t largest(i32x16 const& v) noexcept {
    std::int32_t top = v[0];
    for (int i = 1; i < 16; ++i)
      top = v[i] > top ? v[i] : top;
    return top;
  }
  //! table[index[i]] of sixteen floats.
  static KVCRUMB_TARGET_INLINE f32x16 look_up(float const* table, i32x16 const& index) noexcept {
    f32x16 v;
    for (int i = 0; i < 16; ++i)
      v[i] = table[index[i]];
    return v;
  }
  //! Four floats a[e] to the places 8 t + 2 e + h of sixteen.
  static KVCRUMB_TARGET_INLINE f32x16 spread(float const* a) noexcept {
    return f32x16{a[0], a[0], a[1], a[1], a[2], a[2], a[3], a[3],
                  a[0], a[0], a[1], a[1], a[2], a[2], a[3], a[3]};
  }
  //! Elements 0, 2, 4, ... of a, then of b. By quarters: g++ 12.2 takes wider vectors apart.
  static KVCRUMB_TARGET_INLINE i32x16 evens(i32x16 const& a, i32x16 const& b) noexcept {
    u32x4 part[4];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      void const* const from = i < 2 ? &a : &b;
      part[i] =
          __builtin_shufflevector(quarter(from, 2 * (i & 1)), quarter(from, 2 * (i & 1) + 1), 0, 2, 4, 6);
    }
    return load_as<i32x16>(part);
  }
  //! Elements 1, 3, 5, ... of a, then of b.
  static KVCRUMB_TARGET_INLINE i32x16 odds(i32x16 const& a, i32x16 const& b) noexcept {
    u32x4 part[4];
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      void const* const from = i < 2 ? &a : &b;
      part[i] =
          __builtin_shufflevector(quarter(from, 2 * (i & 1)), quarter(from, 2 * (i & 1) + 1), 1, 3, 5, 7);
    }
    return load_as<i32x16>(part);
  }
};
