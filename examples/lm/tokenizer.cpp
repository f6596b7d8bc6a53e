// SPDX-License-Identifier: Apache-2.0
//! @file tokenizer: encoding and decoding; tokenizer_file.cpp reads tokenizer.json.
#include "tokenizer.hpp"

#include <algorithm>
#include <functional>
#include <queue>

#include "unicode.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::failure;
using kvcrumb_compare::result;

result<std::vector<int>> tokenizer::encode(std::string_view text) const {
  if (nfc_ && !is_surely_nfc(text))
    return failure{
        "the tokenizer asks for normalization form C, and the text has characters that it may change"};
  std::vector<int> out;
  std::size_t plain = 0;
  for (std::size_t at = 0; at < text.size() && !added_texts_.empty();) {
    auto const found = std::find_if(added_texts_.begin(), added_texts_.end(), [&](std::string const& added) {
      return text.substr(at, added.size()) == added;
    });
    if (found == added_texts_.end()) {
      ++at;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), out);
    out.push_back(added_.at(*found));
    plain = at += found->size();
  }
  encode_plain(text.substr(plain), out);
  return out;
}

void tokenizer::encode_plain(std::string_view text, std::vector<int>& out) const {
  if (text.empty()) return;
  std::vector<std::string_view> pieces{text};
  for (split_pattern const& pattern : splits_) {
    std::vector<std::string_view> finer;
    for (std::string_view const piece : pieces) {
      auto const parts = pattern.split(piece);
      finer.insert(finer.end(), parts.begin(), parts.end());
    }
    pieces.swap(finer);
  }
  for (std::string_view const piece : pieces)
    encode_piece(piece, out);
}

// Joins the pair of lowest rank, of equals the leftmost, until there is none.
void tokenizer::encode_piece(std::string_view piece, std::vector<int>& out) const {
  if (whole_pieces_) {
    if (auto const whole = vocabulary_.find(std::string(piece)); whole != vocabulary_.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  struct symbol {
    int token, before, after;  // neighbours, -1: none; token -1: joined to the one before
  };
  std::vector<symbol> symbols;
  int const n = static_cast<int>(piece.size());
  for (int i = 0; i < n; ++i)
    symbols.push_back({byte_tokens_[static_cast<unsigned char>(piece[static_cast<std::size_t>(i)])], i - 1,
                       i + 1 < n ? i + 1 : -1});
  auto const symbol_at = [&](int i) -> symbol& { return symbols[static_cast<std::size_t>(i)]; };

  struct candidate {
    int rank, left, left_token, right_token, made;
    bool operator>(candidate const& o) const { return std::pair(rank, left) > std::pair(o.rank, o.left); }
  };
  std::priority_queue<candidate, std::vector<candidate>, std::greater<>> open;
  auto const offer = [&](int left) {
    if (left < 0 || symbol_at(left).after < 0) return;
    int const a = symbol_at(left).token, b = symbol_at(symbol_at(left).after).token;
    auto const found = merges_.find(pair_key(a, b));
    if (found != merges_.end()) open.push({found->second.rank, left, a, b, found->second.made});
  };
  for (int i = 0; i < n; ++i)
    offer(i);
  while (!open.empty()) {
    candidate const c = open.top();
    open.pop();
    symbol& left = symbol_at(c.left);
    if (left.token != c.left_token || left.after < 0 || symbol_at(left.after).token != c.right_token)
      continue;
    symbol& right = symbol_at(left.after);
    left.token = c.made;
    left.after = right.after;
    right.token = -1;
    if (left.after >= 0) symbol_at(left.after).before = c.left;
    offer(left.before);
    offer(c.left);
  }
  for (int i = n > 0 ? 0 : -1; i >= 0; i = symbol_at(i).after)
    out.push_back(symbol_at(i).token);
}

std::string tokenizer::decode(std::span<int const> tokens) const {
  std::string text;
  for (int const token : tokens) {
    if (token >= 0 && token < size()) text += bytes_of_[static_cast<std::size_t>(token)];
  }
  return text;
}

std::optional<int> tokenizer::find(std::string_view bytes) const {
  for (auto const* const map : {&added_, &vocabulary_}) {
    if (auto const at = map->find(std::string(bytes)); at != map->end()) return at->second;
  }
  return std::nullopt;
}

std::optional<int> tokenizer::first_token(std::optional<int> bos) const {
  if (prefix_ || !bos || *bos < 0 || *bos >= size()) return prefix_;
  std::string const& text = bytes_of_[static_cast<std::size_t>(*bos)];
  bool const known = text == "<bos>" || text == "<s>" || text == "<|begin_of_text|>";
  return known ? bos : std::nullopt;
}

}  // namespace kvcrumb_lm
