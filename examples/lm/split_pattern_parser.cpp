// SPDX-License-Identifier: Apache-2.0
//! @file split_pattern_parser: a split pattern into the instructions that split_pattern::match runs.
#include <fmt/format.h>

#include "split_pattern.hpp"
#include "text.hpp"
#include "unicode.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::failure;
using kvcrumb_compare::printable;
using kvcrumb_compare::result;

// Recursive descent; code is appended to the program as it is read.
class split_pattern::parser {
 public:
  parser(std::string_view text, split_pattern& out) : text_(text), out_(out) {}

  std::string run() {
    alternatives();
    if (error_.empty() && at_ < text_.size()) refuse("')' without '('");
    emit(operation::done);
    return error_;
  }

 private:
  bool more() const { return error_.empty() && at_ < text_.size(); }
  bool next_is(std::string_view word) const { return more() && text_.substr(at_, word.size()) == word; }
  bool take(std::string_view word) {
    if (!next_is(word)) return false;
    at_ += word.size();
    return true;
  }
  void refuse(std::string_view why) {
    if (error_.empty()) error_ = fmt::format("at byte {}: {}", at_, why);
  }
  std::int32_t here() const { return static_cast<std::int32_t>(out_.program_.size()); }
  std::int32_t emit(operation what, std::int32_t a = 0, std::int32_t b = 0) {
    out_.program_.push_back({what, a, b});
    return here() - 1;
  }
  instruction& at(std::int32_t i) { return out_.program_[static_cast<std::size_t>(i)]; }

  // Makes room for one instruction before `start`: what lies behind it moves, and with it its targets.
  void insert(std::int32_t start, instruction what) {
    for (auto i = out_.program_.begin() + start; i != out_.program_.end(); ++i) {
      if (i->what == operation::fork || i->what == operation::jump || i->what == operation::ahead) ++i->a;
      if (i->what == operation::fork) ++i->b;
    }
    out_.program_.insert(out_.program_.begin() + start, what);
  }

  // Returns whether it may match nothing.
  bool alternatives() {
    if (++depth_ > 50) refuse("groups are nested too deeply");
    std::int32_t const start = here();
    bool empty = sequence();
    if (take("|")) {
      insert(start, {operation::fork, start + 1, 0});
      std::int32_t const leave = emit(operation::jump);
      at(start).b = here();
      empty = alternatives() || empty;
      at(leave).a = here();
    }
    --depth_;
    return empty;
  }

  bool sequence() {
    bool empty = true;
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      bool const part = quantified();
      empty = empty && part;
    }
    return empty;
  }

  bool quantified() {
    std::int32_t const start = here();
    bool const empty = atom();
    std::int32_t const length = here() - start;
    int least = 1, most = 1;  // most -1: no limit
    if (take("?")) {
      least = 0;
    } else if (take("+")) {
      most = -1;
    } else if (take("*")) {
      least = 0, most = -1;
    } else if (take("{")) {
      least = most = count();
      if (take(",")) most = next_is("}") ? -1 : count();
      if (!take("}") || (most >= 0 && most < least)) refuse("'{' is not followed by counts and '}'");
    } else {
      return empty;
    }
    if (next_is("+") || next_is("?") || next_is("*"))
      refuse("possessive and lazy quantifiers are not supported");
    if (empty) refuse("what is repeated may be empty");
    if (!error_.empty()) return true;
    repeat(start, length, least, most);
    return least == 0;
  }

  // The code [start, start + length) becomes `least` copies and then optional ones.
  void repeat(std::int32_t start, std::int32_t length, int least, int most) {
    std::vector<instruction> const once(out_.program_.begin() + start,
                                        out_.program_.begin() + start + length);
    out_.program_.resize(static_cast<std::size_t>(start));
    auto const copy = [&] {
      std::int32_t const shift = here() - start;
      for (instruction i : once) {
        if (i.what == operation::fork || i.what == operation::jump || i.what == operation::ahead)
          i.a += shift;
        if (i.what == operation::fork) i.b += shift;
        out_.program_.push_back(i);
      }
    };
    for (int i = 0; i < least; ++i)
      copy();
    if (most < 0) {
      std::int32_t const loop = emit(operation::fork, here() + 1);
      copy();
      emit(operation::jump, loop);
      at(loop).b = here();
      return;
    }
    std::vector<std::int32_t> forks;
    for (int i = least; i < most; ++i) {
      forks.push_back(emit(operation::fork, here() + 1));
      copy();
    }
    for (std::int32_t const f : forks)
      at(f).b = here();
  }

  int count() {
    int n = 0, digits = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9' && digits < 3; ++at_, ++digits)
      n = 10 * n + (text_[at_] - '0');
    if (digits == 0) refuse("a count is missing");
    return n;
  }

  bool atom() {
    if (take("(?!")) return look_ahead(1);
    if (take("(?=")) return look_ahead(0);
    bool const outer = fold_;
    if (take("(?i:")) {
      fold_ = true;
    } else if (!take("(?:")) {
      if (next_is("(?")) refuse("this kind of group is not supported");
      if (!take("(")) return one();
    }
    bool const empty = alternatives();
    if (!take(")")) refuse("'(' without ')'");
    fold_ = outer;
    return empty;
  }

  bool look_ahead(std::int32_t negative) {
    std::int32_t const start = emit(operation::ahead, 0, negative);
    alternatives();
    if (!take(")")) refuse("'(' without ')'");
    emit(operation::done);
    at(start).a = here();
    return true;
  }

  // One character or class.
  bool one() {
    code_set set;
    if (take("[")) {
      set.negated = take("^");
      while (more() && text_[at_] != ']')
        member(set);
      if (!take("]")) refuse("'[' without ']'");
    } else if (next_is("?") || next_is("+") || next_is("*") || next_is("{") || next_is(".") || next_is("^") ||
               next_is("$")) {
      refuse(fmt::format("'{}' is not supported here", text_[at_]));
    } else {
      member(set, false);
    }
    emit(operation::one_of, static_cast<std::int32_t>(out_.sets_.size()));
    out_.sets_.push_back(std::move(set));
    return false;
  }

  void member(code_set& set, bool may_be_range = true) {
    std::uint32_t first = 0;
    if (next_is("[")) return refuse("classes in classes are not supported");
    if (!character(set, first)) return;
    std::uint32_t last = first;
    if (may_be_range && next_is("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
      take("-");
      if (!character(set, last) || last < first) return refuse("a range does not end with a later character");
    }
    set.ranges.emplace_back(first, last);
    if (fold_ && first == last) add_other_case(set, first);
  }

  void add_other_case(code_set& set, std::uint32_t c) {
    std::uint32_t const lower = c | 0x20u;
    if (c > 0x7F) return refuse("(?i: with characters beyond ASCII is not supported");
    if (lower < 'a' || lower > 'z') return;
    set.ranges.emplace_back(c ^ 0x20u, c ^ 0x20u);
    if (lower == 's') set.ranges.emplace_back(0x17F, 0x17F);    // long s
    if (lower == 'k') set.ranges.emplace_back(0x212A, 0x212A);  // Kelvin sign
  }

  // True: a character; false: a property, which is in `set` now, or an error.
  bool character(code_set& set, std::uint32_t& c) {
    if (!more()) return refuse("the pattern ends too early"), false;
    code_point const p = decode_utf8(text_, at_);
    at_ += p.bytes;
    c = p.value;
    if (c != '\\') return true;
    if (!more()) return refuse("the pattern ends with a backslash"), false;
    char const escape = text_[at_++];
    switch (escape) {
      case 'r': c = '\r'; return true;
      case 'n': c = '\n'; return true;
      case 't': c = '\t'; return true;
      case 's':
      case 'S': set.properties.emplace_back('s', escape == 's'); return false;
      case 'p':
      case 'P':
        for (char const property : {'L', 'N'}) {
          if (!take(fmt::format("{{{}}}", property))) continue;
          set.properties.emplace_back(property, escape == 'p');
          return false;
        }
        return refuse("of the properties only \\p{L} and \\p{N} are supported"), false;
      default: break;
    }
    c = static_cast<unsigned char>(escape);
    bool const word =
        (escape >= '0' && escape <= '9') || ((c | 0x20u) >= 'a' && (c | 0x20u) <= 'z') || c > 0x7F;
    if (word) return refuse(fmt::format("the escape \\{} is not supported", printable({&escape, 1}))), false;
    return true;
  }

  std::string_view text_;
  split_pattern& out_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool fold_ = false;
  std::string error_;
};

result<split_pattern> split_pattern::parse(std::string_view pattern) {
  split_pattern made;
  if (std::string const error = parser(pattern, made).run(); !error.empty())
    return failure{
        fmt::format("the split pattern '{}' is not supported, {}", printable(pattern, 300), error)};
  return made;
}

}  // namespace kvcrumb_lm
