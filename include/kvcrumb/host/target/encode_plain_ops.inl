// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder in plain C++. Every arithmetic step is one IEEE rounding, whatever the
//! flags. Included once per target by targets.hpp, after vector.inl.

using i16x16 = std::int16_t __attribute__((vector_size(32)));
using i16x8 = std::int16_t __attribute__((vector_size(16)));
using i32x4 = std::int32_t __attribute__((vector_size(16)));

struct plain_encode_ops {
  static KVCRUMB_TARGET_INLINE f32x16 add(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
      r[i] = add_rn(a[i], b[i]);
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 sub(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
      r[i] = sub_rn(a[i], b[i]);
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 mul(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
      r[i] = mul_rn(a[i], b[i]);
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 div(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
      r[i] = div_rn(a[i], b[i]);
    return r;
  }
  static KVCRUMB_TARGET_INLINE f32x16 square_root(f32x16 const& a) noexcept {
    f32x16 r;
    for (int i = 0; i < 16; ++i)
      r[i] = sqrt_rn(a[i]);
    return r;
  }
  //! To binary16, nearest even; overflow gives infinity.
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    u16x16 h;
    for (int i = 0; i < 16; ++i)
      h[i] = from_float<float16>(x[i]).bits;
    return h;
  }
  static KVCRUMB_TARGET_INLINE f32x16 widen(u16x16 const& h) noexcept { return ops::from_half(&h); }
  static KVCRUMB_TARGET_INLINE i16x32 splat(std::int16_t x) noexcept { return i16x32{} + x; }
  //! Patterns as integers, negative where their top bit is set, or not; and back.
  static KVCRUMB_TARGET_INLINE i32x16 sign_extended(u16x16 const& h) noexcept {
    return __builtin_convertvector(reinterpret_cast<i16x16 const&>(h), i32x16);
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return __builtin_convertvector(h, i32x16);
  }
  static KVCRUMB_TARGET_INLINE u16x16 low_halves(i32x16 const& v) noexcept {
    return __builtin_convertvector(v & 0xFFFF, u16x16);
  }
  //! -1 where a > b, else 0; by quarters, because g++ 12.2 takes comparisons of wider vectors apart.
  template <class Vector>
  static KVCRUMB_TARGET_INLINE Vector above(Vector const& a, Vector const& b) noexcept {
    using part = std::conditional_t<std::is_same_v<Vector, i16x32>, i16x8, i32x4>;
    Vector v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      part x, y;
      std::memcpy(&x, reinterpret_cast<char const*>(&a) + 16 * i, sizeof x);
      std::memcpy(&y, reinterpret_cast<char const*>(&b) + 16 * i, sizeof y);
      x = x > y;
      std::memcpy(reinterpret_cast<char*>(&v) + 16 * i, &x, sizeof x);
    }
    return v;
  }
  template <class Vector>
  static KVCRUMB_TARGET_INLINE Vector larger(Vector const& a, Vector const& b) noexcept {
    Vector const first = above(a, b);
    return (first & a) | (~first & b);
  }
  template <class Vector>
  static KVCRUMB_TARGET_INLINE Vector smaller(Vector const& a, Vector const& b) noexcept {
    Vector const first = above(a, b);
    return (first & b) | (~first & a);
  }
  //! sum + weight where a > b.
  static KVCRUMB_TARGET_INLINE u16x32 add_above(u16x32 const& sum, i16x32 const& a, i16x32 const& b,
                                                u16x32 const& weight) noexcept {
    return sum + (reinterpret_cast<u16x32>(above(a, b)) & weight);
  }
  //! Whether any element of a mask is set.
  static KVCRUMB_TARGET_INLINE bool any(i32x16 const& mask) noexcept {
    std::uint64_t part[8], all = 0;
    std::memcpy(part, &mask, sizeof part);
    for (std::uint64_t const p : part)
      all |= p;
    return all != 0;
  }
  //! Patterns as signed integers in the order of the values, see detail::ordered_key.
  static KVCRUMB_TARGET_INLINE i16x32 key(i16x32 const& v) noexcept { return v ^ ((v >> 15) & 0x7FFF); }
  static KVCRUMB_TARGET_INLINE i16x32 key_beside_extremes(i16x32 const& v) noexcept { return key(v); }
  static KVCRUMB_TARGET_INLINE i32x16 key(i32x16 const& v) noexcept { return v ^ ((v >> 31) & 0x7FFFFFFF); }
  //! Columns 16 block ... of rows g (a) and g + 8 (b) of a 16 x 16 block in the order of a line: dword 4 c +
  //! t of row half r to dword 4 t + 2 c + r.
  template <int Block>
  static KVCRUMB_TARGET_INLINE i32x16 line(u16x32 const& a, u16x32 const& b) noexcept {
    u32x4 const a0 = quarter(&a, 2 * Block), a1 = quarter(&a, 2 * Block + 1), b0 = quarter(&b, 2 * Block),
                b1 = quarter(&b, 2 * Block + 1);
    u32x4 const low0 = __builtin_shufflevector(a0, b0, 0, 4, 1, 5),
                low1 = __builtin_shufflevector(a1, b1, 0, 4, 1, 5),
                high0 = __builtin_shufflevector(a0, b0, 2, 6, 3, 7),
                high1 = __builtin_shufflevector(a1, b1, 2, 6, 3, 7);
    u32x4 const part[4] = {
        __builtin_shufflevector(low0, low1, 0, 1, 4, 5), __builtin_shufflevector(low0, low1, 2, 3, 6, 7),
        __builtin_shufflevector(high0, high1, 0, 1, 4, 5), __builtin_shufflevector(high0, high1, 2, 3, 6, 7)};
    return load_as<i32x16>(part);
  }
  //! Sixteen small integers each.
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    u16x16 const part[2] = {__builtin_convertvector(a, u16x16), __builtin_convertvector(b, u16x16)};
    u16x32 out;
    std::memcpy(&out, part, sizeof out);
    return out;
  }
  //! The number of steps that each key is above.
  template <int Count>
  static KVCRUMB_TARGET_INLINE i32x16 rank(codebook_steps const& steps, i32x16 const& key) noexcept {
    i32x16 n{};
    for (int i = 0; i < Count; ++i)
      n -= above(key, i32x16{} + steps.above[i]);
    return n;
  }
  //! Elements 0 to 15, elements 16 to 31, and both together.
  static KVCRUMB_TARGET_INLINE u16x16 lower_half(u16x32 const& v) noexcept { return load_as<u16x16>(&v); }
  static KVCRUMB_TARGET_INLINE u16x16 upper_half(u16x32 const& v) noexcept {
    return load_as<u16x16>(reinterpret_cast<char const*>(&v) + 32);
  }
  static KVCRUMB_TARGET_INLINE u16x32 joined(u16x16 const& a, u16x16 const& b) noexcept {
    u16x16 const parts[2] = {a, b};
    return load_as<u16x32>(parts);
  }
};
