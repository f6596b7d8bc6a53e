// SPDX-License-Identifier: Apache-2.0
//! @file risk_advice: the rules of a risk report; docs/risk.md states them.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "picture.hpp"
#include "risk.hpp"

namespace kvcrumb_compare {

namespace {

using namespace risk_rule;

double largest_channel(layer_statistics const& s) {
  double largest = 0.0;
  for (head_statistics const& h : s.heads)
    largest = std::max(largest, h.channels.largest);
  return largest;
}

void judge_layer(layer_risk& layer) {
  layer_advice& a = layer.advice;
  bool const in_a_head = std::any_of(layer.statistics.heads.begin(), layer.statistics.heads.end(),
                                     [](head_statistics const& h) { return !h.tokens.outliers.empty(); });
  bool const in_the_layer = !layer.statistics.tokens.outliers.empty();
  if (a.tracing_gain) {
    bool const worth = *a.tracing_gain >= tracing_gain && (in_a_head || in_the_layer);
    a.tracing = !worth ? advised::no : in_the_layer ? advised::yes : advised::partly;
  }
  if (a.centring_gain) a.centring = *a.centring_gain >= centring_gain ? advised::yes : advised::no;
  if (!a.channel_gain) return;
  bool const strong = largest_channel(layer.statistics) >= strong_channel;
  a.per_channel = *a.channel_gain >= channel_needed && strong ? advised::yes
                  : *a.channel_gain >= channel_gain           ? advised::partly
                                                              : advised::no;
}

scheme_risk const* find(std::vector<scheme_risk> const& schemes, std::string_view name) {
  auto const at = std::find_if(schemes.begin(), schemes.end(), [&](auto& s) { return s.scheme == name; });
  return at == schemes.end() ? nullptr : &*at;
}

//! By the 2-bit error; needs recorded queries, because stand-ins do not rank layers.
void judge_bits(risk_report& report) {
  std::vector<double> errors;
  for (layer_risk const& layer : report.layers) {
    if (scheme_risk const* s = find(layer.schemes, "kivi2")) errors.push_back(s->predicted.output);
  }
  if (!report.recorded_queries || errors.size() != report.layers.size() || errors.size() < 2) return;
  double const usual = median(errors);
  for (std::size_t i = 0; i < errors.size(); ++i) {
    layer_risk& layer = report.layers[i];
    layer.advice.more_bits = errors[i] >= more_bits * usual && usual > 0.0;
    if (!layer.advice.more_bits) continue;
    prediction const& p = find(layer.schemes, "kivi2")->predicted;
    layer.advice.more_bits_for = p.key_part >= one_sided * p.value_part   ? "keys"
                                 : p.value_part >= one_sided * p.key_part ? "values"
                                                                          : "keys and values";
  }
}

void choose_schemes(risk_report& report) {
  auto const within = [&](double limit) {
    scheme_risk const* best = nullptr;
    for (scheme_risk const& s : report.means) {
      if (s.predicted.output > limit) continue;
      if (best == nullptr || s.tile_bits < best->tile_bits ||
          (s.tile_bits == best->tile_bits && s.predicted.output < best->predicted.output)) {
        best = &s;
      }
    }
    return best;
  };
  report.limits.clear();
  for (double const limit : error_limits) {
    scheme_risk const* s = within(limit);
    report.limits.push_back({limit, s == nullptr ? "" : s->scheme});
  }
  scheme_risk const* chosen = within(usual_limit);
  if (chosen == nullptr && !report.means.empty()) {
    chosen = &*std::min_element(report.means.begin(), report.means.end(),
                                [](auto& a, auto& b) { return a.predicted.output < b.predicted.output; });
  }
  report.recommended = chosen == nullptr ? "" : chosen->scheme;
}

template <class Test>
std::string layers_that(risk_report const& report, Test test) {
  std::vector<int> numbers;
  for (layer_risk const& layer : report.layers) {
    if (test(layer.advice)) numbers.push_back(layer.number);
  }
  if (numbers.empty()) return "";
  return fmt::format("layer{} {}", numbers.size() == 1 ? "" : "s", fmt::join(numbers, ", "));
}

std::string scheme_sentence(risk_report const& report) {
  scheme_risk const* s = find(report.means, report.recommended);
  if (s == nullptr) return "Scheme: none was predicted.";
  bool const within = s->predicted.output <= usual_limit;
  return fmt::format("Scheme: {}{}, {:.3f} bits a value in tiles, predicted output error {:.4f}.{}",
                     s->scheme, within ? "" : " has the least error", s->tile_bits, s->predicted.output,
                     within ? fmt::format(" No other within {:.2f} has fewer bits.", usual_limit)
                            : fmt::format(" None is within {:.2f}.", usual_limit));
}

std::string bits_sentence(risk_report const& report) {
  if (!report.recorded_queries)
    return "Layers at more bits: not told. Without recorded queries, predictions rank schemes, not layers.";
  if (report.layers.size() < 2) return "Layers at more bits: not told of a single layer.";
  std::vector<std::string> parts;
  for (layer_risk const& layer : report.layers) {
    if (layer.advice.more_bits)
      parts.push_back(fmt::format("{} ({})", layer.number, layer.advice.more_bits_for));
  }
  if (parts.empty()) return "Layers at more bits: none stands out.";
  return fmt::format("Layers at more bits: {}. At 2 bits their predicted output error is at least {} times "
                     "that of the median layer.",
                     fmt::join(parts, ", "), more_bits);
}

//! Whether a rule had nothing to compare in any layer.
bool unknown(risk_report const& report, advised layer_advice::*what) {
  return std::all_of(report.layers.begin(), report.layers.end(),
                     [&](layer_risk const& layer) { return layer.advice.*what == advised::unknown; });
}

constexpr char const* not_told = "not told; a scheme that the rule compares cannot take this shape.";

std::string tracing_sentence(risk_report const& report) {
  if (unknown(report, &layer_advice::tracing)) return fmt::format("Outlier-token tracing: {}", not_told);
  auto const yes = layers_that(report, [](auto& a) { return a.tracing == advised::yes; });
  auto const partly = layers_that(report, [](auto& a) { return a.tracing == advised::partly; });
  if (yes.empty() && partly.empty())
    return "Outlier-token tracing: will not help; no layer has a few tokens with keys far smaller than all "
           "others.";
  std::string text = "Outlier-token tracing:";
  if (!yes.empty()) text += fmt::format(" helps codes per channel in {}", yes);
  if (!partly.empty())
    text += fmt::format("{} in some heads of {}", yes.empty() ? " helps codes per channel" : ";", partly);
  return text + ".";
}

std::string centring_sentence(risk_report const& report) {
  if (unknown(report, &layer_advice::centring)) return fmt::format("Centring keys: {}", not_told);
  auto const yes = layers_that(report, [](auto& a) { return a.centring == advised::yes; });
  if (yes.empty()) return "Centring keys: will not help; the channel means are small.";
  return fmt::format("Centring keys: helps codes per token in {}. Codes per channel have a minimum of "
                     "their own and need none.",
                     yes);
}

std::string channel_sentence(risk_report const& report) {
  if (unknown(report, &layer_advice::per_channel))
    return fmt::format("Keys per channel or rotated: {}", not_told);
  auto const yes = layers_that(report, [](auto& a) { return a.per_channel == advised::yes; });
  auto const partly = layers_that(report, [](auto& a) { return a.per_channel == advised::partly; });
  if (yes.empty() && partly.empty()) return "Keys per channel or rotated: not needed.";
  std::string text = "Keys per channel or rotated:";
  if (!yes.empty()) text += fmt::format(" needed in {}", yes);
  if (!partly.empty()) text += fmt::format("{} better but not needed in {}", yes.empty() ? "" : ";", partly);
  double rest = 0.0;
  for (layer_risk const& layer : report.layers) {
    layer_advice const& a = layer.advice;
    if (a.per_channel >= advised::partly && a.rotation_gain)
      rest = std::max(rest, *a.channel_gain / *a.rotation_gain);
  }
  if (rest == 0.0) return text + ".";
  return text +
         fmt::format(". With rotated keys and codes per token the key error is still up to {:.1f} times "
                     "that per channel.",
                     rest);
}

}  // namespace

void give_advice(risk_report& report) {
  for (layer_risk& layer : report.layers)
    judge_layer(layer);
  judge_bits(report);
  choose_schemes(report);
  report.sentences = {scheme_sentence(report), bits_sentence(report), tracing_sentence(report),
                      channel_sentence(report), centring_sentence(report)};
  report.notes.clear();
  report.notes.push_back(
      report.recorded_queries
          ? fmt::format("Predictions ask {} recorded queries of each head.", report.probes)
          : fmt::format("The recording has no queries: predictions ask {} stand-ins of each head, "
                        "made of the keys. They order schemes; their size is a guess.",
                        report.probes));
  report.notes.push_back("No token is kept in full precision but outliers and the rest that fills no group, "
                         "so errors are those of codes; "
                         "a window makes them smaller. Bits in tiles are those of long sequences.");
  for (std::string const& reason : report.left_out)
    report.notes.push_back(fmt::format("Left out: {}", reason));
  if (report.caches.group < 128) {
    report.notes.push_back(fmt::format(
        "The recording is short: groups of {} tokens, so keys per channel have more bits and smaller "
        "errors than with the usual groups of 128.",
        report.caches.group));
  }
}

}  // namespace kvcrumb_compare
