// SPDX-License-Identifier: Apache-2.0
//! @file KIVI: affine codes with a stored minimum, every operation in fp16, and KIVI's packed int32 words.
//!
//! Source: KIVI (arXiv 2402.02750), section 3 and appendix; the operation order of its pack function in
//! PyTorch.
#pragma once

#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::inline v0::reference {

//! One group of affine codes: xhat = code * scale + mn, in real arithmetic.
struct affine_group {
  std::vector<int> codes;  //!< [n], 0 ... 2^bits - 1
  double scale = 0.0;      //!< a number of the stored format
  double mn = 0.0;         //!< a number of the stored format
  std::vector<double> xhat;  //!< [n]
};

//! Quantizes one group as KIVI does.
//!
//! Requires fp16 numbers in `x` (not empty, no NaN) whose range, max - min, does not overflow fp16. Each of
//! the operations below rounds to fp16: range = max - min; scale = range / (2^bits - 1); t = x - min; t = t /
//! scale. code = half-to-even of t limited to [0, 2^bits - 1]. KIVI divides 0 by 0 where the scale is 0 (a
//! constant group, or a range so small that the scale underflows); here such a group has code 0 and xhat =
//! mn.
[[nodiscard]] inline affine_group kivi_group(std::span<double const> x, int bits) {
  assert(!x.empty() && bits >= 1 && bits <= 8);
  int const top = (1 << bits) - 1;
  double smallest = x[0];
  double largest = x[0];
  for (double const value : x) {
    assert(to_fp16(value) == value);
    smallest = value < smallest ? value : smallest;
    largest = value > largest ? value : largest;
  }

  affine_group group;
  group.mn = smallest;
  double const range = to_fp16(largest - smallest);
  group.scale = to_fp16(range / static_cast<double>(top));
  for (double const value : x) {
    int code = 0;
    if (group.scale > 0.0) {
      double const above_minimum = to_fp16(value - group.mn);
      double const in_steps = to_fp16(above_minimum / group.scale);
      code = code_half_even(in_steps, top);
    }
    group.codes.push_back(code);
    group.xhat.push_back(static_cast<double>(code) * group.scale + group.mn);
  }
  return group;
}

//! Packs codes into 32-bit words, the first code in the lowest bits. Requires bits in {1, 2, 4, 8} and
//! codes.size() a multiple of 32 / bits. KIVI keeps the words as int32; the bit patterns are the same.
[[nodiscard]] inline std::vector<std::uint32_t> pack_words(std::span<int const> codes, int bits) {
  assert(bits == 1 || bits == 2 || bits == 4 || bits == 8);
  std::size_t const per_word = 32u / static_cast<std::size_t>(bits);
  assert(codes.size() % per_word == 0);
  std::vector<std::uint32_t> words(codes.size() / per_word, 0u);
  for (std::size_t j = 0; j < codes.size(); ++j) {
    int const shift = static_cast<int>(j % per_word) * bits;
    words[j / per_word] |= static_cast<std::uint32_t>(codes[j]) << shift;
  }
  return words;
}

//! One head as KIVI stores it, and what it decodes to.
struct kivi_packed {
  std::vector<std::uint32_t> words;  //!< keys [dim][tokens * bits / 32]; values [token][dim * bits / 32]
  std::vector<double> scale;         //!< keys [dim][tokens / group]; values [token][dim / group]
  std::vector<double> mn;            //!< as scale
  std::vector<double> xhat;          //!< [token][dim] for both
};

namespace detail {

//! Quantizes and packs `lines` lines of `length` numbers; groups and words run along a line.
inline kivi_packed kivi_pack_lines(std::span<double const> x, std::size_t lines, std::size_t length,
                                   std::size_t group_size, int bits) {
  assert(x.size() == lines * length && group_size > 0 && length % group_size == 0);
  kivi_packed packed;
  for (std::size_t line = 0; line < lines; ++line) {
    std::vector<int> codes;
    for (std::size_t first = 0; first < length; first += group_size) {
      affine_group const group = kivi_group(x.subspan(line * length + first, group_size), bits);
      codes.insert(codes.end(), group.codes.begin(), group.codes.end());
      packed.scale.push_back(group.scale);
      packed.mn.push_back(group.mn);
      packed.xhat.insert(packed.xhat.end(), group.xhat.begin(), group.xhat.end());
    }
    std::vector<std::uint32_t> const words = pack_words(codes, bits);
    packed.words.insert(packed.words.end(), words.begin(), words.end());
  }
  return packed;
}

//! [rows][columns] -> [columns][rows]
inline std::vector<double> transposed(std::span<double const> x, std::size_t rows, std::size_t columns) {
  std::vector<double> result(x.size());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) { result[c * rows + r] = x[r * columns + c]; }
  }
  return result;
}

}  // namespace detail

//! Keys of one head, `x` [token][dim]: one group is `group_size` consecutive tokens of one channel, and a
//! word holds consecutive tokens of one channel. Requires tokens to be a multiple of group_size and of 32 /
//! bits.
[[nodiscard]] inline kivi_packed kivi_pack_keys(std::span<double const> x, std::size_t tokens,
                                                std::size_t dim, std::size_t group_size, int bits) {
  assert(x.size() == tokens * dim);
  std::vector<double> const by_channel = detail::transposed(x, tokens, dim);
  kivi_packed packed = detail::kivi_pack_lines(by_channel, dim, tokens, group_size, bits);
  packed.xhat = detail::transposed(packed.xhat, dim, tokens);
  return packed;
}

//! Values of one head, `x` [token][dim]: one group is `group_size` consecutive channels of one token, and a
//! word holds consecutive channels of one token. Requires dim to be a multiple of group_size and of 32 /
//! bits.
[[nodiscard]] inline kivi_packed kivi_pack_values(std::span<double const> x, std::size_t tokens,
                                                  std::size_t dim, std::size_t group_size, int bits) {
  return detail::kivi_pack_lines(x, tokens, dim, group_size, bits);
}

}  // namespace kvcrumb::inline v0::reference
