// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target neon_dotprod. Arithmetic is written as instructions, so that
//! no flag fuses or reorders it. What has no version for registers here works on halves. Included once by
//! targets.hpp.

struct encode_ops {
  static KVCRUMB_TARGET_INLINE f32q add(f32q const& a, f32q const& b) noexcept {
    float32x4_t r;
    __asm__("fadd %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(raw(a)), "w"(raw(b)));
    return cast<f32q>(r);
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> add(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {add(a.low, b.low), add(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE f32q sub(f32q const& a, f32q const& b) noexcept {
    float32x4_t r;
    __asm__("fsub %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(raw(a)), "w"(raw(b)));
    return cast<f32q>(r);
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> sub(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {sub(a.low, b.low), sub(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE f32q mul(f32q const& a, f32q const& b) noexcept {
    float32x4_t r;
    __asm__("fmul %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(raw(a)), "w"(raw(b)));
    return cast<f32q>(r);
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> mul(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {mul(a.low, b.low), mul(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE f32q div(f32q const& a, f32q const& b) noexcept {
    float32x4_t r;
    __asm__("fdiv %0.4s, %1.4s, %2.4s" : "=w"(r) : "w"(raw(a)), "w"(raw(b)));
    return cast<f32q>(r);
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> div(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {div(a.low, b.low), div(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE f32q square_root(f32q const& a) noexcept {
    float32x4_t r;
    __asm__("fsqrt %0.4s, %1.4s" : "=w"(r) : "w"(raw(a)));
    return cast<f32q>(r);
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> square_root(halved<Half> const& a) noexcept {
    return {square_root(a.low), square_root(a.high)};
  }
  //! To binary16, nearest even; overflow gives infinity.
  static KVCRUMB_TARGET_INLINE u16q half_of(f32x16::half const& x) noexcept {
    float16x8_t const h = vcvt_high_f16_f32(vcvt_f16_f32(raw(x.low)), raw(x.high));
    return cast<u16q>(vreinterpretq_u16_f16(h));
  }
  static KVCRUMB_TARGET_INLINE u16x16 half_of(f32x16 const& x) noexcept {
    return {half_of(x.low), half_of(x.high)};
  }
  static KVCRUMB_TARGET_INLINE f32x16 widen(u16x16 const& h) noexcept { return ops::from_half(h); }
  static KVCRUMB_TARGET_INLINE i16x32 splat(std::int16_t x) noexcept { return filled<i16x32>(x); }
  //! Patterns as integers, negative where their top bit is set, or not; and back.
  static KVCRUMB_TARGET_INLINE i32x16 sign_extended(u16x16 const& h) noexcept {
    return {sign_extended(h.low), sign_extended(h.high)};
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return ops::zero_extended(h);
  }
  static KVCRUMB_TARGET_INLINE u16x16 low_halves(i32x16 const& v) noexcept {
    return {low_halves(v.low), low_halves(v.high)};
  }
  //! -1 where a > b, else 0.
  static KVCRUMB_TARGET_INLINE i32q above(i32q const& a, i32q const& b) noexcept { return a > b; }
  static KVCRUMB_TARGET_INLINE i16q above(i16q const& a, i16q const& b) noexcept { return a > b; }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> above(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {above(a.low, b.low), above(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE i32q larger(i32q const& a, i32q const& b) noexcept {
    return ops::larger(a, b);
  }
  static KVCRUMB_TARGET_INLINE i16q larger(i16q const& a, i16q const& b) noexcept {
    return cast<i16q>(vmaxq_s16(raw(a), raw(b)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> larger(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {larger(a.low, b.low), larger(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE i32q smaller(i32q const& a, i32q const& b) noexcept {
    return cast<i32q>(vminq_s32(raw(a), raw(b)));
  }
  static KVCRUMB_TARGET_INLINE i16q smaller(i16q const& a, i16q const& b) noexcept {
    return cast<i16q>(vminq_s16(raw(a), raw(b)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> smaller(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {smaller(a.low, b.low), smaller(a.high, b.high)};
  }
  //! sum + weight where a > b.
  static KVCRUMB_TARGET_INLINE u16x32 add_above(u16x32 const& sum, i16x32 const& a, i16x32 const& b,
                                                u16x32 const& weight) noexcept {
    return sum + (cast<u16x32>(above(a, b)) & weight);
  }
  //! Whether any element of a mask is set.
  static KVCRUMB_TARGET_INLINE bool any(i32x16 const& mask) noexcept {
    auto const half = mask.low | mask.high;
    return vmaxvq_u32(cast<uint32x4_t>(half.low | half.high)) != 0;
  }
  //! Patterns as signed integers in the order of the values, see detail::ordered_key.
  static KVCRUMB_TARGET_INLINE i16x32 key(i16x32 const& v) noexcept { return v ^ ((v >> 15) & 0x7FFF); }
  static KVCRUMB_TARGET_INLINE i16x32 key_beside_extremes(i16x32 const& v) noexcept { return key(v); }
  static KVCRUMB_TARGET_INLINE i32x16 key(i32x16 const& v) noexcept { return v ^ ((v >> 31) & 0x7FFFFFFF); }
  //! Columns 16 block ... of rows g (a) and g + 8 (b) of a 16 x 16 block in the order of a line: dword 4 c +
  //! t of row half r to dword 4 t + 2 c + r.
  template <int Block>
  static KVCRUMB_TARGET_INLINE i32x16 line(u16x32 const& a, u16x32 const& b) noexcept {
    i32x16::half const x = cast<i32x16::half>(Block == 0 ? a.low : a.high),
                       y = cast<i32x16::half>(Block == 0 ? b.low : b.high);
    int32x4_t const low[2] = {vzip1q_s32(raw(x.low), raw(y.low)), vzip1q_s32(raw(x.high), raw(y.high))};
    int32x4_t const high[2] = {vzip2q_s32(raw(x.low), raw(y.low)), vzip2q_s32(raw(x.high), raw(y.high))};
    return {{pairs<0>(low), pairs<1>(low)}, {pairs<0>(high), pairs<1>(high)}};
  }
  //! The number of steps that each key is above.
  template <int Count>
  static KVCRUMB_TARGET_INLINE i32x16 rank(codebook_steps const& steps, i32x16 const& key) noexcept {
    i32x16 n{};
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < Count; ++i)
      n -= above(key, filled<i32x16>(steps.above[i]));
    return n;
  }
  //! Sixteen small integers each.
  static KVCRUMB_TARGET_INLINE u16x32 narrow(i32x16 const& a, i32x16 const& b) noexcept {
    return {low_halves(a), low_halves(b)};
  }
  //! Elements 0 to 15, elements 16 to 31, and both together.
  static KVCRUMB_TARGET_INLINE u16x16 lower_half(u16x32 const& v) noexcept { return v.low; }
  static KVCRUMB_TARGET_INLINE u16x16 upper_half(u16x32 const& v) noexcept { return v.high; }
  static KVCRUMB_TARGET_INLINE u16x32 joined(u16x16 const& a, u16x16 const& b) noexcept { return {a, b}; }

 private:
  static KVCRUMB_TARGET_INLINE i32x16::half sign_extended(u16q const& h) noexcept {
    int16x8_t const x = cast<int16x8_t>(h);
    return {cast<i32q>(vmovl_s16(vget_low_s16(x))), cast<i32q>(vmovl_high_s16(x))};
  }
  static KVCRUMB_TARGET_INLINE u16q low_halves(i32x16::half const& v) noexcept {
    return cast<u16q>(vmovn_high_s32(vmovn_s32(raw(v.low)), raw(v.high)));
  }
  template <int Which>
  static KVCRUMB_TARGET_INLINE i32q pairs(int32x4_t const (&v)[2]) noexcept {
    int64x2_t const a = vreinterpretq_s64_s32(v[0]), b = vreinterpretq_s64_s32(v[1]);
    return cast<i32q>(Which == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
  }
};
