// SPDX-License-Identifier: Apache-2.0
//! @file The q8_0 and q4_0 blocks of ggml: 32 numbers, one fp16 scale, and their bytes.
//!
//! Source: ggml, the scalar ("ref") row functions of its quantization source; the block structs of its common
//! header.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::inline v0::reference {

inline constexpr std::size_t ggml_block_size = 32;

//! One block of ggml.
struct ggml_block {
  std::array<int, ggml_block_size> codes{};    //!< q8_0: -127 ... 127; q4_0: 0 ... 15
  double scale = 0.0;                          //!< an fp16 number; negative in many q4_0 blocks
  std::array<double, ggml_block_size> xhat{};  //!< q8_0: code * scale; q4_0: (code - 8) * scale
  std::vector<std::uint8_t> bytes;             //!< q8_0: 34; q4_0: 18; the scale first, low byte first
};

namespace detail {

inline void append_fp16(std::vector<std::uint8_t>& bytes, double value) {
  std::uint16_t const bits = fp16_bits(value);
  bytes.push_back(static_cast<std::uint8_t>(bits & 0xFFu));
  bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
}

//! 1 / d in fp32; 0 where d is 0 or so small that the quotient overflows (there ggml's own result is
//! undefined).
inline double ggml_inverse(double d) {
  double const inverse = d != 0.0 ? to_fp32(1.0 / d) : 0.0;
  return std::isfinite(inverse) ? inverse : 0.0;
}

}  // namespace detail

//! Quantizes one q8_0 block.
//!
//! Requires 32 fp32 numbers without NaN, at most 127 * 65504 in magnitude. In fp32: d = max |x| / 127;
//! inverse = 1 / d (0 if d is 0); code = x * inverse rounded to the nearest integer, half away from zero. The
//! codes are computed against d before it is rounded; fp16(d) is stored and decodes. Bytes: scale, then 32
//! signed bytes.
[[nodiscard]] inline ggml_block ggml_q8_0(std::span<double const> x) {
  assert(x.size() == ggml_block_size);
  double largest = 0.0;
  for (double const value : x) {
    assert(to_fp32(value) == value);
    largest = std::max(largest, std::fabs(value));
  }
  double const d = to_fp32(largest / 127.0);
  double const inverse = detail::ggml_inverse(d);

  ggml_block block;
  block.scale = to_fp16(d);
  detail::append_fp16(block.bytes, d);
  for (std::size_t j = 0; j < ggml_block_size; ++j) {
    int const code = static_cast<int>(round_half_away(to_fp32(x[j] * inverse)));
    block.codes[j] = code;
    block.xhat[j] = static_cast<double>(code) * block.scale;
    block.bytes.push_back(static_cast<std::uint8_t>(code & 0xFF));
  }
  return block;
}

//! Quantizes one q4_0 block.
//!
//! Requires 32 fp32 numbers without NaN, at most 8 * 65504 in magnitude. `extreme` is the number of largest
//! magnitude with its sign, the first one where several are equal. In fp32: d = extreme / -8; inverse = 1 / d
//! (0 if d is 0); code = x * inverse + 8.5 cut to an integer, at most 15. Bytes: scale, then byte j = code[j]
//! | code[j + 16] << 4. A block of zeros has d = 0 / -8 = -0, so its bytes are 00 80 and sixteen times 88.
[[nodiscard]] inline ggml_block ggml_q4_0(std::span<double const> x) {
  assert(x.size() == ggml_block_size);
  double extreme = 0.0;
  for (double const value : x) {
    assert(to_fp32(value) == value);
    if (std::fabs(extreme) < std::fabs(value)) { extreme = value; }
  }
  double const d = to_fp32(extreme / -8.0);
  double const inverse = detail::ggml_inverse(d);

  ggml_block block;
  block.scale = to_fp16(d);
  for (std::size_t j = 0; j < ggml_block_size; ++j) {
    double const shifted = to_fp32(to_fp32(x[j] * inverse) + 8.5);
    int const code = std::min(15, static_cast<int>(shifted));  // the cast cuts towards zero
    block.codes[j] = code;
    block.xhat[j] = static_cast<double>(code - 8) * block.scale;
  }
  detail::append_fp16(block.bytes, d);
  for (std::size_t j = 0; j < ggml_block_size / 2; ++j) {
    int const low = block.codes[j];
    int const high = block.codes[j + ggml_block_size / 2];
    block.bytes.push_back(static_cast<std::uint8_t>(low | (high << 4)));
  }
  return block;
}

}  // namespace kvcrumb::inline v0::reference
