// SPDX-License-Identifier: Apache-2.0
//! @file text: see text.hpp.
#include "text.hpp"

#include <cstdint>

namespace kvcrumb_compare {
namespace {

// Length of the well-formed UTF-8 sequence that starts at text[i], or 0 (Unicode 15, table 3-7).
std::size_t sequence_length(std::string_view text, std::size_t i) {
  auto const at = [&](std::size_t k) { return static_cast<unsigned char>(text[k]); };
  auto const follows = [&](std::size_t k, unsigned lowest, unsigned highest) {
    return k < text.size() && at(k) >= lowest && at(k) <= highest;
  };
  unsigned const first = at(i);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(i + 1, 0x80, 0xBF) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    unsigned const lowest = first == 0xE0 ? 0xA0 : 0x80;
    unsigned const highest = first == 0xED ? 0x9F : 0xBF;
    return follows(i + 1, lowest, highest) && follows(i + 2, 0x80, 0xBF) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    unsigned const lowest = first == 0xF0 ? 0x90 : 0x80;
    unsigned const highest = first == 0xF4 ? 0x8F : 0xBF;
    return follows(i + 1, lowest, highest) && follows(i + 2, 0x80, 0xBF) && follows(i + 3, 0x80, 0xBF) ? 4
                                                                                                       : 0;
  }
  return 0;
}

bool is_control(std::string_view sequence) {
  auto const first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7F;
  return sequence.size() == 2 && first == 0xC2 &&
         static_cast<unsigned char>(sequence[1]) < 0xA0;  // C1 controls
}

}  // namespace

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t const length = sequence_length(text, i);
    std::size_t const step = length == 0 ? 1 : length;
    if (out.size() + step > limit) {
      out += "...";
      break;
    }
    if (length == 0 || is_control(text.substr(i, length))) {
      out += "\xEF\xBF\xBD";
    } else {
      out += text.substr(i, length);
    }
    i += step;
  }
  return out;
}

std::string escape_html(std::string_view text, std::size_t limit) {
  std::string out;
  for (char const c : printable(text, limit)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::size_t const have = bytes.size() - i < 3 ? bytes.size() - i : 3;
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      word = (word << 8) | (k < have ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += k <= have ? digits[(word >> (18 - 6 * k)) & 63U] : '=';
    }
  }
  return out;
}

}  // namespace kvcrumb_compare
