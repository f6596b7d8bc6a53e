// SPDX-License-Identifier: Apache-2.0
//! @file command_generate: kvcrumb-lm generate.
#include <algorithm>

#include <fmt/format.h>

#include "commands.hpp"
#include "evaluation.hpp"
#include "generation.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::printable;

// Safe for a terminal, line by line.
std::string shown(std::string_view text) {
  std::string out;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t const end = std::min(text.find('\n', begin), text.size());
    if (begin > 0) out += '\n';
    out += printable(text.substr(begin, end - begin), std::size_t{1} << 20);
    begin = end + 1;
  }
  return out;
}

struct continuation {
  std::vector<int> tokens;
  double bits = 0.0;
};

result<continuation> continue_text(session& s, generate_arguments const& a, scheme_request const& request,
                                   std::span<int const> prompt, std::span<recorded_layer const> calibration) {
  auto const context = static_cast<std::int64_t>(prompt.size()) + a.tokens;
  auto layers = make_layers(request, shape_of(s.m, context), calibration);
  if (!layers) return failure{layers.error};
  sequence of;
  of.layers = std::move(*layers);
  auto tokens =
      generate(s.m, of, prompt, a.tokens, a.chunk, {a.temperature, a.seed}, s.m.config.eos, s.threads);
  if (!tokens) return failure{fmt::format("{}: {}", request.text, tokens.error)};
  double const values = 2.0 * static_cast<double>(of.tokens()) * s.m.config.kv_width() * s.m.config.layers;
  return continuation{std::move(*tokens), 8.0 * static_cast<double>(of.bytes()) / values};
}

std::string first_difference(session const& s, std::span<int const> a, std::span<int const> b) {
  auto const [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (x == a.end() && y == b.end()) return fmt::format("All {} tokens are the same.", a.size());
  auto const word = [&](std::span<int const> all, auto at) {
    return at == all.end() ? std::string("the end")
                           : fmt::format("'{}'", printable(s.t.decode(std::span(&*at, 1)), 100));
  };
  return fmt::format("They differ first at token {} of {}: {} and {}.", x - a.begin() + 1,
                     std::max(a.size(), b.size()), word(a, x), word(b, y));
}

}  // namespace

int run_generate(generate_arguments const& a) {
  auto const schemes = parse_schemes(a.scheme);
  if (!schemes) return fail(schemes.error);
  auto opened = open_session(a.model);
  if (!opened) return fail(opened.error);
  session& s = **opened;
  auto encoded = s.t.encode(a.prompt);
  if (!encoded) return fail(fmt::format("the prompt: {}", encoded.error));
  std::vector<int> prompt = std::move(*encoded);
  if (s.first) prompt.insert(prompt.begin(), *s.first);
  auto const context = static_cast<std::int64_t>(prompt.size()) + a.tokens;
  if (context > s.m.config.context)
    return fail(fmt::format("prompt and text have {} tokens, more than max_position_embeddings, {}", context,
                            s.m.config.context));
  std::vector<recorded_layer> calibration;
  if (std::any_of(schemes->begin(), schemes->end(),
                  [](auto const& r) { return find_scheme(r.name)->calibrates; })) {
    auto recorded = record_rows(s.m, prompt, s.threads);  // as a deployment without other data would
    if (!recorded) return fail(recorded.error);
    calibration = std::move(*recorded);
  }
  auto const exact = continue_text(s, a, {.text = "fp16", .name = "fp16"}, prompt, {});
  if (!exact) return fail(exact.error);
  fmt::print("prompt ({} tokens)\n{}\n\nfp16 ({:.3f} bits per value)\n{}\n", prompt.size(), shown(a.prompt),
             exact->bits, shown(s.t.decode(exact->tokens)));
  for (scheme_request const& request : *schemes) {
    auto const made = continue_text(s, a, request, prompt, calibration);
    if (!made) return fail(made.error);
    fmt::print("\n{} ({:.3f} bits per value)\n{}\n\n{}\n", request.text, made->bits,
               shown(s.t.decode(made->tokens)), first_difference(s, exact->tokens, made->tokens));
  }
  return 0;
}

}  // namespace kvcrumb_lm
