// SPDX-License-Identifier: Apache-2.0
//! @file CRC-32 (IEEE 802.3, reflected 0xEDB88320) of bytes.
#pragma once

#include <array>
#include <span>

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! CRC-32 of `bytes`, continued from `seed` (0 to begin): crc32(b, crc32(a)) == crc32(a ++ b).
inline std::uint32_t crc32(std::span<std::byte const> bytes, std::uint32_t seed = 0) noexcept {
  static constexpr std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k)
        c = (c & 1u) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t crc = ~seed;
  for (std::byte const b : bytes)
    crc = table[(crc ^ std::to_integer<std::uint32_t>(b)) & 0xFFu] ^ (crc >> 8);
  return ~crc;
}

}  // namespace kvcrumb::inline v0
