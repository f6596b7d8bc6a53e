// SPDX-License-Identifier: Apache-2.0
//! @file split_pattern: see split_pattern.hpp.
#include "split_pattern.hpp"

#include <algorithm>

#include "unicode.hpp"

namespace kvcrumb_lm {

bool split_pattern::code_set::contains(std::uint32_t c) const {
  bool const found =
      std::any_of(ranges.begin(), ranges.end(),
                  [&](auto const& r) { return c >= r.first && c <= r.second; }) ||
      std::any_of(properties.begin(), properties.end(), [&](auto const& p) {
        bool const has = p.first == 's' ? is_space(c) : p.first == 'L' ? is_letter(c) : is_number(c);
        return has == p.second;
      });
  return found != negated;
}

std::ptrdiff_t split_pattern::match(std::string_view text, std::size_t at, std::int32_t from) const {
  struct state {
    std::int32_t next;
    std::size_t at;
  };
  std::vector<state> open{{from, at}};
  while (!open.empty()) {
    state s = open.back();
    open.pop_back();
    for (bool alive = true; alive;) {
      instruction const& i = program_[static_cast<std::size_t>(s.next++)];
      switch (i.what) {
        case operation::done: return static_cast<std::ptrdiff_t>(s.at - at);
        case operation::jump: s.next = i.a; break;
        case operation::fork:
          open.push_back({i.b, s.at});
          s.next = i.a;
          break;
        case operation::ahead:
          alive = (match(text, s.at, s.next) < 0) == (i.b == 1);
          s.next = i.a;
          break;
        case operation::one_of: {
          if (s.at == text.size()) {
            alive = false;
            break;
          }
          code_point const c = decode_utf8(text, s.at);
          alive = sets_[static_cast<std::size_t>(i.a)].contains(c.value);
          s.at += c.bytes;
        }
      }
    }
  }
  return -1;
}

std::vector<std::string_view> split_pattern::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  std::size_t gap = 0, at = 0;
  while (at < text.size()) {
    std::ptrdiff_t const length = match(text, at, 0);
    if (length <= 0) {
      at += decode_utf8(text, at).bytes;
      continue;
    }
    if (at > gap) pieces.push_back(text.substr(gap, at - gap));
    pieces.push_back(text.substr(at, static_cast<std::size_t>(length)));
    gap = at += static_cast<std::size_t>(length);
  }
  if (at > gap) pieces.push_back(text.substr(gap));
  return pieces;
}

std::string_view split_pattern::gpt2() noexcept {
  return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
}

}  // namespace kvcrumb_lm
