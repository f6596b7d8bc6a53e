// SPDX-License-Identifier: Apache-2.0
//! @file unicode: see unicode.hpp.
#include "unicode.hpp"

#include <algorithm>
#include <iterator>

namespace kvcrumb_lm {
namespace {

struct code_range {
  std::uint32_t first, last;
};

#include "unicode_tables.inc"

constexpr code_range spaces[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                 {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                 {0x205F, 0x205F}, {0x3000, 0x3000}};

template <std::size_t N>
bool in(code_range const (&ranges)[N], std::uint32_t c) {
  auto const at = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                   [](std::uint32_t x, code_range const& r) { return x < r.first; });
  return at != std::begin(ranges) && c <= std::prev(at)->last;
}

}  // namespace

code_point decode_utf8(std::string_view text, std::size_t at) {
  auto const byte = [&](std::size_t i) -> std::uint32_t { return static_cast<unsigned char>(text[i]); };
  std::uint32_t const first = byte(at);
  if (first < 0x80) return {first, 1};
  std::size_t const bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || at + bytes > text.size()) return {};
  std::uint32_t value = first & (0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {};
    value = (value << 6) | (byte(at + i) & 0x3F);
  }
  constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < least[bytes] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return {};
  return {value, bytes};
}

bool is_letter(std::uint32_t c) { return in(letters, c); }
bool is_number(std::uint32_t c) { return in(numbers, c); }
bool is_space(std::uint32_t c) { return in(spaces, c); }

bool is_surely_nfc(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    code_point const c = decode_utf8(text, at);
    if (c.value != not_a_character && in(not_inert, c.value)) return false;
    at += c.bytes;
  }
  return true;
}

}  // namespace kvcrumb_lm
