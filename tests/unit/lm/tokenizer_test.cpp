// SPDX-License-Identifier: Apache-2.0
//! @file Split patterns and byte-level BPE: pieces by hand, round trips of any bytes, refusals.
#include "support/catch.hpp"

#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tokenizer.hpp"
#include "unicode.hpp"

namespace {

using namespace kvcrumb_lm;
using nlohmann::json;
using pieces = std::vector<std::string>;

pieces split(std::string_view pattern, std::string_view text) {
  auto const made = split_pattern::parse(pattern);
  INFO(made.error);
  REQUIRE(made);
  pieces out;
  for (std::string_view const p : made->split(text))
    out.emplace_back(p);
  return out;
}

std::string refusal(std::string_view pattern) {
  auto const made = split_pattern::parse(pattern);
  return made ? "" : made.error;
}

// The character that stands for a byte in a byte-level vocabulary.
std::string written(int byte) {
  std::string out;
  int next = 0x100;
  for (int b = 0; b < 256; ++b) {
    bool const itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    int const c = itself ? b : next++;
    if (b != byte) continue;
    if (c >= 0x80) out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(c >= 0x80 ? 0x80 | (c & 0x3F) : c);
  }
  return out;
}
std::string written(std::string const& bytes) {
  std::string out;
  for (char const c : bytes)
    out += written(static_cast<unsigned char>(c));
  return out;
}

// 256 bytes as tokens 1 to 256, then the merges.
json tokenizer_json(std::vector<std::pair<std::string, std::string>> const& merges) {
  json vocabulary = {{"<bos>", 0}}, list = json::array();
  for (int b = 0; b < 256; ++b)
    vocabulary[written(b)] = b + 1;
  for (auto const& [a, b] : merges) {
    if (!vocabulary.contains(written(a + b))) {
      std::size_t const id = vocabulary.size();
      vocabulary[written(a + b)] = id;
    }
    list.push_back(json::array({written(a), written(b)}));
  }
  return {{"added_tokens", {{{"id", 0}, {"content", "<bos>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

tokenizer parsed(json const& root) {
  auto made = tokenizer::parse(root.dump());
  INFO(made.error);
  REQUIRE(made);
  return std::move(*made);
}

std::vector<int> encoded(tokenizer const& t, std::string_view text) {
  auto const tokens = t.encode(text);
  INFO(tokens.error);
  REQUIRE(tokens);
  return *tokens;
}

bool refused(json const& root, std::string const& why) {
  auto const made = tokenizer::parse(root.dump());
  INFO(made.error);
  return !made && made.error.find(why) != std::string::npos;
}

}  // namespace

TEST_CASE("GPT-2's pattern cuts words, numbers, contractions and white space as published") {
  auto const gpt2 = split_pattern::gpt2();
  CHECK(split(gpt2, "Hello world") == pieces{"Hello", " world"});
  CHECK(split(gpt2, "it's 12a!?") == pieces{"it", "'s", " 12", "a", "!?"});
  CHECK(split(gpt2, "a   b") == pieces{"a", "  ", " b"});
  CHECK(split(gpt2, "a \n") == pieces{"a", " \n"});
  CHECK(split(gpt2, "  ") == pieces{"  "});
  CHECK(split(gpt2, "na\u00efve\u4f60 \u00bd") == pieces{"na\u00efve\u4f60", " \u00bd"});
  CHECK(split(gpt2, "") == pieces{});
}

TEST_CASE("the pieces of quantifiers, classes, look-aheads and folded case") {
  CHECK(split(R"(\p{N}{1,3})", "1234567") == pieces{"123", "456", "7"});
  CHECK(split(R"(\p{N}{2})", "12345") == pieces{"12", "34", "5"});
  CHECK(split(R"(\p{N}{3}|\p{N}a)", "12a") == pieces{"1", "2a"});
  CHECK(split(R"((?i:'re|'s))", "'RE'S'\u017f'x") == pieces{"'RE", "'S", "'\u017f", "'x"});
  CHECK(split(R"([a-c\-]+)", "ab-d") == pieces{"ab-", "d"});
  CHECK(split(R"([^a]+)", "xxaxx") == pieces{"xx", "a", "xx"});
  CHECK(split(R"(a(?=b)|b+)", "acabb") == pieces{"ac", "a", "bb"});
  CHECK(split(R"((ab|a)(c|bcd))", "abcd") == pieces{"abc", "d"});
  CHECK(split(R"((?:ab)*c)", "ababcc") == pieces{"ababc", "c"});
  CHECK(split(R"(\S+|\s+(?!\S)|\s+)", "a  b") == pieces{"a", " ", " ", "b"});
  CHECK(split(R"(\P{L}+)", "ab12c") == pieces{"ab", "12", "c"});
  // bytes that are not UTF-8 stay whole pieces of one
  CHECK(split(R"(\p{L}+)", "a\xff\xfe"
                           "b") == pieces{"a", "\xff\xfe", "b"});
}

TEST_CASE("a long run does not exhaust the stack") {
  std::string const spaces(300000, ' ');
  CHECK(split(split_pattern::gpt2(), spaces) == pieces{spaces});
}

TEST_CASE("what the matcher does not have is refused") {
  for (char const* const pattern :
       {R"(\p{Lu}+)", R"(a++)", R"(a+?)", R"((?<=a)b)",     R"((?<n>a))", R"(a.b)",        R"(^a)",
        R"(a$)",      R"(\d)",  R"(\w)",  R"([[:alpha:]])", R"((a*)*)",   R"((a)",         R"(a))",
        R"([a)",      R"(a{2)", R"(\)",   R"([b-a])",       R"(+a)",      R"((?i:\u00e9))"}) {
    CAPTURE(pattern);
    CHECK(refusal(pattern).find("is not supported, at byte") != std::string::npos);
  }
  CHECK(refusal("(?i:\u00e9)").find("beyond ASCII") != std::string::npos);
  CHECK(refusal(std::string(60, '(')).find("too deeply") != std::string::npos);
}

TEST_CASE("merges join the pair of lowest rank, leftmost first") {
  tokenizer const t = parsed(tokenizer_json({{"a", "b"}, {"b", "c"}, {"ab", "c"}, {"a", "a"}, {"aa", "aa"}}));
  auto const id = [&](char const* text) { return t.find(text).value(); };
  CHECK(encoded(t, "abc") == std::vector<int>{id("abc")});
  CHECK(encoded(t, "bc") == std::vector<int>{id("bc")});
  CHECK(encoded(t, "xbc") == std::vector<int>{id("x"), id("bc")});
  CHECK(encoded(t, "aaaaa") == std::vector<int>{id("aaaa"), id("a")});
  CHECK(encoded(t, "aaab") == std::vector<int>{id("aa"), id("ab")});
  CHECK(encoded(t, "a b") == std::vector<int>{id("a"), id(" "), id("b")});  // no merge across pieces
}

TEST_CASE("the order of merges is that of a search through the whole piece") {
  std::vector<std::pair<std::string, std::string>> const merges{
      {"a", "a"}, {"a", "b"}, {"b", "a"}, {"aa", "b"}, {"aa", "aa"}, {"ab", "ab"}, {"b", "b"}, {"ba", "aab"}};
  tokenizer const t = parsed(tokenizer_json(merges));
  std::mt19937_64 engine{4};
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (std::size_t n = engine() % 40; n > 0; --n)
      text += engine() % 3 == 0 ? 'b' : 'a';
    std::vector<std::string> symbols;
    for (char const c : text)
      symbols.emplace_back(1, c);
    for (bool merged = true; merged;) {
      merged = false;
      for (auto const& [left, right] : merges) {
        for (std::size_t k = 0; k + 1 < symbols.size() && !merged; ++k) {
          if (symbols[k] != left || symbols[k + 1] != right) continue;
          symbols[k] += symbols[k + 1];
          symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(k) + 1);
          merged = true;
        }
        if (merged) break;
      }
    }
    std::vector<int> want;
    for (std::string const& s : symbols)
      want.push_back(t.find(s).value());
    CAPTURE(text);
    CHECK(encoded(t, text) == want);
  }
}

TEST_CASE("any bytes come back as they were") {
  tokenizer const t = parsed(tokenizer_json({{"t", "h"}, {"th", "e"}, {" ", "the"}, {"\xc3", "\xa9"}}));
  std::string all;
  for (int b = 0; b < 256; ++b)
    all += static_cast<char>(b);
  std::mt19937_64 engine{11};
  for (int i = 0; i < 2000; ++i)
    all += static_cast<char>(engine() & 255U);
  all += "the \u00e9t\u00e9 <bos>the\u4f60\U0001f600 <bo";
  auto const tokens = encoded(t, all);
  CHECK(t.decode(tokens) == all);
  CHECK(std::count(tokens.begin(), tokens.end(), 0) == 1);  // the added token, once
  CHECK(tokens.size() < all.size());
  std::vector<int> const foreign{-1, 1 << 20, 'a' + 1};
  CHECK(t.decode(foreign) == "a");
}

TEST_CASE("added tokens are found in the text, the longest first, and stop merges") {
  json root = tokenizer_json({{"a", "b"}});
  root["added_tokens"].push_back({{"id", 400}, {"content", "<b"}});
  root["added_tokens"].push_back({{"id", 401}, {"content", "<b>"}});
  tokenizer const t = parsed(root);
  CHECK(encoded(t, "a<b>b") == std::vector<int>{'a' + 1, 401, 'b' + 1});
  CHECK(encoded(t, "<b<b>") == std::vector<int>{400, 401});
  CHECK(t.size() == 402);
}

TEST_CASE("merges written as strings mean the same; whole pieces can go before merges") {
  json root = tokenizer_json({{"a", "b"}, {"c", "d"}, {"ab", "cd"}, {"b", "c"}});
  json as_text = root;
  for (auto& m : as_text["model"]["merges"])
    m = m[0].get<std::string>() + " " + m[1].get<std::string>();
  CHECK(encoded(parsed(root), "abcdbc") == encoded(parsed(as_text), "abcdbc"));
  root["model"]["vocab"][written("xyz")] = 300;  // no merge makes it
  CHECK(encoded(parsed(root), "xyz").size() == 3);
  root["model"]["ignore_merges"] = true;
  CHECK(encoded(parsed(root), "xyz") == std::vector<int>{300});
}

TEST_CASE("the token in front of a text is that of the template or one that says so") {
  json root = tokenizer_json({});
  CHECK(parsed(root).first_token(0) == 0);
  CHECK(!parsed(root).first_token('a' + 1));  // config.json names a token, but not one for beginnings
  CHECK(!parsed(root).first_token(std::nullopt));
  root["added_tokens"].push_back({{"id", 400}, {"content", "[start]"}});
  root["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", "[start]"}}}}, {{"Sequence", {{"id", "A"}}}}}}}}}};
  CHECK(parsed(root).first_token(0) == 400);
}

TEST_CASE("texts that NFC may change are refused where the tokenizer asks for it") {
  json root = tokenizer_json({});
  root["normalizer"] = {{"type", "NFC"}};
  tokenizer const t = parsed(root);
  CHECK(t.encode("plain \u00e9 \u4f60 \uac00"));
  for (char const* const text : {"e\u0301", "\u212b", "\u1100\u1161", "\u0958"})
    CHECK(!t.encode(text));
}

TEST_CASE("letters, numbers and spaces are those of Unicode") {
  for (std::uint32_t const c : {0x41u, 0x7Au, 0xE9u, 0x3A9u, 0x4F60u, 0x10400u, 0x2B740u})
    CHECK(is_letter(c));
  for (std::uint32_t const c : {0x30u, 0xB2u, 0xBDu, 0x660u, 0x2167u})
    CHECK((is_number(c) && !is_letter(c)));
  for (std::uint32_t const c : {0x20u, 0x9u, 0xDu, 0x85u, 0xA0u, 0x2003u, 0x3000u})
    CHECK((is_space(c) && !is_letter(c) && !is_number(c)));
  for (std::uint32_t const c : {0x21u, 0x200Bu, 0x5Fu, 0x1F600u, not_a_character})
    CHECK((!is_space(c) && !is_letter(c) && !is_number(c)));
  CHECK(decode_utf8("\xed\xa0\x80", 0).value == not_a_character);  // a surrogate
  CHECK(decode_utf8("\xc0\x80", 0).value == not_a_character);      // too long
  CHECK(decode_utf8("\xe0\x80\x80", 0).value == not_a_character);  // likewise
  CHECK(decode_utf8("\xf4\x90\x80\x80", 0).value == not_a_character);
  CHECK(decode_utf8("\xe4\xbd", 0).value == not_a_character);  // cut
}

TEST_CASE("tokenizer files of other kinds are refused with the name of the field") {
  json const good = tokenizer_json({{"a", "b"}});
  auto const with = [&](char const* pointer, json value) {
    json root = good;
    root[json::json_pointer(pointer)] = std::move(value);
    return root;
  };
  CHECK(!tokenizer::parse("{").value);
  CHECK(refused(json::array(), "not a JSON object"));
  CHECK(refused(json::object(), "'model' is missing"));
  CHECK(refused(with("/model/type", "Unigram"), "'model.type' is 'Unigram'"));
  CHECK(refused(with("/model/byte_fallback", true), "byte_fallback"));
  CHECK(refused(with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix"));
  CHECK(refused(with("/model/dropout", 0.1), "dropout"));
  CHECK(refused(with("/model/vocab", json::array()), "'model.vocab'"));
  CHECK(refused(with("/model/vocab/x", -1), "not a token number"));
  CHECK(refused(with("/model/merges/0", "ab"), "'model.merges', entry 0"));
  CHECK(refused(with("/model/merges/0", "q z"), "not in the vocabulary"));
  CHECK(refused(with("/normalizer", {{"type", "Lowercase"}}), "'normalizer' is Lowercase"));
  CHECK(refused(with("/pre_tokenizer", nullptr), "no ByteLevel"));
  CHECK(refused(with("/pre_tokenizer/type", "Metaspace"), "'pre_tokenizer' is Metaspace"));
  CHECK(refused(with("/pre_tokenizer/add_prefix_space", true), "add_prefix_space"));
  CHECK(refused(with("/added_tokens/0/lstrip", true), "lstrip"));
  json const split = {{"type", "Split"}, {"pattern", {{"Regex", R"(\d+)"}}}, {"behavior", "Isolated"}};
  CHECK(refused(with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split}}}),
                R"(the escape \d)"));
  json removed = split;
  removed["behavior"] = "Removed";
  CHECK(refused(with("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {removed}}}),
                "behavior Isolated"));
  json no_byte = good;
  no_byte["model"]["vocab"].erase(written(7));
  CHECK(refused(no_byte, "no token for byte 7"));
}
