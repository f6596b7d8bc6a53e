// SPDX-License-Identifier: Apache-2.0
//! @file The fragment layout against the packing functions of its definition, written out again here, and
//! against what a tensor core makes of its words.
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kvcrumb/layout/convert.hpp"
#include "kvcrumb/layout/fragment.hpp"
#include "kvcrumb/reference/storage.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

struct coordinates {
  int p, r, g, k, c, t, h;
};

//! row = 16 p + 8 r + g, column = 16 k + 8 c + 2 t + h
coordinates taken_apart(int row, int column) {
  return {row / 16, row % 16 / 8, row % 8, column / 16, column % 16 / 8, column % 8 / 2, column % 2};
}

struct bit_place {
  int word, bit;
};

//! Word and lowest bit of a code at 2, 4 or 8 bits, 128 x 128.
bit_place place(int bits, int row, int column) {
  coordinates const x = taken_apart(row, column);
  int const fields = 16 / bits;
  int const loads = 8 / fields;
  int const lane = 4 * x.g + x.t;
  int const a = x.r + 2 * x.c;
  return {((x.k * loads + x.p / fields) * 32 + lane) * 4 + a, 16 * x.h + bits * (x.p % fields)};
}

//! The three places of a 3-bit code, 128 x 128: the word and bit of each of its bits.
std::array<bit_place, 3> place_of_three(int row, int column) {
  struct entry {
    int word, field;
  };
  constexpr int spare = -1;
  // [sub-tile p & 3][row half r][column half c]
  constexpr entry table[4][2][2] = {{{{0, 0}, {0, 3}}, {{1, 0}, {1, 3}}},
                                    {{{0, 1}, {0, 4}}, {{1, 1}, {1, 4}}},
                                    {{{2, 0}, {2, 3}}, {{2, 1}, {2, 4}}},
                                    {{{0, 2}, {1, 2}}, {{2, 2}, {spare, 0}}}};
  coordinates const x = taken_apart(row, column);
  int const lane = 4 * x.g + x.t;
  int const u = x.p / 4;
  entry const e = table[x.p % 4][x.r][x.c];
  std::array<bit_place, 3> places{};
  for (int i = 0; i < 3; ++i) {
    int const n = 3 * u + (e.word == spare ? i : e.word);
    int const word = ((3 * x.k + n / 2) * 32 + lane) * 2 + n % 2;
    places[static_cast<std::size_t>(i)] = {word, 16 * x.h + (e.word == spare ? 15 : 3 * e.field + i)};
  }
  return places;
}

section_spec square(side which, int bits) {
  return {.shape = {128, 128},
          .which = which,
          .bits = bits,
          .per_channel = which == side::key,
          .group = 128,
          .planes = 2,
          .param_bytes = 2};
}

//! Random codes in a section; codes[row * 128 + column].
struct filled {
  std::vector<unsigned> codes;
  std::vector<std::byte> section;
  std::uint32_t word(int index) const { return load_word(section.data(), index); }
};

filled random_section(section_spec const& s, unsigned seed) {
  std::mt19937 generator(seed);
  filled f{std::vector<unsigned>(128 * 128),
           std::vector<std::byte>(static_cast<std::size_t>(fragment::section_bytes(s)))};
  for (int row = 0; row < 128; ++row) {
    for (int column = 0; column < 128; ++column) {
      unsigned const code = static_cast<unsigned>(generator()) & ((1u << s.bits) - 1u);
      f.codes[static_cast<std::size_t>(row * 128 + column)] = code;
      bool const key = s.which == side::key;
      fragment::store(s, f.section.data(), key ? row : column, key ? column : row, code);
    }
  }
  return f;
}

//! Wrong operands: each register of A holds, in its two halves, the codes of (row, column) and (row, column +
//! 1) as fp16 patterns with the value code * factor * 2^-24.
struct operand_check {
  filled const& f;
  int wrong = 0;
  int seen = 0;

  void expect(std::uint32_t a, int row, int column, int factor) {
    for (int h = 0; h < 2; ++h) {
      double const actual = reference::value_of(reference::fp16_format, (a >> (16 * h)) & 0xFFFFu);
      double const code = f.codes[static_cast<std::size_t>(row * 128 + column + h)];
      wrong += actual == std::ldexp(code * factor, -24) ? 0 : 1;
      ++seen;
    }
  }
  //! One mma operand of 16 rows from 16 p and 16 columns from 16 k for this lane; factor per row half.
  void expect_operand(std::array<std::uint32_t, 4> const& a, int p, int k, int lane, int low, int high) {
    int const g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      expect(a[static_cast<std::size_t>(i)], 16 * p + g + 8 * (i & 1), 16 * k + 2 * t + 8 * (i >> 1),
             (i & 1) != 0 ? high : low);
    }
  }
};

}  // namespace

TEST_CASE("codes lie where the packing function puts them at 2, 4 and 8 bits", "[layout][fragment]") {
  int const bits = GENERATE(2, 4, 8);
  side const which = GENERATE(side::key, side::value);
  section_spec const s = square(which, bits);
  CAPTURE(bits, which == side::key);
  int wrong = 0;
  for (int row = 0; row < 128; ++row) {
    for (int column = 0; column < 128; ++column) {
      bit_place const expected = place(bits, row, column);
      int const token = which == side::key ? row : column, dim = which == side::key ? column : row;
      for (int i = 0; i < bits; ++i) {
        wrong += fragment::code_bit(s, token, dim, i) != 32 * expected.word + expected.bit + i ? 1 : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("codes lie where the table of three-bit words puts them", "[layout][fragment]") {
  side const which = GENERATE(side::key, side::value);
  section_spec const s = square(which, 3);
  int wrong = 0;
  for (int row = 0; row < 128; ++row) {
    for (int column = 0; column < 128; ++column) {
      auto const expected = place_of_three(row, column);
      int const token = which == side::key ? row : column, dim = which == side::key ? column : row;
      for (int i = 0; i < 3; ++i) {
        bit_place const at = expected[static_cast<std::size_t>(i)];
        wrong += fragment::code_bit(s, token, dim, i) != 32 * at.word + at.bit ? 1 : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("a fragment section of 128 x 128 has no padding", "[layout][fragment]") {
  side const which = GENERATE(side::key, side::value);
  CHECK(fragment::code_bytes(square(which, 1)) == 2048);
  CHECK(fragment::code_bytes(square(which, 2)) == 4096);
  CHECK(fragment::code_bytes(square(which, 3)) == 6144);
  CHECK(fragment::code_bytes(square(which, 4)) == 8192);
  CHECK(fragment::code_bytes(square(which, 8)) == 16384);
  CHECK(fragment::code_bytes(square(which, 16)) == 32768);
  CHECK(fragment::section_bytes(square(which, 2)) == 4096 + 2 * 256);
}

TEST_CASE("parameters lie in the order of the B operand", "[layout][fragment]") {
  side const which = GENERATE(side::key, side::value);
  int const bits = GENERATE(2, 3, 4, 8);
  section_spec const s = square(which, bits);
  for (int index = 0; index < 128; ++index) {
    coordinates const x = taken_apart(0, index);
    int const i = 2 * x.k + x.c;
    std::int64_t const inside = 64 * (i >> 2) + 16 * x.t + 4 * (i & 3) + 2 * x.h;
    CAPTURE(index);
    CHECK(fragment::param_offset(s, 0, index, 0) == fragment::code_bytes(s) + inside);        // scales
    CHECK(fragment::param_offset(s, 1, index, 0) == fragment::code_bytes(s) + 256 + inside);  // minima
  }
}

TEST_CASE("a masked word is a tensor-core operand at 2 bits", "[layout][fragment]") {
  section_spec const s = square(GENERATE(side::key, side::value), 2);
  filled const f = random_section(s, 1);
  operand_check check{f};
  for (int k = 0; k < 8; ++k) {
    for (int lane = 0; lane < 32; ++lane) {
      std::array<std::uint32_t, 4> w{}, a{}, b{};
      for (int i = 0; i < 4; ++i)
        w[static_cast<std::size_t>(i)] = f.word((k * 32 + lane) * 4 + i);
      for (int field = 0; field < 4; ++field) {
        std::uint32_t const mask = 0x00030003u << (2 * field);
        for (std::size_t i = 0; i < 4; ++i) {
          a[i] = w[i] & mask;
          b[i] = (w[i] >> 8) & mask;
        }
        int const factor = 1 << (2 * field);
        check.expect_operand(a, field, k, lane, factor, factor);
        check.expect_operand(b, field + 4, k, lane, factor, factor);
      }
    }
  }
  CHECK(check.wrong == 0);
  CHECK(check.seen == 128 * 128);
}

TEST_CASE("a masked word is a tensor-core operand at 4 bits", "[layout][fragment]") {
  section_spec const s = square(GENERATE(side::key, side::value), 4);
  filled const f = random_section(s, 2);
  operand_check check{f};
  for (int k = 0; k < 8; ++k) {
    for (int o = 0; o < 2; ++o) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int field = 0; field < 2; ++field) {
          std::uint32_t const mask = 0x000F000Fu << (4 * field);
          std::array<std::uint32_t, 4> a{}, b{};
          for (int i = 0; i < 4; ++i) {
            std::uint32_t const w = f.word(((2 * k + o) * 32 + lane) * 4 + i);
            a[static_cast<std::size_t>(i)] = w & mask;
            b[static_cast<std::size_t>(i)] = (w >> 8) & mask;
          }
          int const factor = field == 0 ? 1 : 16;
          check.expect_operand(a, 4 * o + field, k, lane, factor, factor);
          check.expect_operand(b, 4 * o + field + 2, k, lane, factor, factor);
        }
      }
    }
  }
  CHECK(check.wrong == 0);
  CHECK(check.seen == 128 * 128);
}

TEST_CASE("a masked word is a tensor-core operand at 8 bits", "[layout][fragment]") {
  section_spec const s = square(GENERATE(side::key, side::value), 8);
  filled const f = random_section(s, 3);
  operand_check check{f};
  for (int k = 0; k < 8; ++k) {
    for (int o = 0; o < 4; ++o) {
      for (int lane = 0; lane < 32; ++lane) {
        std::array<std::uint32_t, 4> even{}, odd{};
        for (int i = 0; i < 4; ++i) {
          std::uint32_t const w = f.word(((4 * k + o) * 32 + lane) * 4 + i);
          even[static_cast<std::size_t>(i)] = w & 0x00FF00FFu;
          odd[static_cast<std::size_t>(i)] = (w >> 8 & 0xFFu) | (w >> 24 << 16);  // prmt(w, 0, 0x4341)
        }
        check.expect_operand(even, 2 * o, k, lane, 1, 1);
        check.expect_operand(odd, 2 * o + 1, k, lane, 1, 1);
      }
    }
  }
  CHECK(check.wrong == 0);
  CHECK(check.seen == 128 * 128);
}

TEST_CASE("masked and assembled words are tensor-core operands at 3 bits", "[layout][fragment]") {
  section_spec const s = square(GENERATE(side::key, side::value), 3);
  filled const f = random_section(s, 4);
  operand_check check{f};
  constexpr std::uint32_t m0 = 0x00070007u, m1 = m0 << 3, m2 = m0 << 6;
  for (int k = 0; k < 8; ++k) {
    for (int u = 0; u < 2; ++u) {
      for (int lane = 0; lane < 32; ++lane) {
        std::uint32_t x[3], y[3];
        for (int i = 0; i < 3; ++i) {
          int const n = 3 * u + i;
          x[i] = f.word(((3 * k + n / 2) * 32 + lane) * 2 + n % 2);
          y[i] = x[i] >> 9;
        }
        std::uint32_t const assembled =
            (y[0] & 0x00400040u) | ((x[1] >> 8) & 0x00800080u) | ((x[2] >> 7) & 0x01000100u);
        check.expect_operand({x[0] & m0, x[1] & m0, y[0] & m0, y[1] & m0}, 4 * u, k, lane, 1, 1);
        check.expect_operand({x[0] & m1, x[1] & m1, y[0] & m1, y[1] & m1}, 4 * u + 1, k, lane, 8, 8);
        check.expect_operand({x[2] & m0, x[2] & m1, y[2] & m0, y[2] & m1}, 4 * u + 2, k, lane, 1, 8);
        check.expect_operand({x[0] & m2, x[2] & m2, x[1] & m2, assembled}, 4 * u + 3, k, lane, 64, 64);
      }
    }
  }
  CHECK(check.wrong == 0);
  CHECK(check.seen == 128 * 128);
}

TEST_CASE("one-bit words hold sixteen blocks of a lane", "[layout][fragment]") {
  // Eight blocks along the rows and two along the columns share a register; bit = p + 8 (k mod 2) of each
  // half.
  section_spec const s = square(GENERATE(side::key, side::value), 1);
  int wrong = 0;
  for (int row = 0; row < 128; ++row) {
    for (int column = 0; column < 128; ++column) {
      coordinates const x = taken_apart(row, column);
      int const word = (x.k / 2 * 32 + 4 * x.g + x.t) * 4 + x.r + 2 * x.c;
      int const bit = 16 * x.h + x.p + 8 * (x.k % 2);
      bool const key = s.which == side::key;
      wrong += fragment::code_bit(s, key ? row : column, key ? column : row, 0) != 32 * word + bit ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("the fragment layout says what it cannot hold", "[layout][fragment]") {
  section_spec s = square(side::key, 2);
  CHECK(fragment::supports(s) == status::ok);
  for (int const dim : {1, 46, 80, 112, 120, 160, 512, 576}) {
    s.shape.head_dim = dim;
    CAPTURE(dim);
    CHECK(fragment::supports(s) == status::bad_head_dim);
  }
  s.shape.head_dim = 128;
  for (int const bits : {0, 5, 6, 7, 9, 32}) {
    s.bits = bits;
    CAPTURE(bits);
    CHECK(fragment::supports(s) == status::bad_bits);
  }
  s.bits = 3;
  s.shape.tile_tokens = 16;
  CHECK(fragment::supports(s) == status::bad_tile_tokens);
}
