// SPDX-License-Identifier: Apache-2.0
//! @file commands: loading, and the commands that write files of numbers.
#include "commands.hpp"

#include <algorithm>
#include <cstdio>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dump.hpp"
#include "evaluation.hpp"
#include "text.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::printable;

int fail(std::string const& text) {
  fmt::print(stderr, "kvcrumb-lm: {}\n", text);
  return 2;
}

result<std::unique_ptr<session>> open_session(model_arguments const& a) {
  auto loaded = load_model(a.folder);
  if (!loaded) return failure{loaded.error};
  auto words = tokenizer::load(std::filesystem::path(a.folder) / "tokenizer.json");
  if (!words) return failure{words.error};
  if (words->size() > loaded->config.vocabulary)
    return failure{fmt::format("'{}': tokenizer.json has token {}, but vocab_size in config.json is {}",
                               printable(a.folder, 400), words->size() - 1, loaded->config.vocabulary)};
  std::optional<int> first;
  if (a.bos == "auto") first = words->first_token(loaded->config.bos);
  if (a.bos == "yes") first = loaded->config.bos;
  if (a.bos == "yes" && !first) return failure{"--bos yes, but config.json has no bos_token_id"};
  int const threads =
      a.threads > 0 ? a.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::make_unique<session>(std::move(*loaded), std::move(*words), first, threads);
}

result<std::vector<int>> read_tokens(session const& s, text_arguments const& a, std::vector<int>* rest) {
  auto const text = read_text(a.file);
  if (!text) return failure{text.error};
  auto const tokens = s.t.encode(*text);
  if (!tokens) return failure{fmt::format("'{}': {}", printable(a.file, 400), tokens.error)};
  auto const all = static_cast<std::int64_t>(tokens->size());
  if (all < a.skip + 2)
    return failure{
        fmt::format("'{}' has only {} tokens, of which {} are skipped", printable(a.file, 400), all, a.skip)};
  std::int64_t const end = a.tokens > 0 ? std::min(all, a.skip + a.tokens) : all;
  if (rest != nullptr) rest->assign(tokens->begin() + end, tokens->end());
  return std::vector<int>(tokens->begin() + a.skip, tokens->begin() + end);
}

int run_tokenize(dump_arguments const& a) {
  auto words = tokenizer::load(std::filesystem::path(a.model.folder) / "tokenizer.json");
  if (!words) return fail(words.error);
  auto const text = read_text(a.text.file);
  if (!text) return fail(text.error);
  auto const tokens = words->encode(*text);
  if (!tokens) return fail(tokens.error);
  fmt::print("{}\n", fmt::join(*tokens, " "));
  return 0;
}

int run_list() {
  for (scheme_entry const& e : known_schemes())
    fmt::print("{:16} {}\n", e.name, e.summary);
  return 0;
}

result<std::vector<int>> window_of(session const& s, text_arguments const& a) {
  auto tokens = read_tokens(s, a);
  if (!tokens) return failure{tokens.error};
  if (s.first) {
    tokens->insert(tokens->begin(), *s.first);
    if (a.tokens > 0) tokens->resize(std::min(tokens->size(), static_cast<std::size_t>(a.tokens)));
  }
  if (static_cast<std::int64_t>(tokens->size()) > s.m.config.context)
    return failure{fmt::format("{} tokens are more than max_position_embeddings, {}", tokens->size(),
                               s.m.config.context)};
  return tokens;
}

int run_dump(dump_arguments const& a) {
  auto opened = open_session(a.model);
  if (!opened) return fail(opened.error);
  session& s = **opened;
  auto const tokens = window_of(s, a.text);
  if (!tokens) return fail(tokens.error);
  std::vector<float> before_rope;
  auto const recorded = record_rows(s.m, *tokens, s.threads, &before_rope);
  if (!recorded) return fail(recorded.error);
  text_map const metadata{{"model", printable(a.model.folder)},
                          {"text", printable(a.text.file)},
                          {"first_text_token", std::to_string(a.text.skip)},
                          {"layout", "[layer][head][token][dim], q and k after RoPE"},
                          {"head_dim", std::to_string(s.m.config.head_dim)},
                          {"q_heads", std::to_string(s.m.config.query_heads)},
                          {"kv_heads", std::to_string(s.m.config.kv_heads)},
                          {"recorded_by", "kvcrumb-lm dump"}};
  std::string const error = write_recording(a.output, *recorded, before_rope, *tokens, metadata);
  return error.empty() ? 0 : fail(error);
}

int run_logits(dump_arguments const& a) {
  auto opened = open_session(a.model);
  if (!opened) return fail(opened.error);
  session& s = **opened;
  auto const tokens = window_of(s, a.text);
  if (!tokens) return fail(tokens.error);
  auto const schemes = parse_schemes(a.scheme);
  if (!schemes) return fail(schemes.error);
  if (schemes->size() != 1) return fail("--scheme takes one scheme");
  auto const n = static_cast<std::int64_t>(tokens->size());
  std::vector<recorded_layer> calibration;
  if (find_scheme(schemes->front().name)->calibrates) {
    auto recorded = record_rows(s.m, *tokens, s.threads);
    if (!recorded) return fail(recorded.error);
    calibration = std::move(*recorded);
  }
  auto layers = make_layers(schemes->front(), shape_of(s.m, n), calibration);
  if (!layers) return fail(layers.error);
  sequence of;
  of.layers = std::move(*layers);
  activations work;
  std::vector<float> logits(static_cast<std::size_t>(n * s.m.config.vocabulary));
  for (std::int64_t at = 0; at < n; at += a.chunk) {
    std::int64_t const count = std::min<std::int64_t>(a.chunk, n - at);
    step const next{&of, std::span<int const>(*tokens).subspan(static_cast<std::size_t>(at),
                                                               static_cast<std::size_t>(count))};
    std::string const error = forward(s.m, std::span(&next, 1), work, s.threads);
    if (!error.empty()) return fail(fmt::format("{}: {}", schemes->front().text, error));
    project_logits(s.m, work.x.data(), count, logits.data() + at * s.m.config.vocabulary, s.threads);
  }
  std::vector<tensor_out> const tensors{f32_tensor("logits", {n, s.m.config.vocabulary}, logits),
                                        i32_tensor("token_ids", *tokens)};
  std::string const error = write_safetensors(a.output, tensors, {{"scheme", schemes->front().text}});
  return error.empty() ? 0 : fail(error);
}

}  // namespace kvcrumb_lm
