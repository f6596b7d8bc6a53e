// SPDX-License-Identifier: Apache-2.0
//! @file split_pattern: the regular expressions by which tokenizers cut a text into words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "result.hpp"

namespace kvcrumb_lm {

//! A regular expression over code points, matched by backtracking: of several matches at a place the one that
//! the order of the alternatives and the greed of the quantifiers prefer, as in Oniguruma.
//!
//! It has what the patterns of GPT-2, Llama 3 and Qwen2 are made of: literals, \r \n \t and escaped
//! punctuation, \s \S \p{L} \p{N} (and \P), classes with ranges and ^, alternatives, groups (?:...), (?i:...)
//! and (...), the look-aheads (?!...) and (?=...), and the quantifiers ? + * {n} {n,m}. Anything else is
//! refused, as is a repeated group that may be empty.
class split_pattern {
 public:
  static kvcrumb_compare::result<split_pattern> parse(std::string_view pattern);

  //! Cuts the text: matches are pieces, and so is what lies between them. Joined they are the text.
  std::vector<std::string_view> split(std::string_view text) const;

  //! The pattern that a ByteLevel pre-tokenizer has by itself (GPT-2's).
  static std::string_view gpt2() noexcept;

 private:
  struct code_set {
    bool negated = false;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;
    std::vector<std::pair<char, bool>>
        properties;  // 's', 'L' or 'N', and whether it is wanted or its opposite
    bool contains(std::uint32_t c) const;
  };
  enum class operation : std::uint8_t { one_of, fork, jump, ahead, done };
  struct instruction {
    operation what = operation::done;
    std::int32_t a = 0;  // one_of: index of the set; fork: preferred; jump: target; ahead: behind its end
    std::int32_t b = 0;  // fork: the other; ahead: 1 if it must not match
  };
  class parser;

  //! Length of the match at `at`, starting with instruction `from`; -1: none.
  std::ptrdiff_t match(std::string_view text, std::size_t at, std::int32_t from) const;

  std::vector<code_set> sets_;
  std::vector<instruction> program_;
};

}  // namespace kvcrumb_lm
