// SPDX-License-Identifier: Apache-2.0
//! @file Operations on vectors in plain C++, for targets that have nothing better. Included by targets.hpp.

struct plain_ops {
  using f32x16 = float __attribute__((vector_size(64)));
  using i32x16 = std::int32_t __attribute__((vector_size(64)));
  using u32x16 = std::uint32_t __attribute__((vector_size(64)));
  using u16x16 = std::uint16_t __attribute__((vector_size(32)));

  static KVCRUMB_TARGET_INLINE i32x16 bits(f32x16 const& x) noexcept { return reinterpret_cast<i32x16>(x); }
  static KVCRUMB_TARGET_INLINE f32x16 floats(i32x16 const& x) noexcept { return reinterpret_cast<f32x16>(x); }

  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept { return f32x16{} + x; }
  static KVCRUMB_TARGET_INLINE void prefetch(std::byte const* p) noexcept { __builtin_prefetch(p, 0, 2); }
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
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    u16x16 h;
    std::memcpy(&h, p, sizeof h);
    u32x16 const wide = __builtin_convertvector(h, u32x16);
    u32x16 const magnitude = (wide & 0x7FFFu) << 13;
    f32x16 const value = reinterpret_cast<f32x16>(magnitude) * 0x1p112f;  // exact, also for subnormal numbers
    i32x16 const special = reinterpret_cast<i32x16>(magnitude) >= 0x0F800000;
    return floats(bits(value) | (special & (reinterpret_cast<i32x16>(magnitude) | 0x7F800000)) |
                  reinterpret_cast<i32x16>((wide & 0x8000u) << 16));
  }
  static KVCRUMB_TARGET_INLINE i32x16 larger(i32x16 const& a, i32x16 const& b) noexcept {
    i32x16 const first = a > b;
    return (first & a) | (~first & b);
  }
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
  static KVCRUMB_TARGET_INLINE f32x16 spread(float const* a) noexcept {
    return f32x16{a[0], a[0], a[1], a[1], a[2], a[2], a[3], a[3],
                  a[0], a[0], a[1], a[1], a[2], a[2], a[3], a[3]};
  }
};
