// SPDX-License-Identifier: Apache-2.0
//! @file tokenizer: byte-level byte-pair encoding as a Hugging Face tokenizer.json describes it.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "split_pattern.hpp"

namespace kvcrumb_lm {

//! Text to token numbers and back. Any bytes are encoded, also those that are not UTF-8, and decode() gives
//! exactly them back.
class tokenizer {
 public:
  //! Reads the text of tokenizer.json: model BPE with a byte-level vocabulary (all 256 bytes are tokens),
  //! merges as strings or pairs, pre-tokenizers ByteLevel and Split (isolated) with a regular expression,
  //! normalizer none or NFC, added tokens. Everything else is refused with the name of the field.
  static kvcrumb_compare::result<tokenizer> parse(std::string_view json_text);
  static kvcrumb_compare::result<tokenizer> load(std::filesystem::path const& path);

  //! Token numbers; added tokens are recognised wherever their text stands. Nothing is put in front. Refused:
  //! a text that the normalizer NFC might change.
  kvcrumb_compare::result<std::vector<int>> encode(std::string_view text) const;

  //! The bytes of the tokens, added ones as their text; numbers that are no token are left out.
  std::string decode(std::span<int const> tokens) const;

  //! The number of a token by its bytes (an added one by its text).
  std::optional<int> find(std::string_view bytes) const;

  //! The token in front of every text: the one that the post-processor puts there, else `bos` of the model's
  //! config if the text of that token is <bos>, <s> or <|begin_of_text|>.
  std::optional<int> first_token(std::optional<int> bos) const;

  //! One more than the largest token number.
  int size() const noexcept { return static_cast<int>(bytes_of_.size()); }

 private:
  struct reader;
  struct merge {
    int rank = 0;
    int made = 0;
  };
  static std::uint64_t pair_key(int a, int b) noexcept {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32) | static_cast<std::uint32_t>(b);
  }
  void encode_plain(std::string_view text, std::vector<int>& out) const;
  void encode_piece(std::string_view piece, std::vector<int>& out) const;

  std::vector<std::string> bytes_of_;  // by token number; empty: no such token
  std::unordered_map<std::string, int> vocabulary_, added_;
  std::array<int, 256> byte_tokens_{};
  std::unordered_map<std::uint64_t, merge> merges_;
  std::vector<split_pattern> splits_;     // one after the other
  std::vector<std::string> added_texts_;  // longest first
  std::optional<int> prefix_;
  bool nfc_ = false;
  bool whole_pieces_ = false;  // a piece that is a token is not cut ("ignore_merges")
};

}  // namespace kvcrumb_lm
