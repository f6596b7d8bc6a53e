// SPDX-License-Identifier: Apache-2.0
//! @file tokenizer_file: a tokenizer out of tokenizer.json.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "model_config.hpp"
#include "text.hpp"
#include "tokenizer.hpp"
#include "unicode.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::printable;
using nlohmann::json;

namespace {

// The characters by which byte-level vocabularies write bytes: printable ones of Latin-1 stand for
// themselves, the others for U+0100 and up, in order.
std::unordered_map<std::uint32_t, char> byte_alphabet() {
  std::unordered_map<std::uint32_t, char> bytes;
  std::uint32_t next = 0x100;
  for (std::uint32_t b = 0; b < 256; ++b) {
    bool const itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    bytes[itself ? b : next++] = static_cast<char>(b);
  }
  return bytes;
}

json const* field(json const& object, char const* name) {
  auto const at = object.is_object() ? object.find(name) : object.end();
  return !object.is_object() || at == object.end() || at->is_null() ? nullptr : &*at;
}

std::string word(json const& object, char const* name) {
  json const* const v = field(object, name);
  return v != nullptr && v->is_string() ? v->get<std::string>() : std::string();
}

bool flag(json const& object, char const* name, bool missing) {
  json const* const v = field(object, name);
  return v != nullptr && v->is_boolean() ? v->get<bool>() : missing;
}

}  // namespace

// Each function returns an error text, empty if all is well.
struct tokenizer::reader {
  tokenizer& t;
  std::unordered_map<std::uint32_t, char> const alphabet = byte_alphabet();

  // "Ġthe" -> " the"
  bool to_bytes(std::string_view written, std::string& bytes) const {
    for (std::size_t at = 0; at < written.size();) {
      code_point const c = decode_utf8(written, at);
      auto const found = alphabet.find(c.value);
      if (found == alphabet.end()) return false;
      bytes += found->second;
      at += c.bytes;
    }
    return true;
  }

  std::string name(int id, std::string bytes) {
    if (id < 0 || id > 1 << 24) return fmt::format("the token number {} is out of range", id);
    auto const at = static_cast<std::size_t>(id);
    if (t.bytes_of_.size() <= at) t.bytes_of_.resize(at + 1);
    t.bytes_of_[at] = std::move(bytes);
    return {};
  }

  std::string vocabulary(json const& model) {
    json const* const vocab = field(model, "vocab");
    if (vocab == nullptr || !vocab->is_object()) return "'model.vocab' is missing or not an object";
    for (auto const& [written, id] : vocab->items()) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() > 1u << 24)
        return fmt::format("'model.vocab': the number of '{}' is not a token number",
                           printable(written, 100));
      std::string bytes;
      // What is not byte-level is an added token, which stands as it is.
      if (!to_bytes(written, bytes)) bytes = written;
      t.vocabulary_[bytes] = id.get<int>();
      if (std::string error = name(id.get<int>(), bytes); !error.empty()) return error;
    }
    for (int b = 0; b < 256; ++b) {
      auto const found = t.vocabulary_.find(std::string(1, static_cast<char>(b)));
      if (found == t.vocabulary_.end())
        return fmt::format(
            "'model.vocab' has no token for byte {}: only byte-level vocabularies are supported", b);
      t.byte_tokens_[static_cast<std::size_t>(b)] = found->second;
    }
    return {};
  }

  std::string merges(json const& model) {
    json const* const list = field(model, "merges");
    if (list == nullptr || !list->is_array()) return "'model.merges' is missing or not a list";
    int rank = 0;
    for (json const& entry : *list) {
      std::string left, right;
      if (entry.is_string()) {
        std::string const text = entry.get<std::string>();
        std::size_t const space = text.find(' ');
        if (space != text.npos) left = text.substr(0, space), right = text.substr(space + 1);
      } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
        left = entry[0].get<std::string>(), right = entry[1].get<std::string>();
      }
      std::string a, b;
      if (left.empty() || right.empty() || !to_bytes(left, a) || !to_bytes(right, b))
        return fmt::format("'model.merges', entry {}: not two byte-level tokens", rank);
      auto const first = t.vocabulary_.find(a), second = t.vocabulary_.find(b),
                 made = t.vocabulary_.find(a + b);
      if (first == t.vocabulary_.end() || second == t.vocabulary_.end() || made == t.vocabulary_.end())
        return fmt::format("'model.merges', entry {}: one of its tokens is not in the vocabulary", rank);
      t.merges_.emplace(pair_key(first->second, second->second), merge{rank, made->second});
      ++rank;
    }
    return {};
  }

  std::string model(json const& root) {
    json const* const m = field(root, "model");
    if (m == nullptr) return "'model' is missing";
    if (word(*m, "type") != "BPE")
      return fmt::format("'model.type' is '{}'; only BPE is supported", printable(word(*m, "type"), 40));
    if (flag(*m, "byte_fallback", false)) return "'model.byte_fallback' is true: not a byte-level tokenizer";
    for (char const* const unsupported : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!word(*m, unsupported).empty())
        return fmt::format("'model.{}' is set, which is not supported", unsupported);
    }
    if (field(*m, "dropout") != nullptr) return "'model.dropout' is set, which is not supported";
    t.whole_pieces_ = flag(*m, "ignore_merges", false);
    if (std::string error = vocabulary(*m); !error.empty()) return error;
    return merges(*m);
  }

  std::string normalizer(json const& root) {
    json const* const n = field(root, "normalizer");
    if (n == nullptr) return {};
    t.nfc_ = word(*n, "type") == "NFC";
    return t.nfc_ ? std::string()
                  : fmt::format("'normalizer' is {}; only NFC is supported", printable(word(*n, "type"), 40));
  }

  std::string pre_tokenizer(json const& p, bool& byte_level) {
    std::string const type = word(p, "type");
    if (type == "Sequence") {
      json const* const parts = field(p, "pretokenizers");
      if (parts == nullptr || !parts->is_array()) return "'pre_tokenizer.pretokenizers' is missing";
      for (json const& part : *parts) {
        if (std::string error = pre_tokenizer(part, byte_level); !error.empty()) return error;
      }
      return {};
    }
    std::string pattern;
    if (type == "ByteLevel") {
      byte_level = true;
      if (flag(p, "add_prefix_space", true)) return "'pre_tokenizer': add_prefix_space is not supported";
      if (!flag(p, "use_regex", true)) return {};
      pattern = split_pattern::gpt2();
    } else if (type == "Split") {
      if (byte_level) return "'pre_tokenizer': a Split behind ByteLevel is not supported";
      json const* const given = field(p, "pattern");
      if (given != nullptr) pattern = word(*given, "Regex");
      if (pattern.empty()) return "'pre_tokenizer': only Split by a Regex is supported";
      if (word(p, "behavior") != "Isolated" || flag(p, "invert", false))
        return "'pre_tokenizer': only Split with behavior Isolated, not inverted, is supported";
    } else {
      return fmt::format("'pre_tokenizer' is {}; only ByteLevel and Split are supported",
                         printable(type, 40));
    }
    auto made = split_pattern::parse(pattern);
    if (!made) return fmt::format("'pre_tokenizer': {}", made.error);
    t.splits_.push_back(std::move(*made));
    return {};
  }

  std::string added(json const& root) {
    json const* const list = field(root, "added_tokens");
    if (list == nullptr) return {};
    for (json const& entry : *list) {
      std::string const text = word(entry, "content");
      json const* const id = field(entry, "id");
      if (text.empty() || id == nullptr || !id->is_number_integer())
        return "'added_tokens': an entry has no content or no id";
      for (char const* const option : {"single_word", "lstrip", "rstrip"}) {
        if (flag(entry, option, false))
          return fmt::format("'added_tokens': {} of '{}' is not supported", option, printable(text, 100));
      }
      if (std::string error = name(id->get<int>(), text); !error.empty()) return error;
      t.added_[text] = id->get<int>();
      t.added_texts_.push_back(text);
    }
    std::stable_sort(t.added_texts_.begin(), t.added_texts_.end(),
                     [](auto const& a, auto const& b) { return a.size() > b.size(); });
    return {};
  }

  // The special token that a template puts in front of a single text.
  void post_processor(json const& p) {
    if (word(p, "type") == "Sequence") {
      if (json const* const parts = field(p, "processors"); parts != nullptr) {
        for (json const& part : *parts)
          post_processor(part);
      }
    }
    json const* const single = field(p, "single");
    if (word(p, "type") != "TemplateProcessing" || single == nullptr || !single->is_array() ||
        single->empty())
      return;
    json const* const special = field((*single)[0], "SpecialToken");
    if (special == nullptr) return;
    auto const found = t.added_.find(word(*special, "id"));
    if (found != t.added_.end()) t.prefix_ = found->second;
  }
};

result<tokenizer> tokenizer::parse(std::string_view json_text) {
  json const root = json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return failure{"is not a JSON object"};
  tokenizer t;
  reader r{t};
  std::string error = r.model(root);
  if (error.empty()) error = r.normalizer(root);
  json const* const pre = field(root, "pre_tokenizer");
  bool byte_level = false;
  if (error.empty() && pre != nullptr) error = r.pre_tokenizer(*pre, byte_level);
  if (error.empty() && !byte_level) error = "'pre_tokenizer' has no ByteLevel: not a byte-level tokenizer";
  if (error.empty()) error = r.added(root);
  if (!error.empty()) return failure{std::move(error)};
  if (json const* const post = field(root, "post_processor"); post != nullptr) r.post_processor(*post);
  return t;
}

result<tokenizer> tokenizer::load(std::filesystem::path const& path) {
  auto const text = read_text(path);
  if (!text) return failure{text.error};
  auto t = parse(*text);
  if (!t) return failure{fmt::format("'{}': {}", printable(path.string(), 400), t.error)};
  return t;
}

}  // namespace kvcrumb_lm
