// SPDX-License-Identifier: Apache-2.0
//! @file SHA-256 (FIPS 180-4) of a byte string, for the manifest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kvcrumb::golden {

//! 64 hexadecimal digits.
inline std::string sha256(std::vector<std::byte> message) {
  constexpr std::array<std::uint32_t, 64> k{
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  std::array<std::uint32_t, 8> state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::uint64_t const bits = 8 * static_cast<std::uint64_t>(message.size());
  message.push_back(std::byte{0x80});
  while (message.size() % 64 != 56)
    message.push_back(std::byte{0});
  for (int i = 7; i >= 0; --i)
    message.push_back(static_cast<std::byte>((bits >> (8 * i)) & 0xFFu));
  auto const turned = [](std::uint32_t x, int n) { return (x >> n) | (x << (32 - n)); };
  for (std::size_t first = 0; first < message.size(); first += 64) {
    std::array<std::uint32_t, 64> w{};
    for (std::size_t i = 0; i < 64; ++i)
      w[i / 4] = (w[i / 4] << 8) | std::to_integer<std::uint32_t>(message[first + i]);
    for (std::size_t i = 16; i < 64; ++i) {
      std::uint32_t const a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ (w[i - 15] >> 3);
      std::uint32_t const b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ (w[i - 2] >> 10);
      w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    auto s = state;
    for (std::size_t i = 0; i < 64; ++i) {
      std::uint32_t const e = turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25);
      std::uint32_t const choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
      std::uint32_t const x = s[7] + e + choice + k[i] + w[i];
      std::uint32_t const a = turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22);
      std::uint32_t const majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
      s = {x + a + majority, s[0], s[1], s[2], s[3] + x, s[4], s[5], s[6]};
    }
    for (std::size_t i = 0; i < 8; ++i)
      state[i] += s[i];
  }
  std::string text;
  for (std::uint32_t const word : state) {
    for (int i = 28; i >= 0; i -= 4)
      text += "0123456789abcdef"[(word >> i) & 0xFu];
  }
  return text;
}

}  // namespace kvcrumb::golden
