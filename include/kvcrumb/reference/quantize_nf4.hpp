// SPDX-License-Identifier: Apache-2.0
//! @file NormalFloat-4 blocks (QLoRA) and the rows of NQKV that are made of them.
//!
//! Source: QLoRA (arXiv 2305.14314), appendix E, for levels and thresholds; NQKV (arXiv 2505.16210) for
//! blocks of 256.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::inline v0::reference {

//! The 16 published levels, ascending; the index is the code. Each is an fp32 number.
inline constexpr std::array<double, 16> nf4_levels{
    -1.0,                 -0.6961928009986877,  -0.5250730514526367,  -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534,  0.16093020141124725,  0.24611230194568634,  0.33791524171829224,
    0.44070982933044434,  0.5626170039176941,   0.7229568362236023,   1.0};

//! The 15 published thresholds, the midpoints of neighbouring levels. They are fp32 literals: most midpoints lie between
//! two fp32 numbers, and the printed decimals, not the exact midpoints, decide which of the two is meant.
inline constexpr std::array<double, 15> nf4_thresholds{
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

//! Code of a number that was divided by its block's constant: how many thresholds lie strictly below it.
[[nodiscard]] inline int nf4_code(double ratio) {
  int code = 0;
  for (double const threshold : nf4_thresholds) {
    if (ratio > threshold) { ++code; }
  }
  return code;
}

//! One block of NF4 codes: xhat = absmax * level, in real arithmetic.
struct nf4_block_codes {
  std::vector<int> codes;    //!< [n], 0 ... 15, ascending with the level
  double absmax = 0.0;       //!< an fp16 number
  std::vector<double> xhat;  //!< [n]
};

//! Quantizes one block.
//!
//! Requires fp32 numbers (not empty, no NaN) of at most 65504 in magnitude. absmax = fp16(max |x|), nearest
//! even; the codes are computed against this rounded constant, ratio = x / absmax in fp32. absmax = 0 gives
//! code 7, xhat = 0.
[[nodiscard]] inline nf4_block_codes nf4_block(std::span<double const> x) {
  assert(!x.empty());
  double largest = 0.0;
  for (double const value : x) {
    assert(to_fp32(value) == value);
    largest = std::max(largest, std::fabs(value));
  }

  nf4_block_codes block;
  block.absmax = to_fp16(largest);
  for (double const value : x) {
    int const code = block.absmax > 0.0 ? nf4_code(to_fp32(value / block.absmax)) : 7;
    block.codes.push_back(code);
    block.xhat.push_back(block.absmax * nf4_levels[static_cast<std::size_t>(code)]);
  }
  return block;
}

//! One token of NQKV: all heads side by side.
struct nqkv_row_codes {
  std::vector<int> codes;      //!< [kv head * dim]
  std::vector<double> absmax;  //!< [block], fp16 numbers
  std::vector<double> xhat;    //!< [kv head * dim]
};

//! Quantizes the concatenated heads of one token in blocks of `block` consecutive channels; the last one may
//! be shorter. With a dim of 128 a block of 256 covers two heads.
[[nodiscard]] inline nqkv_row_codes nqkv_row(std::span<double const> x, std::size_t block = 256) {
  assert(block > 0);
  nqkv_row_codes row;
  for (std::size_t first = 0; first < x.size(); first += block) {
    nf4_block_codes const part = nf4_block(x.subspan(first, std::min(block, x.size() - first)));
    row.codes.insert(row.codes.end(), part.codes.begin(), part.codes.end());
    row.absmax.push_back(part.absmax);
    row.xhat.insert(row.xhat.end(), part.xhat.begin(), part.xhat.end());
  }
  return row;
}

//! The row of one token, [kv head * dim], out of an array [kv head][token][dim].
[[nodiscard]] inline std::vector<double> concatenated_heads(std::span<double const> x, std::size_t kv_heads,
                                                            std::size_t tokens, std::size_t dim,
                                                            std::size_t token) {
  assert(x.size() == kv_heads * tokens * dim && token < tokens);
  std::vector<double> row;
  for (std::size_t head = 0; head < kv_heads; ++head) {
    auto const part = x.subspan((head * tokens + token) * dim, dim);
    row.insert(row.end(), part.begin(), part.end());
  }
  return row;
}

}  // namespace kvcrumb::inline v0::reference
