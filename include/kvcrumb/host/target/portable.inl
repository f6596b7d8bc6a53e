// SPDX-License-Identifier: Apache-2.0
//! @file The target portable: operations and integer sums in plain C++. Included once by targets.hpp.

struct ops : plain_ops {};

//! Products of one line with one query row: sums[s][d] += codes of shift s in 4-byte element d of every lane.
template <int Bits, bool Levels>
struct line_products {
  static constexpr int shifts = 8 / Bits;
  std::int32_t sums[shifts][4] = {};

  void add(std::byte const* line, std::byte const* const (&operand)[shifts],
           level_table const* levels) noexcept {
    constexpr int from[16] = {0, 2, 8, 10, 4, 6, 12, 14, 1, 3, 9, 11, 5, 7, 13, 15};
    for (int t = 0; t < 4; ++t) {
      for (int i = 0; i < 16; ++i) {
        unsigned const byte = std::to_integer<unsigned>(line[16 * t + from[i]]);
        for (int s = 0; s < shifts; ++s) {
          unsigned const code = byte >> (s * Bits) & ((1u << Bits) - 1u);
          int const high = static_cast<std::int8_t>(operand[s][16 * t + i]);
          int const low = static_cast<std::int8_t>(operand[s][64 + 16 * t + i]);
          sums[s][i / 4] +=
              Levels ? levels->high[code & 15u] * (256 * high + low) + levels->low[code & 15u] * high
                     : static_cast<int>(code) * (256 * high + low);
        }
      }
    }
  }
  void finish() noexcept {}
};
