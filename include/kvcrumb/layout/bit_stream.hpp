// SPDX-License-Identifier: Apache-2.0
//! @file Reading and writing a few bits of a little-endian bit stream.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! Bits [position, position + count) of the stream, LSB first: bit b of the stream is bit b%8 of byte b/8.
//! Requires count in [1, 16]. Touches only the bytes that hold these bits.
KVCRUMB_API constexpr unsigned load_bits(std::byte const* stream, std::int64_t position, int count) noexcept {
  std::int64_t byte = position >> 3;
  int const shift = static_cast<int>(position & 7);
  unsigned value = static_cast<unsigned>(stream[byte]) >> shift;
  for (int have = 8 - shift; have < count; have += 8) {
    ++byte;
    value |= static_cast<unsigned>(stream[byte]) << have;
  }
  return value & ((1u << count) - 1u);
}

//! Replaces bits [position, position + count) by the low bits of `value`; all other bits keep their values.
KVCRUMB_API constexpr void store_bits(std::byte* stream, std::int64_t position, int count,
                                      unsigned value) noexcept {
  std::int64_t byte = position >> 3;
  int const shift = static_cast<int>(position & 7);
  unsigned const mask = (1u << count) - 1u;
  unsigned bits = (value & mask) << shift;
  unsigned keep = ~(mask << shift);
  for (int left = count + shift; left > 0; left -= 8) {
    unsigned const old = static_cast<unsigned>(stream[byte]);
    stream[byte] = static_cast<std::byte>(((old & keep) | bits) & 0xFFu);
    bits >>= 8;
    keep = (keep >> 8) | 0xFF000000u;
    ++byte;
  }
}

//! 32-bit little-endian word number `index`; no alignment needed.
KVCRUMB_API constexpr std::uint32_t load_word(std::byte const* bytes, std::int64_t index) noexcept {
  std::byte const* p = bytes + 4 * index;
  return static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
         static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
}

}  // namespace kvcrumb::inline v0
