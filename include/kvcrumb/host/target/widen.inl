// SPDX-License-Identifier: Apache-2.0
//! @file 3-bit sections become 4-bit ones in working memory. Included once per target by targets.hpp.

//! The section with 4 bits for each code and otherwise in the same places: unit, lane, register, half and
//! field are those of a 4-bit section (fragment::deal gives both the same units). Returns side.widened.
inline std::byte const* widen(section_side const& side, std::byte const* section) noexcept {
  // Three 16-bit pieces of a half become four: field f of piece a moves to bits 4 f. See format.md, 3 bits.
  int const units = side.plan.k_units * side.plan.p_units;
  for (int unit = 0; unit < units; ++unit) {
    for (int lane = 0; lane < 32; lane += 16) {
      u32x16 w[3];
      for (int i = 0; i < 3; ++i)
        w[i] = load_words(section, 3 * unit + i, lane);
      u32x16 out[4];
      out[0] = (w[0] & 0x00070007u) | ((w[0] << 1) & 0x00700070u) | ((w[2] << 8) & 0x07000700u) |
               ((w[0] << 6) & 0x70007000u);
      out[1] = (w[1] & 0x00070007u) | ((w[1] << 1) & 0x00700070u) | ((w[2] << 5) & 0x07000700u) |
               ((w[2] << 6) & 0x70007000u);
      out[2] = ((w[0] >> 9) & 0x00070007u) | ((w[0] >> 8) & 0x00700070u) | ((w[2] >> 1) & 0x07000700u) |
               ((w[1] << 6) & 0x70007000u);
      out[3] = ((w[1] >> 9) & 0x00070007u) | ((w[1] >> 8) & 0x00700070u) | ((w[2] >> 4) & 0x07000700u) |
               ((w[0] >> 3) & 0x10001000u) | ((w[1] >> 2) & 0x20002000u) | ((w[2] >> 1) & 0x40004000u);
      store_interleaved(side.widened + static_cast<std::int64_t>(unit) * 512 + lane * 16, out);
    }
  }
  return side.widened;
}
