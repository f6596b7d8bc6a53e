// SPDX-License-Identifier: Apache-2.0
//! @file The target portable: operations and integer sums in plain C++. Included once by targets.hpp.

struct ops : plain_ops {};

//! The low and high terms of 64 values v = 256 high + low as bytes: those of column block k at 16 k.
KVCRUMB_TARGET_INLINE void store_terms(i32x16 const (&v)[4], std::int8_t* high, std::int8_t* low) noexcept {
  for (int i = 0; i < 64; ++i) {  // place 32 (k / 2) + 8 t + 4 (k % 2) + j of operand order
    int const value = v[i / 16][i % 16], upper = (value + 128) >> 8;
    int const at = 32 * (i / 32) + 16 * (i / 4 % 2) + 4 * (i / 8 % 4) + i % 4;
    high[at] = static_cast<std::int8_t>(upper);
    low[at] = static_cast<std::int8_t>(value - 256 * upper);
  }
}
//! 64 bytes of an operand: element d of lane t are four terms of a column block, those at from[d] + 4 t.
KVCRUMB_TARGET_INLINE void deal_terms(std::byte* at, std::int8_t const* const (&from)[4]) noexcept {
  for (int t = 0; t < 4; ++t) {
    for (int d = 0; d < 4; ++d)
      std::memcpy(at + 16 * t + 4 * d, from[d] + 4 * t, 4);
  }
}

//! The same with all of `from` equal.
KVCRUMB_TARGET_INLINE void repeat_terms(std::byte* at, std::int8_t const* from) noexcept {
  deal_terms(at, {from, from, from, from});
}

struct line_sums {
  std::int32_t of[4];
};
//! Products of lines with one query row, of all codes of a shift together.
template <int Bits, bool Levels, int Pass>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  static constexpr int passes = 1;
  static constexpr int lines = 1 << 20;  //!< until `widen` is needed: never
  level_table const* levels;
  line_sums sums[shifts] = {};

  explicit line_products(level_table const* of) noexcept : levels{of} {}
  void add(std::byte const* line, std::byte const* const (&operand)[shifts]) noexcept {
    constexpr int from[16] = {0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15};
    for (int t = 0; t < 4; ++t) {
      for (int i = 0; i < 16; ++i) {
        unsigned const byte = std::to_integer<unsigned>(line[16 * t + from[i]]);
        for (int s = 0; s < shifts; ++s) {
          unsigned const code = byte >> (s * Bits) & ((1u << Bits) - 1u);
          int const high = static_cast<std::int8_t>(operand[s][16 * t + i]);
          int const low = static_cast<std::int8_t>(operand[s][64 + 16 * t + i]);
          sums[s].of[i / 4] +=
              Levels ? levels->high[code & 15u] * (256 * high + low) + levels->low[code & 15u] * high
                     : static_cast<int>(code) * (256 * high + low);
        }
      }
    }
  }
  void widen() noexcept {}
  //! out[s]: of the codes of shift s in the 4-byte elements 0 to 3 of every lane.
  void total(line_sums (&out)[shifts]) const noexcept {
    for (int s = 0; s < shifts; ++s)
      out[s] = sums[s];
  }
};
//! at[2 d + h] += element d of the sums of g + h, d = 0 and 1; the other elements go to `upper`.
KVCRUMB_TARGET_INLINE void add_sums(line_sums const& a, line_sums const& b, std::int32_t* at,
                                    std::int32_t* upper) noexcept {
  for (int d = 0; d < 2; ++d) {
    at[2 * d] += a.of[d];
    at[2 * d + 1] += b.of[d];
    upper[2 * d] += a.of[d + 2];
    upper[2 * d + 1] += b.of[d + 2];
  }
}
