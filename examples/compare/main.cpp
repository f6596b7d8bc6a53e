// SPDX-License-Identifier: Apache-2.0
//! @file kvcrumb-compare: what the schemes of kvcrumb do to a recorded KV cache.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <kvcrumb/version.hpp>

#include "calibrate.hpp"
#include "evaluate.hpp"
#include "picture.hpp"
#include "progress.hpp"
#include "risk_measured.hpp"
#include "sample.hpp"
#include "tradeoff.hpp"

namespace {

using namespace kvcrumb_compare;

struct arguments {
  std::string input, sample = "sample", schemes = "all", layers, html, budgets, calibrate, output, parameters;
  int group = 0, window = -1, queries = 64, pool = 3, first_traced = 2;
  bool json = false, list = false, tradeoff = false, risk = false;
};

int fail(std::string const& text) {
  fmt::print(stderr, "kvcrumb-compare: {}\n", text);
  return 2;
}

std::vector<std::string> split(std::string const& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t const end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

//! Numbers separated by commas; `what` is the option.
result<std::vector<int>> numbers(std::string const& text, std::string_view what) {
  std::vector<int> values;
  for (std::string const& part : split(text)) {
    int value = 0;
    auto const [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc{} || end != part.data() + part.size() || value < 0) {
      return failure{fmt::format("{}: '{}' is not a whole number", what, part)};
    }
    values.push_back(value);
  }
  return values;
}

//! The schemes asked for, each once, in the order given.
result<std::vector<std::string>> scheme_names(std::string const& text) {
  std::vector<std::string> names;
  for (std::string const& part : split(text)) {
    if (part == "all") {
      for (scheme_entry const& e : known_schemes())
        names.emplace_back(e.name);
    } else if (find_scheme(part) != nullptr) {
      names.push_back(part);
    } else {
      std::vector<std::string_view> known;
      for (scheme_entry const& e : known_schemes())
        known.push_back(e.name);
      return failure{fmt::format("no scheme is named '{}'; there are {}", part, fmt::join(known, " "))};
    }
  }
  std::vector<std::string> unique;
  for (std::string const& name : names) {
    if (std::find(unique.begin(), unique.end(), name) == unique.end()) unique.push_back(name);
  }
  if (unique.empty()) return failure{"--schemes names no scheme"};
  return unique;
}

//! The head with the most telling keys: the smallest key norm relative to its median.
std::int64_t telling_head(recorded_layer const& layer) {
  std::int64_t best = 0;
  double least = 2.0;
  for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
    std::vector<double> const norms = key_norms(layer, head);
    double const middle = median(norms), ratio = *std::min_element(norms.begin(), norms.end());
    if (middle > 0.0 && ratio / middle < least) {
      least = ratio / middle;
      best = head;
    }
  }
  return best;
}

key_picture picture_of(recorded_layer const& layer, std::vector<scheme_result> const& results) {
  key_picture p;
  std::int64_t const head = telling_head(layer), size = layer.tokens * layer.head_dim;
  p.layer = layer.number;
  p.head = static_cast<int>(head);
  p.tokens = layer.tokens;
  p.head_dim = layer.head_dim;
  p.keys.assign(layer.k.begin() + head * size, layer.k.begin() + (head + 1) * size);
  for (scheme_result const& r : results) {
    for (traced_token const& t : r.traced_tokens) {
      if (t.layer == p.layer && t.head == p.head) p.traced.push_back(t);
    }
    if (!p.traced.empty()) break;  // the first scheme that keeps any
  }
  return p;
}

int write_file(std::string const& path, std::string const& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  return file.flush() ? 0 : fail(fmt::format("cannot write '{}'", path));
}

int run_calibrate(arguments const& a, recorded_layers const& recorded) {
  if (a.output.empty()) return fail("--calibrate needs --output FILE");
  auto const c = calibrate(a.calibrate, recorded);
  if (!c) return fail(c.error);
  auto const text = calibration_text(*c);
  return text ? write_file(a.output, *text) : fail(text.error);
}

int run_tradeoff(arguments const& a, recorded_layers const& recorded, std::string_view input) {
  auto const budgets = numbers(a.budgets, "--budgets");
  if (!budgets) return fail(budgets.error);
  std::vector<std::string> names = split(a.schemes);
  if (a.schemes == "all") names.assign(tradeoff_schemes().begin(), tradeoff_schemes().end());
  if (names.empty()) return fail("--schemes names no scheme");
  tradeoff_settings settings;
  settings.budgets.assign(budgets->begin(), budgets->end());
  settings.max_queries = a.queries;
  settings.group = a.group;
  std::size_t const points = budgets->empty() ? 4 : budgets->size();
  progress_bar bar(static_cast<double>(names.size() * points * recorded.layers.size()));
  double done = 0.0;
  auto const r = measure_tradeoff(recorded, names, settings, [&] { bar.update("tradeoff", done += 1.0); });
  bar.finish();
  if (!r) return fail(r.error);
  fmt::print("{}", a.json ? tradeoff_json(input, *r) : tradeoff_text(input, *r));
  return 0;
}

int run_risk(arguments const& a, recorded_layers const& recorded, std::string_view input) {
  risk_settings settings = risk_settings_of(settings_for(recorded.layers.front().tokens));
  if (a.group > 0) {
    settings.caches.group = a.group;
    settings.caches.tile_tokens = std::max(32, a.group);
  }
  settings.caches.max_queries = a.queries;
  settings.caches.pool = a.pool;
  auto const report = measured_risk(input, recorded, settings);
  if (!report) return fail(report.error);
  if (!a.html.empty()) {
    if (int const code = write_file(a.html, risk_html(*report, recorded)); code != 0) return code;
  }
  fmt::print("{}", a.json ? risk_json(*report) : risk_text(*report));
  return 0;
}

int run(arguments const& a, std::string const& command) {
  if (a.list) {
    for (scheme_entry const& e : known_schemes())
      fmt::print("{:8}  {}\n", e.name, e.summary);
    return 0;
  }
  auto const layers = numbers(a.layers, "--layers");
  if (!layers) return fail(layers.error);
  load_options options;
  options.layers = *layers;
  auto const sample = find_sample(a.sample);
  if (a.input.empty() && !sample) return fail(fmt::format("no embedded sample is named '{}'", a.sample));
  auto recorded = a.input.empty() ? load_tensor_bytes(sample->bytes, sample->name, options)
                                  : load_tensor_file(a.input, options);
  if (!recorded) return fail(recorded.error);
  recorded_layer const& first = recorded->layers.front();
  std::string const input = a.input.empty() ? fmt::format("embedded {}", sample->name) : a.input;
  if (!a.calibrate.empty()) return run_calibrate(a, *recorded);
  if (a.tradeoff) return run_tradeoff(a, *recorded, input);
  if (a.risk) return run_risk(a, *recorded, input);
  auto const names = scheme_names(a.schemes);
  if (!names) return fail(names.error);
  std::optional<calibration> parameters;
  if (!a.parameters.empty()) {
    auto loaded = load_calibration(a.parameters);
    if (!loaded) return fail(loaded.error);
    parameters = std::move(*loaded);
    if (std::find(names->begin(), names->end(), parameters->scheme) == names->end())
      return fail(fmt::format("'{}' has parameters of {}, which --schemes does not name", a.parameters,
                              parameters->scheme));
  }

  evaluation_settings settings = settings_for(first.tokens);
  if (a.group > 0) {
    settings.group = a.group;
    settings.tile_tokens = std::max(32, a.group);
  }
  if (a.window >= 0) settings.window = a.window;
  settings.max_queries = a.queries;
  settings.pool = a.pool;
  settings.first_traced = a.first_traced;

  report_input report;
  report.input = input;
  report.tokens = first.tokens;
  report.head_dim = first.head_dim;
  report.kv_heads = first.kv_heads;
  report.query_heads = first.query_heads;
  report.queries = std::min<std::int64_t>(first.queries, settings.max_queries);
  for (recorded_layer const& layer : recorded->layers)
    report.layers.push_back(layer.number);
  report.group = settings.group;
  report.window = settings.window;
  report.tile_tokens = settings.tile_tokens;
  report.version =
      fmt::format("{}.{}.{}", KVCRUMB_VERSION_MAJOR, KVCRUMB_VERSION_MINOR, KVCRUMB_VERSION_PATCH);
  report.command = command;
  for (auto const& [key, value] : recorded->metadata)
    report.source.emplace_back(key, value);
  for (std::string const& name : *names)
    report.schemes.emplace_back(name, find_scheme(name)->summary);
  report.notes.push_back(
      fmt::format("Schemes that encode groups of tokens (kivi, ott2, crumb2, oscar and others) "
                  "keep the newest {} to {} tokens in full precision, all the same; their bits "
                  "include them, so short inputs show more bits than long ones.",
                  settings.window, settings.window + settings.group - 1));
  if (!first.has_queries()) {
    report.notes.push_back(
        "The file holds no queries: what attention would lose is not known and stands as null.");
  }
  if (settings.first_traced > 0) {
    report.notes.push_back(
        fmt::format("ott2 and crumb2 trace no outlier tokens in layers below {}.", settings.first_traced));
  }
  if (parameters) {
    report.notes.push_back(
        fmt::format("{} is calibrated by '{}', not on this input.", parameters->scheme, a.parameters));
  }
  for (std::string const& name : recorded->unused)
    report.notes.push_back(fmt::format("Array not used: {}", name));

  progress_bar bar(static_cast<double>((names->size() + 1) * recorded->layers.size()));
  double done = 0.0;
  std::vector<exact_layer> exact;
  for (recorded_layer const& layer : recorded->layers) {
    bar.update("exact attention", done);
    exact.push_back(exact_attention(layer, settings));
    done += 1.0;
  }
  for (std::string const& name : *names) {
    bar.update(name, done);
    auto const advance = [&] { bar.update(name, done += 1.0); };
    auto r = parameters && parameters->scheme == name
                 ? evaluate_calibrated(*parameters, *recorded, exact, settings, advance)
                 : evaluate(name, *recorded, exact, settings, advance);
    if (!r) {
      bar.finish();
      return fail(r.error);
    }
    report.results.push_back(std::move(*r));
  }
  bar.finish();
  constexpr std::size_t most_pictures = 4;
  for (std::size_t i = 0; i < recorded->layers.size() && i < most_pictures; ++i) {
    report.pictures.push_back(picture_of(recorded->layers[i], report.results));
  }
  if (!a.html.empty()) {
    if (int const code = write_file(a.html, html_report(report)); code != 0) return code;
  }
  fmt::print("{}", a.json ? json_report(report) : text_report(report));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Quantizes a recorded KV cache with every scheme asked for, runs decode attention for the "
               "recorded queries on the "
               "packed bytes, and prints measured bits, errors and traced outlier tokens. Without --input it "
               "runs on the "
               "recording embedded in the program.",
               "kvcrumb-compare"};
  arguments a;
  app.add_option("--input", a.input, "file with q, k, v of one or more layers (.safetensors or .npz)");
  app.add_option("--sample", a.sample,
                 "embedded recording: sample (q, k, v) or sample_gpt2 (k, v; outlier tokens)")
      ->capture_default_str();
  auto* const schemes =
      app.add_option("--schemes", a.schemes,
                     "names separated by commas, or all; kvquant2 and kvquant4 by name only")
          ->capture_default_str();
  app.add_option("--layers", a.layers, "numbers separated by commas; default: all in the file");
  app.add_option("--group", a.group,
                 "tokens per key group of kivi and ott: 16, 32, 64 or 128; default: by length")
      ->check(CLI::IsMember({16, 32, 64, 128}));
  auto* const window =
      app.add_option("--window", a.window,
                     "newest tokens kept exact by kivi and ott; default: 32, none below 128 tokens")
          ->check(CLI::Range(0, 65536));
  app.add_option("--queries", a.queries, "recorded queries per head to ask, the last ones")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--pool", a.pool, "outlier tokens that ott2 keeps per kv head")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  auto* const first_traced =
      app.add_option("--trace-from", a.first_traced, "first layer in which ott2 traces outlier tokens")
          ->check(CLI::Range(0, 1 << 20))
          ->capture_default_str();
  app.add_flag("--json", a.json, "print JSON instead of a table");
  auto* const html = app.add_option("--html", a.html, "also write a report with pictures to this file");
  auto* const tradeoff = app.add_flag(
      "--tradeoff", a.tradeoff,
      "instead: equal bytes, more tokens or more bits. Each scheme (fp16, q8_0, qserve4, turboquant3, "
      "turboquant2, kivi2) holds as many tokens as fit; half of --queries chooses them, the other half "
      "judges");
  app.add_option("--budgets", a.budgets,
                 "budgets of --tradeoff: the bytes of so many fp16 tokens, separated by commas; default: 32, "
                 "64, 128, 256")
      ->needs(tradeoff);
  auto* const calibrate_only =
      app.add_option("--calibrate", a.calibrate,
                     "instead: calibrate kvquant2, kvquant3 or kvquant4 on the input and write --output");
  app.add_option("--output", a.output, "the file that --calibrate writes")->needs(calibrate_only);
  auto* const parameters =
      app.add_option("--parameters", a.parameters,
                     "a file that --calibrate wrote: its scheme uses it and does not calibrate on the input");
  for (CLI::Option* const mode : {tradeoff, calibrate_only}) {
    for (CLI::Option* const other : {html, parameters, tradeoff, calibrate_only}) {
      if (other != mode) mode->excludes(other);
    }
  }
  auto* const risk = app.add_flag(
      "--risk", a.risk,
      "instead: outlier tokens and channels of each layer, predicted errors of schemes, and what to do "
      "(docs/risk.md); with --html also as a page");
  for (CLI::Option* const other : {parameters, tradeoff, calibrate_only, schemes, window, first_traced})
    risk->excludes(other);
  app.add_flag("--list", a.list, "list the schemes and stop");
  app.set_version_flag("--version", fmt::format("kvcrumb {}.{}.{}", KVCRUMB_VERSION_MAJOR,
                                                KVCRUMB_VERSION_MINOR, KVCRUMB_VERSION_PATCH));
  CLI11_PARSE(app, argc, argv);
  std::string command = "kvcrumb-compare";
  for (int i = 1; i < argc; ++i)
    command += fmt::format(" {}", argv[i]);
  return run(a, command);
}
