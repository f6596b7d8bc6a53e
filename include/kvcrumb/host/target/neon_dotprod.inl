// SPDX-License-Identifier: Apache-2.0
//! @file The target neon_dotprod: operations and integer sums by SDOT. What has no version for registers here
//! works on halves. Included once by targets.hpp.

using f32q = f32x16::half::half;
using i32q = i32x16::half::half;
using u32q = u32x16::half::half;
using i16q = i16x32::half::half;
using u16q = u16x32::half::half;
KVCRUMB_TARGET_INLINE float32x4_t raw(f32q const& v) noexcept { return cast<float32x4_t>(v); }
KVCRUMB_TARGET_INLINE int32x4_t raw(i32q const& v) noexcept { return cast<int32x4_t>(v); }
KVCRUMB_TARGET_INLINE uint32x4_t raw(u32q const& v) noexcept { return cast<uint32x4_t>(v); }
KVCRUMB_TARGET_INLINE int16x8_t raw(i16q const& v) noexcept { return cast<int16x8_t>(v); }
KVCRUMB_TARGET_INLINE uint16x8_t raw(u16q const& v) noexcept { return cast<uint16x8_t>(v); }

struct ops {
  static KVCRUMB_TARGET_INLINE void prefetch(void const* p) noexcept { __builtin_prefetch(p, 0, 2); }
  static KVCRUMB_TARGET_INLINE f32x16 splat(float x) noexcept {
    f32q const v = cast<f32q>(vdupq_n_f32(x));
    return {{v, v}, {v, v}};
  }
  static KVCRUMB_TARGET_INLINE f32q multiply_add(f32q const& a, f32q const& b, f32q const& c) noexcept {
    return cast<f32q>(vfmaq_f32(raw(c), raw(a), raw(b)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> multiply_add(halved<Half> const& a, halved<Half> const& b,
                                                         halved<Half> const& c) noexcept {
    return {multiply_add(a.low, b.low, c.low), multiply_add(a.high, b.high, c.high)};
  }
  //! The larger one, b where one is NaN.
  static KVCRUMB_TARGET_INLINE f32q maximum(f32q const& a, f32q const& b) noexcept {
    return cast<f32q>(vbslq_f32(vcgtq_f32(raw(a), raw(b)), raw(a), raw(b)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> maximum(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {maximum(a.low, b.low), maximum(a.high, b.high)};
  }
  static KVCRUMB_TARGET_INLINE i32q round(f32q const& x) noexcept {
    return cast<i32q>(vcvtnq_s32_f32(raw(x)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE auto round(halved<Half> const& x) noexcept {
    return halved{round(x.low), round(x.high)};
  }
  //! Sixteen patterns of two bytes as integers.
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(void const* p) noexcept {
    return zero_extended(load_as<u16x16>(p));
  }
  static KVCRUMB_TARGET_INLINE i32x16 zero_extended(u16x16 const& h) noexcept {
    return {zero_extended(h.low), zero_extended(h.high)};
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    return from_half(load_as<u16x16>(p));
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(u16x16 const& h) noexcept {
    return {from_half(h.low), from_half(h.high)};
  }
  static KVCRUMB_TARGET_INLINE i32q larger(i32q const& a, i32q const& b) noexcept {
    return cast<i32q>(vmaxq_s32(raw(a), raw(b)));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> larger(halved<Half> const& a, halved<Half> const& b) noexcept {
    return {larger(a.low, b.low), larger(a.high, b.high)};
  }
  //! x where value is not 0, else 0.
  static KVCRUMB_TARGET_INLINE f32q unless_zero(f32q const& value, f32q const& x) noexcept {
    return cast<f32q>(vbicq_u32(cast<uint32x4_t>(x), vceqzq_f32(raw(value))));
  }
  template <class Half>
  static KVCRUMB_TARGET_INLINE halved<Half> unless_zero(halved<Half> const& value,
                                                        halved<Half> const& x) noexcept {
    return {unless_zero(value.low, x.low), unless_zero(value.high, x.high)};
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept {
    return vaddvq_f32(
        vaddq_f32(vaddq_f32(raw(v.low.low), raw(v.low.high)), vaddq_f32(raw(v.high.low), raw(v.high.high))));
  }
  //! The largest; NaN only if all are.
  static KVCRUMB_TARGET_INLINE float largest(f32x16 const& v) noexcept {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(raw(v.low.low), raw(v.low.high)),
                                    vmaxnmq_f32(raw(v.high.low), raw(v.high.high))));
  }
  static KVCRUMB_TARGET_INLINE std::int32_t largest(i32x16 const& v) noexcept {
    auto const half = larger(v.low, v.high);
    return vmaxvq_s32(raw(larger(half.low, half.high)));
  }
  //! table[index[i]] of sixteen floats.
  static KVCRUMB_TARGET_INLINE f32x16 look_up(float const* table, i32x16 const& index) noexcept {
    auto const* const bytes = reinterpret_cast<std::uint8_t const*>(table);
    uint8x16x4_t const all = {
        {vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32), vld1q_u8(bytes + 48)}};
    i32x16 const at = index * 0x04040404 + 0x03020100;  // the four bytes of each number
    return {{look_up(all, at.low.low), look_up(all, at.low.high)},
            {look_up(all, at.high.low), look_up(all, at.high.high)}};
  }
  //! Four floats a[e] to the places 8 t + 2 e + h of sixteen.
  static KVCRUMB_TARGET_INLINE f32x16 spread(float const* a) noexcept {
    float32x4_t const v = vld1q_f32(a);
    f32x16::half const eight{cast<f32q>(vzip1q_f32(v, v)), cast<f32q>(vzip2q_f32(v, v))};
    return {eight, eight};
  }
  //! Elements 0, 2, 4, ... of a, then of b; and elements 1, 3, 5, ...
  static KVCRUMB_TARGET_INLINE i32x16 evens(i32x16 const& a, i32x16 const& b) noexcept {
    return {evens(a), evens(b)};
  }
  static KVCRUMB_TARGET_INLINE i32x16 odds(i32x16 const& a, i32x16 const& b) noexcept {
    return {odds(a), odds(b)};
  }

 private:
  static KVCRUMB_TARGET_INLINE i32x16::half zero_extended(u16q const& h) noexcept {
    return {cast<i32q>(vmovl_u16(vget_low_u16(raw(h)))), cast<i32q>(vmovl_high_u16(raw(h)))};
  }
  static KVCRUMB_TARGET_INLINE f32x16::half from_half(u16q const& h) noexcept {
    float16x8_t const x = vreinterpretq_f16_u16(raw(h));
    return {cast<f32q>(vcvt_f32_f16(vget_low_f16(x))), cast<f32q>(vcvt_high_f32_f16(x))};
  }
  static KVCRUMB_TARGET_INLINE f32q look_up(uint8x16x4_t const& table, i32q const& at) noexcept {
    return cast<f32q>(vqtbl4q_u8(table, cast<uint8x16_t>(at)));
  }
  static KVCRUMB_TARGET_INLINE i32x16::half evens(i32x16 const& v) noexcept {
    return {cast<i32q>(vuzp1q_s32(raw(v.low.low), raw(v.low.high))),
            cast<i32q>(vuzp1q_s32(raw(v.high.low), raw(v.high.high)))};
  }
  static KVCRUMB_TARGET_INLINE i32x16::half odds(i32x16 const& v) noexcept {
    return {cast<i32q>(vuzp2q_s32(raw(v.low.low), raw(v.low.high))),
            cast<i32q>(vuzp2q_s32(raw(v.high.low), raw(v.high.high)))};
  }
};

//! Stores element i of the four vectors at words 4 i, 4 i + 1, ...
KVCRUMB_TARGET_INLINE void store_interleaved(std::byte* p, u32x16 const (&v)[4]) noexcept {
  auto* const to = reinterpret_cast<std::uint32_t*>(p);
  uint32x4x4_t part[4];
  KVCRUMB_TARGET_UNROLL
  for (int j = 0; j < 4; ++j) {
    part[0].val[j] = raw(v[j].low.low);
    part[1].val[j] = raw(v[j].low.high);
    part[2].val[j] = raw(v[j].high.low);
    part[3].val[j] = raw(v[j].high.high);
  }
  KVCRUMB_TARGET_UNROLL
  for (int i = 0; i < 4; ++i)
    vst4q_u32(to + 16 * i, part[i]);
}

//! The upper bytes of sixteen numbers of two bytes, rounded to nearest.
KVCRUMB_TARGET_INLINE int8x16_t upper_terms(int16x8_t const (&v)[2]) noexcept {
  int16x8_t const half = vdupq_n_s16(128);
  return vshrn_high_n_s16(vshrn_n_s16(vaddq_s16(v[0], half), 8), vaddq_s16(v[1], half), 8);
}
//! The low and high terms of 64 values v = 256 high + low as bytes: those of column block k at 16 k.
KVCRUMB_TARGET_INLINE void store_terms(i32x16 const (&v)[4], std::int8_t* high, std::int8_t* low) noexcept {
  KVCRUMB_TARGET_UNROLL
  for (int i = 0; i < 2; ++i) {
    i32x16 const &a = v[2 * i], &b = v[2 * i + 1];  // fours 0 to 3 and 4 to 7 of two column blocks
    int16x8_t const even[2] = {vmovn_high_s32(vmovn_s32(raw(a.low.low)), raw(a.high.low)),
                               vmovn_high_s32(vmovn_s32(raw(b.low.low)), raw(b.high.low))};
    int16x8_t const odd[2] = {vmovn_high_s32(vmovn_s32(raw(a.low.high)), raw(a.high.high)),
                              vmovn_high_s32(vmovn_s32(raw(b.low.high)), raw(b.high.high))};
    vst1q_s8(high + 32 * i, upper_terms(even));
    vst1q_s8(low + 32 * i, vmovn_high_s16(vmovn_s16(even[0]), even[1]));
    vst1q_s8(high + 32 * i + 16, upper_terms(odd));
    vst1q_s8(low + 32 * i + 16, vmovn_high_s16(vmovn_s16(odd[0]), odd[1]));
  }
}
//! 64 bytes of an operand: element d of lane t are four terms of a column block, those at from[d] + 4 t.
KVCRUMB_TARGET_INLINE void deal_terms(std::byte* at, std::int8_t const* const (&from)[4]) noexcept {
  int32x4x4_t x;
  KVCRUMB_TARGET_UNROLL
  for (int d = 0; d < 4; ++d)
    x.val[d] = vreinterpretq_s32_s8(vld1q_s8(from[d]));
  vst4q_s32(reinterpret_cast<std::int32_t*>(at), x);
}
//! The same with all of `from` equal.
KVCRUMB_TARGET_INLINE void repeat_terms(std::byte* at, std::int8_t const* from) noexcept {
  deal_terms(at, {from, from, from, from});
}

//! Products of lines with one query row, of all codes of a shift together. SDOT is signed: codes and levels
//! of 8 bits go by halves.
template <int Bits, bool Levels, int Pass>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  static constexpr int passes = 1;
  static constexpr int fields = Bits == 8 ? 2 : shifts;
  static constexpr int field_bits = Bits == 8 ? 4 : Bits;
  static constexpr int lines = 1 << 20;  //!< until `widen` is needed: never
  static constexpr int sums_of_field = Levels ? 4 : 2;
  level_table const* levels;
  int32x4_t sums[sums_of_field * fields];

  KVCRUMB_TARGET_INLINE explicit line_products(level_table const* of) noexcept : levels{of} {
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < sums_of_field * fields; ++i)
      sums[i] = vdupq_n_s32(0);
  }
  KVCRUMB_TARGET_INLINE void add(std::byte const* line, std::byte const* const (&operand)[shifts]) noexcept {
    static constexpr std::uint8_t from[16] = {0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15};
    uint8x16_t const order = vld1q_u8(from), nibble = vdupq_n_u8(15);
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4 * fields; ++i) {
      int const t = i / fields, s = i % fields;
      uint8x16_t const x = vqtbl1q_u8(vld1q_u8(reinterpret_cast<std::uint8_t const*>(line) + 16 * t), order);
      uint8x16_t const moved =
          s == 0 ? x : vshlq_u8(x, vdupq_n_s8(static_cast<std::int8_t>(-s * field_bits)));
      uint8x16_t const c = vandq_u8(moved, vdupq_n_u8((1u << field_bits) - 1u));
      std::int8_t const* const at = reinterpret_cast<std::int8_t const*>(operand[Bits == 8 ? 0 : s]) + 16 * t;
      int8x16_t const high = vld1q_s8(at), low = vld1q_s8(at + 64);
      int32x4_t* const sum = sums + sums_of_field * s;
      if constexpr (Levels) {
        uint8x16_t const h = vqtbl1q_u8(vld1q_u8(levels->high), c), l = vqtbl1q_u8(vld1q_u8(levels->low), c);
        add_products(sum[0], vandq_u8(h, nibble), low);
        add_products(sum[0], vandq_u8(l, nibble), high);
        add_products(sum[1], vshrq_n_u8(h, 4), low);
        add_products(sum[1], vshrq_n_u8(l, 4), high);
        add_products(sum[2], vandq_u8(h, nibble), high);
        add_products(sum[3], vshrq_n_u8(h, 4), high);
      } else {
        add_products(sum[0], c, low);
        add_products(sum[1], c, high);
      }
    }
  }
  KVCRUMB_TARGET_INLINE void widen() noexcept {}
  //! out[s]: of the codes of shift s in the 4-byte elements 0 to 3 of every lane.
  KVCRUMB_TARGET_INLINE void total(int32x4_t (&out)[shifts]) const noexcept {
    int32x4_t all[fields];
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      int32x4_t const* const sum = sums + sums_of_field * s;
      if constexpr (Levels) {
        all[s] = vaddq_s32(vaddq_s32(sum[0], vshlq_n_s32(sum[1], 4)),
                           vaddq_s32(vshlq_n_s32(sum[2], 8), vshlq_n_s32(sum[3], 12)));
      } else {
        all[s] = vaddq_s32(sum[0], vshlq_n_s32(sum[1], 8));
      }
    }
    if constexpr (Bits == 8) all[0] = vaddq_s32(all[0], vshlq_n_s32(all[1], 4));
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < shifts; ++s)
      out[s] = all[s];
  }

 private:
  static KVCRUMB_TARGET_INLINE void add_products(int32x4_t& sum, uint8x16_t codes,
                                                 int8x16_t operand) noexcept {
#if defined(__clang__) && !defined(__ARM_FEATURE_DOTPROD)  // clang 14 has the intrinsic only then
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(codes), "w"(operand));
#else
    sum = vdotq_s32(sum, vreinterpretq_s8_u8(codes), operand);
#endif
  }
};
using line_sums = int32x4_t;
//! at[2 d + h] += element d of the sums of g + h, d = 0 and 1; the other elements go to `upper`.
KVCRUMB_TARGET_INLINE void add_sums(line_sums const& a, line_sums const& b, std::int32_t* at,
                                    std::int32_t* upper) noexcept {
  vst1q_s32(at, vaddq_s32(vld1q_s32(at), vzip1q_s32(a, b)));
  vst1q_s32(upper, vaddq_s32(vld1q_s32(upper), vzip2q_s32(a, b)));
}
