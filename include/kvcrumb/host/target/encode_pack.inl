// SPDX-License-Identifier: Apache-2.0
//! @file Codes of rows into the words of a section in the fragment layout; neighbouring slots keep theirs. A
//! source adds the codes of 32 channels of a row: at(row).add(sum, chunk, weight). Included once per target
//! by targets.hpp.

//! A line of codes, shifted; those outside of the masks of both row halves stay as they are.
KVCRUMB_TARGET_INLINE void put_line(std::byte* at, unsigned const (&mask)[2], int shift,
                                    i32x16 const& codes) noexcept {
  unsigned const low = mask[0] << shift, high = mask[1] << shift;
  i32x16 v = codes << shift;
  if ((low & high) != 0xFFFFu) {
    std::uint64_t const a = low * 0x10001u, b = high * 0x10001u;
    auto const ours = cast<i32x16>(filled<u64x8>(b << 32 | a));  // dword 4 t + 2 c + r
    v |= load_as<i32x16>(at) & ~ours;
  }
  store_as(at, v);
}

//! Keys: rows of operands are tokens. Rows [0, count) of the source go to slots from `slot` on. `next` is
//! fetched meanwhile.
template <class Source>
void pack_keys(encode_plan const& plan, int slot, int count, std::byte* codes, Source const& source,
               next_rows& next) noexcept {
  int const fields = plan.p_fields, bits = plan.bits, chunks = plan.width() / 32, p_units = plan.p_units;
  unsigned const field = (1u << bits) - 1u;
  int const fetched = next.left / (p_units * 8 * chunks) + 1;  // to fetch at each step
  u16x32 weights[16];                                          // of fields
  for (int f = 0; f < fields; ++f)
    weights[f] = filled<u16x32>(static_cast<std::uint16_t>(1u << (bits * f)));
  std::int64_t offset[16];  // of blocks of 16 channels
  int shift[16];
  for (int k = 0; k < 2 * chunks; ++k) {
    offset[k] = std::int64_t{k / plan.k_fields} * p_units * 512;
    shift[k] = bits * fields * (k % plan.k_fields);
  }
  for (int pp = 0; pp < p_units; ++pp) {
    for (int g = 0; g < 8; ++g) {
      int first[2], end[2], row[2];  // fields that hold our tokens, of both row halves
      unsigned mask[2];
      for (int r = 0; r < 2; ++r) {
        int const base = 16 * pp * fields + 8 * r + g;  // token of field 0
        first[r] = slot > base ? (slot - base + 15) / 16 : 0;
        end[r] = slot + count > base ? (slot + count - base + 15) / 16 : 0;
        if (end[r] > fields) end[r] = fields;
        row[r] = base + 16 * first[r] - slot;
        mask[r] = 0;
        for (int f = first[r]; f < end[r]; ++f)
          mask[r] |= field << (bits * f);
      }
      if ((mask[0] | mask[1]) == 0) continue;
      std::byte* const lines = codes + std::int64_t{pp} * 512 + g * 64;
      for (int m = 0; m < chunks; ++m) {
        next.step(fetched);
        u16x32 sum[2] = {};
        KVCRUMB_TARGET_UNROLL
        for (int r = 0; r < 2; ++r) {
          int i = row[r];
          for (int f = first[r]; f < end[r]; ++f, i += 16)
            sum[r] = source.at(i).add(sum[r], m, weights[f]);
        }
        put_line(lines + offset[2 * m], mask, shift[2 * m], encode_ops::template line<0>(sum[0], sum[1]));
        put_line(lines + offset[2 * m + 1], mask, shift[2 * m + 1],
                 encode_ops::template line<1>(sum[0], sum[1]));
      }
    }
  }
}

//! Values: columns of operands are tokens.
template <class Source>
void pack_values(encode_plan const& plan, int slot, int count, std::byte* codes, Source const& source,
                 next_rows& next) noexcept {
  int const fields = plan.p_fields, bits = plan.bits, p_units = plan.p_units;
  unsigned const all = static_cast<unsigned>((std::uint64_t{1} << (bits * fields)) - 1u);
  int const fetched = next.left / ((count + 1) / 2 * p_units) + 1;  // to fetch at each step
  u16x32 factors[8];                                                // of two neighbouring fields
  for (int f = 0; f < fields; f += 2) {
    factors[f / 2] = encode_ops::joined(filled<u16x16>(static_cast<std::uint16_t>(1u << (bits * f))),
                                        filled<u16x16>(static_cast<std::uint16_t>(1u << (bits * (f + 1)))));
  }
  for (int pair = slot / 2; 2 * pair < slot + count; ++pair) {  // the two halves of a word
    int const k = pair / 8, c = (pair >> 2) & 1, t = pair & 3, shift = bits * fields * (k % plan.k_fields);
    int const row = 2 * pair - slot;
    bool const has[2] = {row >= 0, row + 1 < count};
    unsigned const mask = (has[0] ? all << shift : 0u) | (has[1] ? all << shift << 16 : 0u);
    std::byte* unit = codes + std::int64_t{k / plan.k_fields} * p_units * 512 + 16 * t + 8 * c;
    for (int pp = 0, m = 0; pp < p_units; ++pp, m += fields / 2, unit += 512) {
      next.step(fetched);
      u32x16 words{};  // of row 8 r + g
      for (int h = 0; h < 2; ++h) {
        if (!has[h]) continue;
        u16x32 sum{};
        auto from = source.at(row + h);
        for (int f = 0; f < fields / 2; ++f)
          sum = from.add(sum, m + f, factors[f]);
        i32x16 const both =
            encode_ops::zero_extended(encode_ops::lower_half(sum) | encode_ops::upper_half(sum));
        words |= cast<u32x16>(both) << static_cast<std::uint32_t>(shift + 16 * h);
      }
      std::uint32_t word[16];
      store_as(word, words);
      KVCRUMB_TARGET_UNROLL
      for (int x = 0; x < 16; ++x) {  // 8 r + g to lane 4 g + t, register r + 2 c
        std::byte* const at = unit + 64 * (x & 7) + 4 * (x >> 3);
        if (mask != 0xFFFFFFFFu) {
          std::uint32_t old;
          std::memcpy(&old, at, sizeof old);
          word[x] |= old & ~mask;
        }
        std::memcpy(at, &word[x], sizeof word[x]);
      }
    }
  }
}

//! Units [first, end) of a 3-bit section from their 4-bit form: the inverse of widen.
inline void narrow_units(std::byte const* wide, int first, int end, std::byte* section) noexcept {
  for (int unit = first; unit < end; ++unit) {
    for (int lane = 0; lane < 32; ++lane) {
      std::uint32_t w[4];
      std::memcpy(w, wide + std::int64_t{unit} * 512 + lane * 16, sizeof w);
      std::uint32_t const top = w[3];
      std::uint32_t const out[3] = {
          (w[0] & 0x00070007u) | ((w[0] >> 1) & 0x00380038u) | ((w[0] >> 6) & 0x01C001C0u) |
              ((w[2] & 0x00070007u) << 9) | ((w[2] & 0x00700070u) << 8) | ((top & 0x10001000u) << 3),
          (w[1] & 0x00070007u) | ((w[1] >> 1) & 0x00380038u) | ((w[2] >> 6) & 0x01C001C0u) |
              ((top & 0x00070007u) << 9) | ((top & 0x00700070u) << 8) | ((top & 0x20002000u) << 2),
          ((w[0] >> 8) & 0x00070007u) | ((w[1] >> 5) & 0x00380038u) | ((w[1] >> 6) & 0x01C001C0u) |
              ((w[2] & 0x07000700u) << 1) | ((top & 0x07000700u) << 4) | ((top & 0x40004000u) << 1)};
      for (int i = 0; i < 3; ++i) {
        int const n = 3 * unit + i;
        std::memcpy(section + ((std::int64_t{n >> 1} * 32 + lane) * 2 + (n & 1)) * 4, &out[i], 4);
      }
    }
  }
}
//! The 4-bit form of units of a 3-bit section, as widen.inl has it for whole sections.
inline void widen_units(std::byte const* section, int first, int end, std::byte* wide) noexcept {
  for (int unit = first; unit < end; ++unit) {
    for (int lane = 0; lane < 32; ++lane) {
      std::uint32_t w[3];
      for (int i = 0; i < 3; ++i) {
        int const n = 3 * unit + i;
        std::memcpy(&w[i], section + ((std::int64_t{n >> 1} * 32 + lane) * 2 + (n & 1)) * 4, 4);
      }
      std::uint32_t const out[4] = {(w[0] & 0x00070007u) | ((w[0] << 1) & 0x00700070u) |
                                        ((w[2] << 8) & 0x07000700u) | ((w[0] << 6) & 0x70007000u),
                                    (w[1] & 0x00070007u) | ((w[1] << 1) & 0x00700070u) |
                                        ((w[2] << 5) & 0x07000700u) | ((w[2] << 6) & 0x70007000u),
                                    ((w[0] >> 9) & 0x00070007u) | ((w[0] >> 8) & 0x00700070u) |
                                        ((w[2] >> 1) & 0x07000700u) | ((w[1] << 6) & 0x70007000u),
                                    ((w[1] >> 9) & 0x00070007u) | ((w[1] >> 8) & 0x00700070u) |
                                        ((w[2] >> 4) & 0x07000700u) | ((w[0] >> 3) & 0x10001000u) |
                                        ((w[1] >> 2) & 0x20002000u) | ((w[2] >> 1) & 0x40004000u)};
      std::memcpy(wide + std::int64_t{unit} * 512 + lane * 16, out, sizeof out);
    }
  }
}

//! Rows of a source into a section of either side.
template <class Source>
void pack_section(encode_plan const& plan, int slot, int count, std::byte* section, std::byte* wide,
                  Source const& source, next_rows& next) noexcept {
  int first = 0, end = plan.units;
  if (!plan.key) {  // units hold whole blocks of tokens
    int const tokens = 16 * plan.k_fields;
    first = slot / tokens * plan.p_units;
    end = ((slot + count - 1) / tokens + 1) * plan.p_units;
  }
  bool const three = plan.spec.bits == 3;
  std::byte* const codes = three ? wide : section;
  if (three) widen_units(section, first, end, wide);
  if (plan.key) {
    pack_keys(plan, slot, count, codes, source, next);
  } else {
    pack_values(plan, slot, count, codes, source, next);
  }
  if (three) narrow_units(wide, first, end, section);
}
