// SPDX-License-Identifier: Apache-2.0
//! @file Integer sums of a section for many query rows at once by a matrix unit. Included once by
//! targets.hpp.

inline constexpr bool has_matrix = true;

//! The operand of one query row: rows 2 row and 2 row + 1 of the blocks of A, high and low terms. `a` has a
//! block for each distinct element and 64 columns.
KVCRUMB_TARGET_INLINE void build_matrix_operand(section_plan const& p, operand_sets const& sets,
                                                std::int8_t const* terms, int row, std::byte* a) noexcept {
  // 4-byte element 4 i + t of a row belongs to column block i and lane t: see build_operand.
  __m512i const order = _mm512_setr_epi32(0, 8, 1, 9, 4, 12, 5, 13, 2, 10, 3, 11, 6, 14, 7, 15);
  __m512i const even = _mm512_setr_epi32(0, 8, 1, 9, 0, 8, 1, 9, 0, 8, 1, 9, 0, 8, 1, 9);
  int const padded = padded_columns(p), depth = matrix_depth(p);
  a += row * 128;
  for (int number = 0; number < sets.distinct_count; ++number) {
    operand_sets::element const& e = sets.distinct[number];
    std::int8_t const* const of_group = terms + static_cast<std::int64_t>(e.group) * 2 * padded;
    for (int q = 0; q < depth; ++q, a += matrix_batch::block_bytes) {
      for (int term = 0; term < 2; ++term) {
        std::int8_t const* const source = of_group + term * padded;
        __m512i out = _mm512_setzero_si512();
        if (p.k_fields == 1) {
          out = _mm512_permutexvar_epi32(order, _mm512_load_si512(source + 64 * q));
        } else {
          for (int i = 0; i < 4; ++i) {
            int const k = (4 * q + i) * p.k_fields + e.block;
            if (16 * k >= p.columns) continue;  // padding
            __m512i const index = _mm512_add_epi32(even, _mm512_set1_epi32(4 * (k & 1) + (k & 2)));
            out = _mm512_mask_permutexvar_epi32(out, static_cast<__mmask16>(15 << 4 * i), index,
                                                _mm512_load_si512(source + (k >> 2) * 64));
          }
        }
        _mm512_store_si512(a + 64 * term, out);
      }
    }
  }
}

//! The sums of a section, unit by unit: a unit is a pp and half of the g, and gives a C of each shift. Codes
//! of some units become blocks of B, these are multiplied, and sums of the units before are put in order.
template <int Bits, bool Levels>
struct matrix_section {
  static constexpr int shifts = 8 / Bits;
  static constexpr int units = matrix_scratch::step_tiles(shifts) / shifts;  //!< of a step
  static constexpr int planes = Levels ? 2 : 1;                              //!< of B: bytes of a level

  section_plan const& p;
  operand_sets const& sets;
  matrix_unit unit;
  int rows;            //!< query rows
  int q_begin, q_end;  //!< blocks of 64 columns
  std::byte const* codes;
  std::byte const* operand;  //!< build_matrix_operand of each row
  std::int32_t* const* sums;
  level_table const* levels;
  matrix_scratch const& scratch;

  int depth() const noexcept { return matrix_depth(p); }
  std::byte* block(int tile, int plane, int q) const noexcept {
    int const at = (tile * planes + plane) * depth() + q;
    return scratch.b + static_cast<std::int64_t>(at) * matrix_batch::block_bytes;
  }
  std::int32_t* product(int step, int number) const noexcept {
    return scratch.c + ((step & 1) * scratch.products + number) * matrix_batch::sums;
  }
  int end_of(int step) const noexcept {
    int const end = (step + 1) * units;
    return end < 2 * p.p_units ? end : 2 * p.p_units;
  }

  //! Codes of a step as blocks of B: four lines of one k and four g have, for each of their lanes t, the
  //! sixteen rows of the factors (k, t).
  KVCRUMB_TARGET_INLINE void unpack(int step, next_lines& next) const noexcept {
    __m512i const order = byte_order();
    __m512i high_level = _mm512_setzero_si512(), low_level = high_level;
    if constexpr (Levels) {
      high_level = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels->high)));
      low_level = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(levels->low)));
    }
    std::int64_t const stride = static_cast<std::int64_t>(p.p_units) * 512;
    std::int64_t const plane_bytes = std::int64_t{depth()} * matrix_batch::block_bytes;
    for (int u = step * units; u < end_of(step); ++u) {
      for (int q = q_begin; q < q_end; ++q) {
        std::byte* to = block((u - step * units) * shifts, 0, q);
        for (int i = 0; i < 4; ++i, to += 256) {
          int const kk = 4 * q + i;
          __m512i x[4];
          if (kk < p.k_units) {
            std::byte const* const line = codes + kk * stride + (u >> 1) * 512 + (u & 1) * 256;
            KVCRUMB_TARGET_UNROLL
            for (int g = 0; g < 4; ++g)
              x[g] = _mm512_shuffle_epi8(_mm512_loadu_si512(line + 64 * g), order);
          } else {  // multiplied with zeros
            x[0] = x[1] = x[2] = x[3] = _mm512_setzero_si512();
          }
          fetch(next, 2);
          __m512i const a = _mm512_shuffle_i32x4(x[0], x[1], 0x44);
          __m512i const b = _mm512_shuffle_i32x4(x[0], x[1], 0xEE);
          __m512i const c = _mm512_shuffle_i32x4(x[2], x[3], 0x44);
          __m512i const d = _mm512_shuffle_i32x4(x[2], x[3], 0xEE);
          __m512i const y[4] = {_mm512_shuffle_i32x4(a, c, 0x88), _mm512_shuffle_i32x4(a, c, 0xDD),
                                _mm512_shuffle_i32x4(b, d, 0x88), _mm512_shuffle_i32x4(b, d, 0xDD)};
          KVCRUMB_TARGET_UNROLL
          for (int j = 0; j < 4 * shifts; ++j) {
            int const s = j / 4, t = j % 4;
            std::byte* const at = to + s * planes * plane_bytes + 64 * t;
            if constexpr (Levels) {
              __m512i const code = _mm512_and_si512(s == 0 ? y[t] : shifted_right(y[t], s * Bits),
                                                    _mm512_set1_epi8((1 << Bits) - 1));
              _mm512_store_si512(at, _mm512_shuffle_epi8(high_level, code));
              _mm512_store_si512(at + plane_bytes, _mm512_shuffle_epi8(low_level, code));
            } else if constexpr (Bits < 8) {
              _mm512_store_si512(
                  at, _mm512_and_si512(y[t],
                                       _mm512_set1_epi8(static_cast<char>(((1 << Bits) - 1) << (s * Bits)))));
            } else {
              _mm512_store_si512(at, y[t]);
            }
          }
        }
      }
    }
  }

  //! Memory answers slower than a step unpacks, and a full queue of requests stalls the processor: they are
  //! spread over everything.
  static KVCRUMB_TARGET_INLINE void fetch(next_lines& next, int n) noexcept {
    for (; n > 0 && next.at < next.end; --n, next.at += 64)
      ops::prefetch(next.at);
  }

  //! Products that may still be in registers.
  struct pending {
    std::int32_t* c = nullptr;
    int count = 0;
  };
  KVCRUMB_TARGET_INLINE void multiply(matrix_batch& m, pending& last) const noexcept {
    if (unit == matrix_unit::amx) {
      store(last);
      multiply_amx(m);
      last = {m.c, m.count};
    } else {
      multiply_emulated(m);
    }
    m.c += m.count * matrix_batch::sums;
    m.count = 0;
  }
  KVCRUMB_TARGET_INLINE void store(pending& last) const noexcept {
    if (last.count > 0) store_products_amx(last.c, last.count);
    last.count = 0;
  }
  //! Products of a step, tile by tile, of a tile one for each distinct element of its set and each plane.
  template <bool Single>
  KVCRUMB_TARGET_INLINE void multiply(int step, pending& last, next_lines& next) const noexcept {
    matrix_batch m;
    m.rows = 2 * rows;
    m.depth = q_end - q_begin;
    m.c = product(step, 0);
    for (int tile = 0; tile < (end_of(step) - step * units) * shifts; ++tile) {
      int const set = sets.of[(step * units + tile / shifts) / 2 * shifts + tile % shifts];
      for (int d = 0; d < (Single ? 1 : sets.distinct_in[set]); ++d) {
        std::byte const* const a =
            operand +
            (static_cast<std::int64_t>(sets.numbers[set][d]) * depth() + q_begin) * matrix_batch::block_bytes;
        for (int plane = 0; plane < planes; ++plane) {
          fetch(next, 1);
          m.a[m.count] = a;
          m.b[m.count] = block(tile, plane, q_begin);
          if (++m.count == matrix_batch::most) multiply(m, last);
        }
      }
    }
    if (m.count > 0) multiply(m, last);
  }

  //! Sums of query row h in the products from `number` on.
  KVCRUMB_TARGET_INLINE __m512i total(std::int32_t const* c, int h) const noexcept {
    __m512i const high = _mm512_load_si512(c + 32 * h), low = _mm512_load_si512(c + 32 * h + 16);
    __m512i const sum = _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
    return Levels ? _mm512_add_epi32(sum, _mm512_load_si512(c + matrix_batch::sums + 32 * h)) : sum;
  }
  //! Single: of the elements of every set no two differ.
  template <bool Single>
  KVCRUMB_TARGET_INLINE void put_in_order(int step, next_lines& next) const noexcept {
    int number = 0;
    for (int u = step * units; u < end_of(step); ++u) {
      int first[shifts];
      for (int s = 0; s < shifts; ++s) {
        first[s] = number;
        number += planes * (Single ? 1 : sets.distinct_in[sets.of[u / 2 * shifts + s]]);
      }
      for (int h = 0; h < rows; ++h) {
        fetch(next, 1);
        __m512i row[shifts];  // lane: g, element d
        KVCRUMB_TARGET_UNROLL
        for (int s = 0; s < shifts; ++s) {
          row[s] = total(product(step, first[s]), h);
          int const set = sets.of[u / 2 * shifts + s];
          for (int d = 1; !Single && d < 4; ++d)
            row[s] =
                _mm512_mask_mov_epi32(row[s], static_cast<__mmask16>(0x1111 << d),
                                      total(product(step, first[s] + planes * sets.place_in[set][d]), h));
          if (!Levels) row[s] = reinterpret_cast<__m512i>(reinterpret_cast<i32x16>(row[s]) >> (s * Bits));
        }
        store_rows<shifts>(p, u >> 1, u & 1, row, sums[h]);
      }
    }
  }

  void run(next_lines next, background& other) const noexcept {
    sets.single ? run_steps<true>(next, other) : run_steps<false>(next, other);
  }
  template <bool Single>
  void run_steps(next_lines next, background& other) const noexcept {
    int const steps = (2 * p.p_units + units - 1) / units;
    int const share = (other.count - other.next + steps) / (steps + 1);
    auto const others = [&](int n) {
      for (; n > 0; --n) {
        other.step();
        fetch(next, 3);
      }
    };
    pending last;
    for (int step = 0; step < steps; ++step) {
      store(last);
      unpack(step, next);
      if (step > 0) put_in_order<Single>(step - 1, next);
      others(share);  // a matrix unit cannot load what has not left the store buffer
      multiply<Single>(step, last, next);
    }
    others(other.count - other.next);
    store(last);
    put_in_order<Single>(steps - 1, next);
    fetch(next, static_cast<int>(next.end - next.at) / 64 + 1);
  }
};
