// SPDX-License-Identifier: Apache-2.0
//! @file Calibrated parameters as plain text: named arrays of floats, exact to the bit.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! One array. Names: 1 to 63 characters out of a-z, 0-9, '_' and '.'.
struct named_parameters {
  std::string name;
  std::vector<float> values;

  friend bool operator==(named_parameters const&, named_parameters const&) = default;
};

namespace detail {

inline bool is_parameter_name(std::string_view name) noexcept {
  bool ok = !name.empty() && name.size() < 64;
  for (char const c : name)
    ok = ok && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.');
  return ok;
}

//! The next word of a text; empty at its end. Words are separated by spaces and line ends.
inline std::string_view next_word(std::string_view& text) noexcept {
  std::size_t const begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return text = {};
  text.remove_prefix(begin);
  std::string_view const word = text.substr(0, text.find_first_of(" \t\r\n"));
  text.remove_prefix(word.size());
  return word;
}

//! A number of exactly 1 to 8 digits of this base.
inline bool parse_number(std::string_view word, std::uint32_t base, std::uint32_t& out) noexcept {
  if (word.empty() || word.size() > 8) return false;
  out = 0;
  for (char const c : word) {
    std::uint32_t const digit = c >= '0' && c <= '9'   ? static_cast<std::uint32_t>(c - '0')
                                : c >= 'a' && c <= 'f' ? static_cast<std::uint32_t>(c - 'a') + 10
                                                       : 99u;
    if (digit >= base) return false;
    out = out * base + digit;
  }
  return true;
}

}  // namespace detail

//! The text: "kvcrumb-parameters 1", then per array a line "name count" and its values, eight per line, each
//! the bits of a binary32 number as eight hexadecimal digits ("3f800000" is 1): exact, and free of locales.
//! bad_header: a bad name or one that occurs twice; not_finite; `out` is untouched unless ok.
inline status write_parameters(std::span<named_parameters const> arrays, std::string& out) {
  std::string text = "kvcrumb-parameters 1\n";
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    if (!detail::is_parameter_name(arrays[i].name)) return status::bad_header;
    for (std::size_t j = 0; j < i; ++j) {
      if (arrays[j].name == arrays[i].name) return status::bad_header;
    }
    if (arrays[i].values.size() > 99999999) return status::size_overflow;
    text += arrays[i].name + " " + std::to_string(arrays[i].values.size()) + "\n";
    for (std::size_t v = 0; v < arrays[i].values.size(); ++v) {
      std::uint32_t const bits = float_bits(arrays[i].values[v]);
      if (!is_finite_bits(arrays[i].values[v])) return status::not_finite;
      for (int shift = 28; shift >= 0; shift -= 4)
        text += "0123456789abcdef"[(bits >> shift) & 15u];
      text += v % 8 == 7 || v + 1 == arrays[i].values.size() ? '\n' : ' ';
    }
  }
  out = static_cast<std::string&&>(text);
  return status::ok;
}

//! Reads such a text. bad_magic, bad_version, bad_header (a bad or repeated name, a bad number), truncated,
//! not_finite; `out` is untouched unless ok. Memory is asked for values that are there only.
inline status read_parameters(std::string_view text, std::vector<named_parameters>& out) {
  if (detail::next_word(text) != "kvcrumb-parameters") return status::bad_magic;
  if (detail::next_word(text) != "1") return status::bad_version;
  std::vector<named_parameters> arrays;
  for (std::string_view name = detail::next_word(text); !name.empty(); name = detail::next_word(text)) {
    if (!detail::is_parameter_name(name)) return status::bad_header;
    for (named_parameters const& other : arrays) {
      if (other.name == name) return status::bad_header;
    }
    std::string_view const size = detail::next_word(text);
    std::uint32_t count = 0;
    if (size.empty()) return status::truncated;
    if (!detail::parse_number(size, 10, count)) return status::bad_header;
    named_parameters array{std::string(name), {}};
    for (std::uint32_t i = 0; i < count; ++i) {
      std::string_view const word = detail::next_word(text);
      std::uint32_t bits = 0;
      if (word.empty()) return status::truncated;
      if (word.size() != 8 || !detail::parse_number(word, 16, bits)) return status::bad_header;
      if (!is_finite_bits(float_from_bits(bits))) return status::not_finite;
      array.values.push_back(float_from_bits(bits));
    }
    arrays.push_back(static_cast<named_parameters&&>(array));
  }
  out = static_cast<std::vector<named_parameters>&&>(arrays);
  return status::ok;
}

}  // namespace kvcrumb::inline v0
