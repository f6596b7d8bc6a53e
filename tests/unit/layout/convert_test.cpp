// SPDX-License-Identifier: Apache-2.0
//! @file Packing whole tiles equals packing single codes; conversion between layouts loses nothing.
#include <cstdint>
#include <random>
#include <vector>

#include "kvcrumb/layout/convert.hpp"
#include "kvcrumb/reference/quantize_kivi.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

std::vector<std::uint16_t> random_codes(section_spec const& s, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::uint16_t> codes(static_cast<std::size_t>(s.shape.tile_tokens * s.shape.head_dim));
  for (std::uint16_t& code : codes)
    code = static_cast<std::uint16_t>(generator() & ((1u << s.bits) - 1u));
  return codes;
}

std::vector<std::byte> noise(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(static_cast<std::size_t>(n));
  for (std::byte& b : bytes)
    b = static_cast<std::byte>(generator() & 0xFFu);
  return bytes;
}

std::vector<section_spec> shared_specs() {
  std::vector<section_spec> specs;
  for (int const dim : {64, 96, 128, 192, 256}) {
    for (int const tokens : {32, 64, 128}) {
      for (int const bits : {1, 2, 3, 4, 8, 16}) {
        for (side const which : {side::key, side::value}) {
          bool const per_channel = (which == side::key) != (bits == 4);  // 4 bits: the other way round
          specs.push_back(
              {{dim, tokens}, which, bits, per_channel, per_channel ? 32 : 80, 2, bits == 2 ? 4 : 2});
        }
      }
    }
  }
  return specs;
}

template <class L>
void check_packing(section_spec const& s) {
  int const width = s.shape.head_dim;
  auto const codes = random_codes(s, 3);
  std::vector<std::byte> one_by_one = noise(L::section_bytes(s), 4);
  std::vector<std::byte> at_once = one_by_one, in_rows = one_by_one;
  for (int token = 0; token < s.shape.tile_tokens; ++token) {
    for (int dim = 0; dim < width; ++dim) {
      L::store(s, one_by_one.data(), token, dim, codes[static_cast<std::size_t>(token * width + dim)]);
    }
  }
  pack_codes<L>(s, codes.data(), at_once.data());
  CHECK(at_once == one_by_one);
  for (int token = s.shape.tile_tokens - 1; token >= 0; --token) {  // pieces of 24 channels, tokens backwards
    for (int first = 0; first < width; first += 24) {
      int const count = width - first < 24 ? width - first : 24;
      pack_row<L>(s, token, first, count, codes.data() + token * width + first, in_rows.data());
    }
  }
  CHECK(in_rows == one_by_one);
  std::vector<std::uint16_t> integers(codes.size(), 0xABCD);
  unpack_codes<L>(s, one_by_one.data(), integers.data());
  CHECK(integers == codes);
  std::vector<float> floats(codes.size(), -1.0f);
  unpack_codes<L>(s, one_by_one.data(), floats.data());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < codes.size(); ++i)
    wrong += floats[i] != static_cast<float>(codes[i]) ? 1 : 0;
  CHECK(wrong == 0);
}

//! Parameters of a section in the order plane, owner, group.
template <class L>
std::vector<std::byte> parameter_bytes(section_spec const& s, std::vector<std::byte> const& section) {
  std::vector<std::byte> bytes;
  for (int plane = 0; plane < s.planes; ++plane) {
    for (int owner = 0; owner < s.owners(); ++owner) {
      for (int group = 0; group < s.groups(); ++group) {
        auto const at = section.begin() + L::param_offset(s, plane, owner, group);
        bytes.insert(bytes.end(), at, at + s.param_bytes);
      }
    }
  }
  return bytes;
}

template <class From, class To>
void check_round_trip(section_spec const& s) {
  // A canonical section: random codes and parameters, zero padding (conversion from zeros clears it).
  std::vector<std::byte> zero(static_cast<std::size_t>(From::section_bytes(s))), from = zero;
  auto const codes = random_codes(s, 9);
  pack_codes<From>(s, codes.data(), from.data());
  std::mt19937 generator(10);
  for (int plane = 0; plane < s.planes; ++plane) {
    for (int owner = 0; owner < s.owners(); ++owner) {
      for (int group = 0; group < s.groups(); ++group) {
        for (int i = 0; i < s.param_bytes; ++i) {
          from[static_cast<std::size_t>(From::param_offset(s, plane, owner, group) + i)] =
              static_cast<std::byte>(generator() & 0xFFu);
        }
      }
    }
  }
  std::vector<std::byte> to = noise(To::section_bytes(s), 11), back = noise(From::section_bytes(s), 12);
  REQUIRE(convert_section<From, To>(s, from.data(), to.data()) == status::ok);
  std::vector<std::uint16_t> converted(codes.size());
  unpack_codes<To>(s, to.data(), converted.data());
  CHECK(converted == codes);
  CHECK(parameter_bytes<To>(s, to) == parameter_bytes<From>(s, from));
  REQUIRE(convert_section<To, From>(s, to.data(), back.data()) == status::ok);
  CHECK(back == from);
}

}  // namespace

TEST_CASE("packing a tile equals packing its codes one by one: fragment", "[layout][convert]") {
  for (section_spec const& s : shared_specs()) {
    if (s.shape.head_dim > 128 && s.shape.tile_tokens == 128) continue;
    CAPTURE(s.shape.head_dim, s.shape.tile_tokens, s.bits, s.which == side::key);
    check_packing<fragment>(s);
  }
}

TEST_CASE("packing a tile equals packing its codes one by one: linear and ggml", "[layout][convert]") {
  for (int const bits : {1, 2, 3, 4, 5, 6, 7, 8, 16}) {
    for (bool const per_channel : {true, false}) {
      for (int const dim : {1, 46, 80}) {
        CAPTURE(bits, per_channel, dim);
        check_packing<linear>({{dim, 32}, side::key, bits, per_channel, 32, 2, 2});
      }
    }
  }
  for (int const bits : {4, 8})
    check_packing<ggml_block>({{96, 64}, side::value, bits, false, 32, 1, 2});
}

TEST_CASE("linear to fragment and back gives the same section", "[layout][convert]") {
  for (section_spec const& s : shared_specs()) {
    CAPTURE(s.shape.head_dim, s.shape.tile_tokens, s.bits, s.which == side::key, s.per_channel);
    check_round_trip<linear, fragment>(s);
  }
}

TEST_CASE("fragment to linear and back gives the same section", "[layout][convert]") {
  for (section_spec const& s : shared_specs()) {
    if (s.shape.head_dim > 128) continue;
    CAPTURE(s.shape.head_dim, s.shape.tile_tokens, s.bits, s.which == side::key, s.per_channel);
    check_round_trip<fragment, linear>(s);
  }
}

TEST_CASE("ggml blocks convert to the other layouts and back", "[layout][convert]") {
  for (int const bits : {4, 8}) {
    section_spec const s{{128, 32}, side::key, bits, false, 32, 1, 2};
    check_round_trip<ggml_block, linear>(s);
    check_round_trip<ggml_block, fragment>(s);
    check_round_trip<fragment, ggml_block>(s);
  }
}

TEST_CASE("a refused conversion leaves its target alone", "[layout][convert]") {
  section_spec const odd{{80, 32}, side::key, 2, true, 32, 2, 2};  // linear holds it, fragment does not
  std::vector<std::byte> from = noise(linear::section_bytes(odd), 1), to(8192, std::byte{0x5A});
  std::vector<std::byte> const untouched = to;
  CHECK(convert_section<linear, fragment>(odd, from.data(), to.data()) == status::bad_head_dim);
  CHECK(convert_section<fragment, linear>(odd, from.data(), to.data()) == status::bad_head_dim);
  section_spec const five{{64, 32}, side::key, 5, true, 32, 2, 2};
  CHECK(convert_section<linear, fragment>(five, from.data(), to.data()) == status::bad_bits);
  CHECK(convert_section<linear, linear>(odd, nullptr, to.data()) == status::null_pointer);
  CHECK(convert_section<linear, linear>(odd, from.data(), nullptr) == status::null_pointer);
  CHECK(to == untouched);
}

TEST_CASE("linear codes are the words that KIVI publishes", "[layout][linear]") {
  int const bits = GENERATE(2, 4, 8);
  bool const per_channel = GENERATE(true, false);
  section_spec const s{{64, 32}, side::key, bits, per_channel, 32, 2, 2};
  auto const codes = random_codes(s, 21);
  std::vector<std::byte> section(static_cast<std::size_t>(linear::section_bytes(s)));
  pack_codes<linear>(s, codes.data(), section.data());
  std::vector<int> in_order;
  for (int owner = 0; owner < s.owners(); ++owner) {
    for (int j = 0; j < s.run(); ++j) {
      in_order.push_back(codes[static_cast<std::size_t>(per_channel ? j * 64 + owner : owner * 64 + j)]);
    }
  }
  auto const words = reference::pack_words(in_order, bits);
  REQUIRE(static_cast<std::int64_t>(4 * words.size()) == linear::code_bytes(s));
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    wrong += load_word(section.data(), static_cast<std::int64_t>(i)) != words[i] ? 1 : 0;
  }
  CHECK(wrong == 0);
}
