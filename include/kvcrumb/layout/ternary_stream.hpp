// SPDX-License-Identifier: Apache-2.0
//! @file Reading and writing base-3 digits, five in a byte (3^5 = 243), 1.6 bits a digit.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! Bytes of a stream of `digits` digits; the last byte may hold fewer than five.
KVCRUMB_API constexpr std::int64_t ternary_bytes(std::int64_t digits) noexcept { return (digits + 4) / 5; }

//! The power of three that digit `index` of a stream is multiplied with in its byte.
KVCRUMB_API constexpr unsigned ternary_weight(std::int64_t index) noexcept {
  constexpr unsigned powers[5] = {1, 3, 9, 27, 81};
  return powers[index % 5];
}

//! Digit `index`: byte index / 5, the first digit of a byte is its lowest. 0 to 2 for any byte, also for 243
//! to 255, which are never written.
KVCRUMB_API constexpr unsigned load_ternary(std::byte const* stream, std::int64_t index) noexcept {
  return static_cast<unsigned>(stream[index / 5]) / ternary_weight(index) % 3;
}

//! Replaces digit `index` by `digit`, 0 to 2; the other four digits of the byte keep their values.
KVCRUMB_API constexpr void store_ternary(std::byte* stream, std::int64_t index, unsigned digit) noexcept {
  unsigned const weight = ternary_weight(index), old = load_ternary(stream, index);
  unsigned const byte = static_cast<unsigned>(stream[index / 5]) - old * weight + digit * weight;
  stream[index / 5] = static_cast<std::byte>(byte & 0xFFu);
}

}  // namespace kvcrumb::inline v0
