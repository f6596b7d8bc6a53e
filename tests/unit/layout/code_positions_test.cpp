// SPDX-License-Identifier: Apache-2.0
//! @file Every layout: distinct bits for all codes, distinct bytes for all parameters, and nothing else
//! touched.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kvcrumb/layout/convert.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

//! Shapes, widths and groups a layout is tried with.
template <class L>
std::vector<section_spec> all_specs();

template <>
std::vector<section_spec> all_specs<fragment>() {
  std::vector<section_spec> specs;
  for (int const dim : {64, 96, 128, 192, 256}) {
    for (int const tokens : {32, 64, 128}) {
      for (int const bits : {1, 2, 3, 4, 8, 16}) {
        for (side const which : {side::key, side::value}) {
          bool const per_channel = which == side::key;
          int const group = per_channel ? 32 : (bits == 4 ? 40 : 64);  // 40: a ragged last group
          specs.push_back({{dim, tokens},
                           which,
                           bits,
                           per_channel,
                           group,
                           1 + bits % 2,
                           bits == 8   ? 4
                           : bits == 1 ? 1
                                       : 2});
        }
      }
    }
  }
  return specs;
}

template <>
std::vector<section_spec> all_specs<linear>() {
  std::vector<section_spec> specs;
  for (int const dim : {1, 46, 64, 80, 128}) {
    for (int const tokens : {32, 128}) {
      for (int const bits : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
        for (bool const per_channel : {true, false}) {
          specs.push_back({{dim, tokens}, side::key, bits, per_channel, 32, 2, bits == 8 ? 4 : 2});
        }
      }
    }
  }
  return specs;
}

template <>
std::vector<section_spec> all_specs<ggml_block>() {
  std::vector<section_spec> specs;
  for (int const dim : {32, 64, 96, 128, 256}) {
    for (int const tokens : {32, 64, 128}) {
      for (int const bits : {4, 8})
        specs.push_back({{dim, tokens}, side::value, bits, false, 32, 1, 2});
    }
  }
  return specs;
}

std::string text_of(section_spec const& s) {
  return "head_dim " + std::to_string(s.shape.head_dim) + " tokens " + std::to_string(s.shape.tile_tokens) +
         " bits " + std::to_string(s.bits) + (s.which == side::key ? " key" : " value") +
         (s.per_channel ? " per channel " : " per token ") + std::to_string(s.group);
}

std::vector<std::byte> noise(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(static_cast<std::size_t>(n));
  for (std::byte& b : bytes)
    b = static_cast<std::byte>(generator() & 0xFFu);
  return bytes;
}

//! Code bits written one by one; ggml's signed bytes have their top bit flipped.
template <class L>
void naive_store(section_spec const& s, std::vector<std::byte>& section, int token, int dim, unsigned code) {
  if (std::is_same_v<L, ggml_block> && s.bits == 8) code ^= 0x80u;
  for (int i = 0; i < s.bits; ++i) {
    auto const position = static_cast<std::size_t>(L::code_bit(s, token, dim, i));
    unsigned const mask = 1u << (position % 8);
    unsigned const old = std::to_integer<unsigned>(section[position / 8]);
    section[position / 8] = static_cast<std::byte>(((code >> i) & 1u) != 0 ? old | mask : old & ~mask);
  }
}

unsigned code_at(section_spec const& s, int token, int dim, unsigned seed) {
  unsigned const x = static_cast<unsigned>(token * 131 + dim * 7) * 2654435761u + seed;
  return (x >> 13) & ((1u << s.bits) - 1u);
}

}  // namespace

TEMPLATE_TEST_CASE("codes and parameters occupy distinct bits and the rest is padding", "[layout]", linear,
                   fragment, ggml_block) {
  for (section_spec const& s : all_specs<TestType>()) {
    INFO(text_of(s));
    REQUIRE(TestType::supports(s) == status::ok);
    std::int64_t const bytes = TestType::section_bytes(s);
    std::vector<int> owner(static_cast<std::size_t>(8 * bytes), 0);  // 1 a code, 2 a parameter
    std::int64_t twice = 0, outside = 0, codes = 0, params = 0;
    for (int token = 0; token < s.shape.tile_tokens; ++token) {
      for (int dim = 0; dim < s.shape.head_dim; ++dim) {
        for (int i = 0; i < s.bits; ++i) {
          std::int64_t const at = TestType::code_bit(s, token, dim, i);
          bool const inside = at >= 0 && at < 8 * bytes;
          outside += inside ? 0 : 1;
          if (!inside) continue;
          twice += owner[static_cast<std::size_t>(at)] != 0 ? 1 : 0;
          owner[static_cast<std::size_t>(at)] = 1;
          ++codes;
        }
      }
    }
    for (int plane = 0; plane < s.planes; ++plane) {
      for (int which = 0; which < s.owners(); ++which) {
        for (int group = 0; group < s.groups(); ++group) {
          std::int64_t const first = 8 * TestType::param_offset(s, plane, which, group);
          for (std::int64_t at = first; at < first + 8 * s.param_bytes; ++at) {
            bool const inside = at >= 0 && at < 8 * bytes;
            outside += inside ? 0 : 1;
            if (!inside) continue;
            twice += owner[static_cast<std::size_t>(at)] != 0 ? 1 : 0;
            owner[static_cast<std::size_t>(at)] = 2;
            ++params;
          }
        }
      }
    }
    CHECK(twice == 0);
    CHECK(outside == 0);
    CHECK(codes == std::int64_t{s.bits} * s.shape.tile_tokens * s.shape.head_dim);
    CHECK(params == 8 * s.param_count() * s.param_bytes);
    // Padding is what code_bytes and section_bytes count beyond these, and small.
    std::int64_t const padding = std::count(owner.begin(), owner.end(), 0);
    CHECK(padding == 8 * bytes - codes - params);
    CHECK(TestType::code_bytes(s) * 8 >= codes);
    CHECK(TestType::code_bytes(s) + s.param_count() * s.param_bytes <= bytes);
    if (std::is_same_v<TestType, ggml_block>) CHECK(padding == 0);
  }
}

TEST_CASE("padding appears only where blocks do not fill whole registers", "[layout][fragment]") {
  for (section_spec const& s : all_specs<fragment>()) {
    INFO(text_of(s));
    std::int64_t const codes = std::int64_t{s.bits} * s.shape.tile_tokens * s.shape.head_dim;
    bool const key = s.which == side::key;
    int const rows = (key ? s.shape.tile_tokens : s.shape.head_dim) / 16;     // blocks of 16 along the rows
    int const columns = (key ? s.shape.head_dim : s.shape.tile_tokens) / 16;  // and along the columns
    int const fields = s.bits == 3 ? 4 : 16 / s.bits;
    int together = 1;  // blocks along the rows in one register: as many as divide `rows`
    while (together < fields && rows % (2 * together) == 0)
      together *= 2;
    int const across = fields / together;  // the rest of the fields are blocks along the columns
    int const registers = rows / together * ((columns + across - 1) / across);
    // At 3 bits a unit has three words per lane and two words are loaded together.
    std::int64_t const expected = s.bits == 3 ? (registers * 3 + 1) / 2 * 256 : registers * 512;
    CHECK(fragment::code_bytes(s) == expected);
    if (rows * columns == registers * fields && (s.bits != 3 || registers % 2 == 0))
      CHECK(8 * expected == codes);
    if (s.shape.tile_tokens == 128 && s.shape.head_dim == 128) CHECK(8 * expected == codes);
  }
}

TEMPLATE_TEST_CASE("store changes its own bits only and load gives them back", "[layout]", linear, fragment,
                   ggml_block) {
  for (section_spec const& s : all_specs<TestType>()) {
    if (s.shape.head_dim > 128 && s.shape.tile_tokens > 32) continue;
    INFO(text_of(s));
    std::vector<std::byte> actual = noise(TestType::section_bytes(s), 5);
    std::vector<std::byte> expected = actual;
    int const count = s.shape.tile_tokens * s.shape.head_dim;
    // Upwards and downwards: damage done to a neighbour on either side outlives one of the passes.
    for (bool const upwards : {true, false}) {
      for (int i = 0; i < count; ++i) {
        int const at = upwards ? i : count - 1 - i;
        int const token = at / s.shape.head_dim, dim = at % s.shape.head_dim;
        unsigned const code = code_at(s, token, dim, upwards ? 1u : 77u);
        TestType::store(s, actual.data(), token, dim, code | (upwards ? 0u : 0xFFFF0000u));
        naive_store<TestType>(s, expected, token, dim, code);
      }
      CHECK(actual == expected);
      int wrong = 0;
      for (int at = 0; at < count; ++at) {
        int const token = at / s.shape.head_dim, dim = at % s.shape.head_dim;
        wrong += TestType::load(s, actual.data(), token, dim) != code_at(s, token, dim, upwards ? 1u : 77u)
                     ? 1
                     : 0;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("bits of a stream are read and written at every position", "[layout][bit_stream]") {
  for (int count = 1; count <= 16; ++count) {
    for (int position = 0; position < 24; ++position) {
      for (unsigned const background : {0x00u, 0xFFu, 0xA5u}) {
        unsigned const value = 0x5A3Cu >> (position % 3);
        std::vector<std::byte> bytes(6, static_cast<std::byte>(background));
        std::vector<std::byte> expected = bytes;
        store_bits(bytes.data(), position, count, value);
        for (int i = 0; i < count; ++i) {
          auto const at = static_cast<std::size_t>(position + i);
          unsigned const mask = 1u << (at % 8);
          unsigned const old = std::to_integer<unsigned>(expected[at / 8]);
          expected[at / 8] = static_cast<std::byte>(((value >> i) & 1u) != 0 ? old | mask : old & ~mask);
        }
        CAPTURE(count, position, background);
        CHECK(bytes == expected);
        CHECK(load_bits(bytes.data(), position, count) == (value & ((1u << count) - 1u)));
      }
    }
  }
}

TEST_CASE("bits are read without touching bytes that do not hold them", "[layout][bit_stream]") {
  // Heap blocks of exactly the needed size: a sanitizer reports any other access.
  for (int count = 1; count <= 16; ++count) {
    for (int position = 0; position < 8; ++position) {
      std::vector<std::byte> bytes(static_cast<std::size_t>((position + count + 7) / 8), std::byte{0xFF});
      CHECK(load_bits(bytes.data(), position, count) == (1u << count) - 1u);
      store_bits(bytes.data(), position, count, 0u);
      CHECK(load_bits(bytes.data(), position, count) == 0u);
    }
  }
}

TEST_CASE("words are little-endian at any alignment", "[layout][bit_stream]") {
  std::vector<std::byte> bytes(17);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i + 1);
  CHECK(load_word(bytes.data(), 0) == 0x04030201u);
  CHECK(load_word(bytes.data(), 2) == 0x0C0B0A09u);
  CHECK(load_word(bytes.data() + 1, 3) == 0x11100F0Eu);
  bytes[3] = std::byte{0xFF};
  CHECK(load_word(bytes.data(), 0) == 0xFF030201u);
}

TEST_CASE("tile shapes are checked", "[layout]") {
  for (int const tokens : {32, 64, 128}) {
    CHECK(check_shape({1, tokens}) == status::ok);
    CHECK(check_shape({1024, tokens}) == status::ok);
  }
  for (int const tokens : {-32, 0, 1, 16, 33, 48, 96, 256})
    CHECK(check_shape({128, tokens}) == status::bad_tile_tokens);
  for (int const dim : {-128, 0, 1025, 1 << 30})
    CHECK(check_shape({dim, 128}) == status::bad_head_dim);
}

TEST_CASE("layouts refuse what they cannot hold", "[layout]") {
  section_spec s{{80, 32}, side::key, 5, false, 32, 2, 2};
  CHECK(linear::supports(s) == status::ok);
  for (int const bits : {-1, 0, 9, 12, 15, 17, 32}) {
    s.bits = bits;
    CHECK(linear::supports(s) == status::bad_bits);
  }
  s.bits = 4;
  s.shape.tile_tokens = 40;
  CHECK(linear::supports(s) == status::bad_tile_tokens);
  CHECK(ggml_block::supports(s) == status::bad_tile_tokens);

  section_spec block{{64, 32}, side::key, 8, false, 32, 1, 2};
  CHECK(ggml_block::supports(block) == status::ok);
  auto const with = [&](auto change) {
    section_spec changed = block;
    change(changed);
    return ggml_block::supports(changed);
  };
  CHECK(with([](section_spec& c) { c.shape.head_dim = 80; }) == status::bad_head_dim);
  CHECK(with([](section_spec& c) { c.bits = 2; }) == status::bad_bits);
  CHECK(with([](section_spec& c) { c.group = 64; }) == status::bad_group);
  CHECK(with([](section_spec& c) { c.planes = 2; }) == status::bad_group);
  CHECK(with([](section_spec& c) { c.param_bytes = 4; }) == status::bad_group);
  CHECK(with([](section_spec& c) { c.per_channel = true; }) == status::bad_group);
}

TEST_CASE("linear rows start on bytes and parameters on multiples of their size", "[layout][linear]") {
  section_spec s{{46, 32}, side::value, 3, false, 16, 2, 4};  // rows of 138 bits: 18 bytes
  CHECK(linear::row_bytes(s) == 18);
  CHECK(linear::code_bytes(s) == 32 * 18);
  CHECK(linear::code_bit(s, 5, 7, 2) == 5 * 18 * 8 + 7 * 3 + 2);
  CHECK(linear::param_offset(s, 0, 0, 0) == 576);
  CHECK(linear::param_offset(s, 0, 0, 2) == 576 + 8);           // groups of one owner follow each other
  CHECK(linear::param_offset(s, 0, 1, 0) == 576 + 3 * 4);       // then the next owner
  CHECK(linear::param_offset(s, 1, 0, 0) == 576 + 32 * 3 * 4);  // then the next plane
  CHECK(linear::section_bytes(s) == 576 + 2 * 32 * 3 * 4);
  section_spec const odd{{5, 32}, side::value, 1, false, 5, 1, 4};  // 32 bytes of codes
  CHECK(linear::param_offset(odd, 0, 0, 0) == 32);
  section_spec const channels{{5, 32}, side::key, 1, true, 32, 1, 4};  // 5 rows of 4 bytes
  CHECK(linear::param_offset(channels, 0, 0, 0) == 20);
  section_spec const uneven{{3, 32}, side::key, 3, true, 32, 1, 4};  // 3 rows of 12 bytes
  CHECK(linear::param_offset(uneven, 0, 0, 0) == 36);
  section_spec const seven{{7, 32}, side::key, 1, true, 32, 1, 16};
  CHECK(linear::param_offset(seven, 0, 0, 0) == 32);  // 28 bytes of codes, then up to a multiple of 16
}

TEST_CASE("ggml blocks keep scale and codes of 32 channels side by side", "[layout][ggml]") {
  section_spec const eight{{64, 32}, side::key, 8, false, 32, 1, 2};
  CHECK(ggml_block::row_bytes(eight) == 68);
  CHECK(ggml_block::param_offset(eight, 0, 3, 1) == 3 * 68 + 34);
  CHECK(ggml_block::code_bit(eight, 3, 33, 0) == (3 * 68 + 34 + 2 + 1) * 8);
  CHECK(ggml_block::section_bytes(eight) == 32 * 68);
  section_spec const four{{64, 32}, side::key, 4, false, 32, 1, 2};
  CHECK(ggml_block::row_bytes(four) == 36);
  CHECK(ggml_block::code_bit(four, 2, 32 + 5, 0) == (2 * 36 + 18 + 2 + 5) * 8);
  CHECK(ggml_block::code_bit(four, 2, 32 + 21, 0) == (2 * 36 + 18 + 2 + 5) * 8 + 4);
  std::vector<std::byte> section(32 * 68);
  ggml_block::store(eight, section.data(), 0, 0, 128u + 5u);  // +5
  ggml_block::store(eight, section.data(), 0, 1, 128u - 1u);  // -1
  CHECK(section[2] == std::byte{5});
  CHECK(section[3] == std::byte{0xFF});
}
