// SPDX-License-Identifier: Apache-2.0
//! @file unicode: code points out of UTF-8, and the few properties that tokenizers ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvcrumb_lm {

//! Stands for a byte that is not part of valid UTF-8: no letter, number or space.
inline constexpr std::uint32_t not_a_character = 0xFFFFFFFFu;

struct code_point {
  std::uint32_t value = not_a_character;
  std::size_t bytes = 1;
};

//! The code point at text[at]; precondition: at < text.size().
code_point decode_utf8(std::string_view text, std::size_t at);

bool is_letter(std::uint32_t c);  //!< general category L*
bool is_number(std::uint32_t c);  //!< general category N*
bool is_space(std::uint32_t c);   //!< White_Space

//! Whether normalization form C leaves the text alone, seen without normalizing: false also for some texts
//! that it would leave alone (those with combining marks).
bool is_surely_nfc(std::string_view text);

}  // namespace kvcrumb_lm
