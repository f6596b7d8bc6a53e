// SPDX-License-Identifier: Apache-2.0
//! @file command_eval: kvcrumb-lm eval.
#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <kvcrumb/version.hpp>

#include "commands.hpp"
#include "lm_report.hpp"
#include "progress.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::printable;
using kvcrumb_compare::progress_bar;

int write_file(std::string const& path, std::string const& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  return file.flush() ? 0 : fail(fmt::format("'{}' cannot be written", printable(path, 400)));
}

std::string shape_sentence(model_config const& c) {
  return fmt::format(
      "{}: {} layers, {} query heads on {} kv heads of {} channels, hidden size {}, vocabulary {}",
      c.model_type, c.layers, c.query_heads, c.kv_heads, c.head_dim, c.hidden, c.vocabulary);
}

// The base from a file, or computed and, if a file is named, written there. `origin` says which.
result<base_logits> get_base(session& s, eval_arguments const& a, windows const& w,
                             progress_function const& progress, std::string& origin) {
  if (!a.base.empty() && std::filesystem::exists(a.base)) {
    auto base = base_logits::load(a.base, key_of(s.m, w));
    if (base)
      origin = fmt::format("Base: log-probabilities of the fp16 cache, {}, read from '{}'.",
                           base->half() ? "f16" : "f32", printable(a.base, 400));
    return base;
  }
  auto base = compute_base(s.m, w, a.half_base, s.threads, progress);
  if (!base) return base;
  origin = fmt::format("Base: log-probabilities of the fp16 cache, {}, computed in this run.",
                       a.half_base ? "f16" : "f32");
  if (a.base.empty()) return base;
  if (std::string error = base->save(a.base); !error.empty()) return failure{error};
  return base;
}

// Rows for the schemes that calibrate: the first window of --calibration, else what follows in the text.
result<std::vector<recorded_layer>> get_calibration(session& s, eval_arguments const& a,
                                                    std::vector<int> rest, std::string& origin) {
  auto const want = static_cast<std::size_t>(a.context - (s.first ? 1 : 0));
  origin = "the tokens of the text that follow those evaluated";
  if (!a.calibration.empty()) {
    text_arguments const text{.file = a.calibration, .tokens = 0};
    auto tokens = read_tokens(s, text);
    if (!tokens) return failure{tokens.error};
    rest = std::move(*tokens);
    origin = fmt::format("the first tokens of '{}'", printable(a.calibration, 400));
  }
  if (rest.size() < want)
    return failure{
        fmt::format("some of the schemes must be calibrated on {} tokens, and {} has {}: name another text "
                    "with --calibration",
                    want, origin, rest.size())};
  rest.resize(want);
  if (s.first) rest.insert(rest.begin(), *s.first);
  return record_rows(s.m, rest, s.threads);
}

}  // namespace

int run_eval(eval_arguments const& a) {
  auto schemes = parse_schemes(a.schemes);
  if (!schemes) return fail(schemes.error);
  if (std::none_of(schemes->begin(), schemes->end(), [](auto const& r) { return r.text == "fp16"; }))
    schemes->insert(schemes->begin(), {.text = "fp16", .name = "fp16"});  // the control
  auto opened = open_session(a.model);
  if (!opened) return fail(opened.error);
  session& s = **opened;
  if (a.context > s.m.config.context)
    return fail(
        fmt::format("--context {} is more than max_position_embeddings, {}", a.context, s.m.config.context));
  std::vector<int> rest;
  auto const tokens = read_tokens(s, a.text, &rest);
  if (!tokens) return fail(tokens.error);
  windows const w = cut_windows(*tokens, a.context, s.first);
  if (w.empty()) return fail("the text is too short for one window");

  report_input report;
  std::vector<recorded_layer> calibration;
  if (std::any_of(schemes->begin(), schemes->end(),
                  [](auto const& r) { return find_scheme(r.name)->calibrates; })) {
    std::string origin;
    auto recorded = get_calibration(s, a, std::move(rest), origin);
    if (!recorded) return fail(recorded.error);
    calibration = std::move(*recorded);
    report.notes.push_back(fmt::format("Schemes that calibrate did so on {} tokens: {}.", a.context, origin));
  }
  constexpr double base_share = 0.1;  // of the bar
  progress_bar bar(1.0);
  auto const base = get_base(
      s, a, w, [&](std::string_view label, double done) { bar.update(label, base_share * done); },
      report.base);
  if (!base) return fail(base.error);
  auto results = evaluate(s.m, w, *base, *schemes, calibration, {.context = a.context, .chunk = a.chunk},
                          s.threads, [&](std::string_view label, double done) {
                            bar.update(label, base_share + (1.0 - base_share) * done);
                          });
  bar.finish();
  if (!results) return fail(results.error);

  layer_request const shape = shape_of(s.m, a.context);
  report.model = a.model.folder;
  report.text = a.text.file;
  report.command = a.command;
  report.version =
      fmt::format("{}.{}.{}", KVCRUMB_VERSION_MAJOR, KVCRUMB_VERSION_MINOR, KVCRUMB_VERSION_PATCH);
  report.shape = shape_sentence(s.m.config);
  report.windows = static_cast<std::int64_t>(w.size());
  report.predicted = static_cast<std::int64_t>(base->key().rows);
  report.context = a.context;
  report.chunk = a.chunk;
  report.first_token = s.first.has_value();
  report.notes.push_back(fmt::format("Schemes that encode groups of {} tokens keep the newest {} to {} "
                                     "tokens exact, all the same; ott2 and crumb2 trace "
                                     "no outlier tokens in layers below {}. Bits include everything.",
                                     shape.group, shape.window, shape.window + shape.group - 1,
                                     shape.trace_from));
  report.results = std::move(*results);
  report.each_token = a.each_token;
  if (!a.html.empty() && write_file(a.html, html_report(report)) != 0) return 2;
  if (!a.json.empty() && a.json != "-" && write_file(a.json, json_report(report)) != 0) return 2;
  fmt::print("{}", a.json == "-" ? json_report(report) : text_report(report));
  return 0;
}

}  // namespace kvcrumb_lm
