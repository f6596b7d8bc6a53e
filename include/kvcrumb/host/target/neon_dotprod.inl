// SPDX-License-Identifier: Apache-2.0
//! @file The target neon_dotprod: operations and integer sums by SDOT. Included once by targets.hpp.

struct ops : plain_ops {
  static KVCRUMB_TARGET_INLINE float32x4_t part(f32x16 const& v, int i) noexcept {
    float32x4_t out;
    std::memcpy(&out, reinterpret_cast<char const*>(&v) + 16 * i, sizeof out);
    return out;
  }
  static KVCRUMB_TARGET_INLINE void put(f32x16& v, int i, float32x4_t x) noexcept {
    std::memcpy(reinterpret_cast<char*>(&v) + 16 * i, &x, sizeof x);
  }
  static KVCRUMB_TARGET_INLINE f32x16 multiply_add(f32x16 const& a, f32x16 const& b,
                                                   f32x16 const& c) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i)
      put(v, i, vfmaq_f32(part(c, i), part(a, i), part(b, i)));
    return v;
  }
  static KVCRUMB_TARGET_INLINE i32x16 round(f32x16 const& x) noexcept {
    i32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      int32x4_t const rounded = vcvtnq_s32_f32(part(x, i));
      std::memcpy(reinterpret_cast<char*>(&v) + 16 * i, &rounded, sizeof rounded);
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE f32x16 from_half(void const* p) noexcept {
    f32x16 v;
    KVCRUMB_TARGET_UNROLL
    for (int i = 0; i < 4; ++i) {
      std::uint16_t const* const at = static_cast<std::uint16_t const*>(p) + 4 * i;
      put(v, i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))));
    }
    return v;
  }
  static KVCRUMB_TARGET_INLINE float sum(f32x16 const& v) noexcept {
    return vaddvq_f32(vaddq_f32(vaddq_f32(part(v, 0), part(v, 1)), vaddq_f32(part(v, 2), part(v, 3))));
  }
};

//! Products of one line with one query row: sums[s][d] += codes of shift s in 4-byte element d of every lane.
template <int Bits, bool Levels>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  static constexpr int fields = Bits == 8 ? 2 : shifts;  // SDOT is signed: 8-bit codes go by halves
  static constexpr int field_bits = Bits == 8 ? 4 : Bits;
  static constexpr int terms = Levels ? 3 : 2;
  std::int32_t sums[shifts][4] = {};
  int32x4_t wide[fields][terms], upper[fields][terms];  // upper: of the upper halves of levels

  KVCRUMB_TARGET_INLINE line_products() noexcept {
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      KVCRUMB_TARGET_UNROLL
      for (int i = 0; i < terms; ++i)
        wide[s][i] = upper[s][i] = vdupq_n_s32(0);
    }
  }
  KVCRUMB_TARGET_INLINE void add(std::byte const* line, std::byte const* const (&operand)[shifts],
                                 level_table const* levels) noexcept {
    static constexpr std::uint8_t from[16] = {0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15};
    uint8x16_t const order = vld1q_u8(from);
    KVCRUMB_TARGET_UNROLL
    for (int t = 0; t < 4; ++t) {
      uint8x16_t const x = vqtbl1q_u8(vld1q_u8(reinterpret_cast<std::uint8_t const*>(line) + 16 * t), order);
      KVCRUMB_TARGET_UNROLL
      for (int s = 0; s < fields; ++s) {
        uint8x16_t const moved =
            s == 0 ? x : vshlq_u8(x, vdupq_n_s8(static_cast<std::int8_t>(-s * field_bits)));
        uint8x16_t c = vandq_u8(moved, vdupq_n_u8((1u << field_bits) - 1u));
        uint8x16_t c_low = c;
        if constexpr (Levels) {
          c_low = vqtbl1q_u8(vld1q_u8(levels->low), c);
          c = vqtbl1q_u8(vld1q_u8(levels->high), c);
        }
        std::int8_t const* const at =
            reinterpret_cast<std::int8_t const*>(operand[Bits == 8 ? 0 : s]) + 16 * t;
        int8x16_t const high = vld1q_s8(at), low = vld1q_s8(at + 64);
        accumulate(s, 0, c, high);
        accumulate(s, 1, c, low);
        if constexpr (Levels) accumulate(s, 2, c_low, high);
      }
    }
  }
  KVCRUMB_TARGET_INLINE void finish() noexcept {
    int32x4_t total[fields];
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < fields; ++s) {
      for (int i = 0; Levels && i < terms; ++i)
        wide[s][i] = vaddq_s32(wide[s][i], vshlq_n_s32(upper[s][i], 4));
      total[s] = vaddq_s32(vshlq_n_s32(wide[s][0], 8), wide[s][1]);
      if constexpr (Levels) total[s] = vaddq_s32(total[s], wide[s][2]);
    }
    if constexpr (Bits == 8) total[0] = vaddq_s32(total[0], vshlq_n_s32(total[1], 4));
    KVCRUMB_TARGET_UNROLL
    for (int s = 0; s < shifts; ++s)
      vst1q_s32(sums[s], total[s]);
  }

 private:
  //! Levels have 8 bits and SDOT is signed: they go by halves.
  KVCRUMB_TARGET_INLINE void accumulate(int s, int i, uint8x16_t codes, int8x16_t operand) noexcept {
    uint8x16_t const lower = Levels ? vandq_u8(codes, vdupq_n_u8(15)) : codes;
    wide[s][i] = vdotq_s32(wide[s][i], vreinterpretq_s8_u8(lower), operand);
    if constexpr (Levels) {
      upper[s][i] = vdotq_s32(upper[s][i], vreinterpretq_s8_u8(vshrq_n_u8(codes, 4)), operand);
    }
  }
};
