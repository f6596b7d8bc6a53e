// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target neon_dotprod. Arithmetic is written as instructions, so that
//! no flag fuses or reorders it. Included once by targets.hpp.

struct encode_ops : plain_encode_ops {
  static KVCRUMB_TARGET_INLINE f32x16 add(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      float32x4_t r;
      __asm__("fadd %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(ops::part(a, i)), "w"(ops::part(b, i)));
      ops::put(v, i, r);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE f32x16 sub(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      float32x4_t r;
      __asm__("fsub %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(ops::part(a, i)), "w"(ops::part(b, i)));
      ops::put(v, i, r);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE f32x16 mul(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      float32x4_t r;
      __asm__("fmul %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(ops::part(a, i)), "w"(ops::part(b, i)));
      ops::put(v, i, r);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE f32x16 div(f32x16 const& a, f32x16 const& b) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      float32x4_t r;
      __asm__("fdiv %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(ops::part(a, i)), "w"(ops::part(b, i)));
      ops::put(v, i, r);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE f32x16 square_root(f32x16 const& a) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      float32x4_t r;
      __asm__("fsqrt %0.4s, %1.4s" : "=w"(r) : "w"(ops::part(a, i)));
      ops::put(v, i, r);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    u16x16 h;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      uint16x4_t const part = vreinterpret_u16_f16(vcvt_f16_f32(ops::part(x, i)));
      std::memcpy(reinterpret_cast<char*>(&h) + 8 * i, &part, sizeof part);
    }
    return h;
  }
};
