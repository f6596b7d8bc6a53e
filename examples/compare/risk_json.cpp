// SPDX-License-Identifier: Apache-2.0
//! @file risk_json: a risk report for programs; docs/risk.md lists the keys.
#include <cmath>

#include <nlohmann/json.hpp>

#include "risk.hpp"
#include "text.hpp"

namespace kvcrumb_compare {

namespace {

using json = nlohmann::ordered_json;

json null_or(std::optional<double> x) { return x && std::isfinite(*x) ? json(*x) : json(nullptr); }

json of(prediction const& p) {
  return {{"output", null_or(p.output)},
          {"key_part", null_or(p.key_part)},
          {"value_part", null_or(p.value_part)},
          {"divergence", null_or(p.divergence)}};
}

json of(token_statistics const& s) {
  json outliers = json::array();
  for (outlier_token const& t : s.outliers) {
    outliers.push_back(
        {{"position", t.position}, {"key_norm", null_or(t.key_norm)}, {"value_norm", null_or(t.value_norm)}});
  }
  return {{"smallest", null_or(s.smallest)}, {"smallest_at", s.smallest_at}, {"largest", null_or(s.largest)},
          {"largest_at", s.largest_at},      {"below_70", s.below_70},       {"below_50", s.below_50},
          {"below_30", s.below_30},          {"outliers", outliers}};
}

json of(head_statistics const& h) {
  return {{"tokens", of(h.tokens)},
          {"channels",
           {{"largest", null_or(h.channels.largest)},
            {"largest_at", h.channels.largest_at},
            {"largest_peak", null_or(h.channels.largest_peak)},
            {"above_five", h.channels.above_five}}},
          {"bias",
           {{"energy_share", null_or(h.bias.energy_share)},
            {"median_size", null_or(h.bias.median_size)},
            {"largest_size", null_or(h.bias.largest_size)}}},
          {"kv_norm_ratio", null_or(h.kv_norm_ratio)}};
}

json of(scheme_risk const& s) {
  return {{"scheme", s.scheme},
          {"bits_per_value", null_or(s.bits_per_value)},
          {"tile_bits", null_or(s.tile_bits)},
          {"predicted", of(s.predicted)},
          {"stand_in", s.stand_in ? of(*s.stand_in) : json(nullptr)},
          {"measured", null_or(s.measured)}};
}

json of(std::vector<scheme_risk> const& schemes) {
  json all = json::array();
  for (scheme_risk const& s : schemes)
    all.push_back(of(s));
  return all;
}

json of(layer_risk const& layer) {
  json heads = json::array();
  for (head_statistics const& h : layer.statistics.heads)
    heads.push_back(of(h));
  layer_advice const& a = layer.advice;
  return {{"layer", layer.number},
          {"tokens", of(layer.statistics.tokens)},
          {"heads", heads},
          {"schemes", of(layer.schemes)},
          {"tracing", {{"advised", name_of(a.tracing)}, {"gain", null_or(a.tracing_gain)}}},
          {"centring", {{"advised", name_of(a.centring)}, {"gain", null_or(a.centring_gain)}}},
          {"per_channel", {{"advised", name_of(a.per_channel)}, {"gain", null_or(a.channel_gain)}}},
          {"rotation_gain", null_or(a.rotation_gain)},
          {"more_bits", a.more_bits},
          {"more_bits_for", a.more_bits ? json(a.more_bits_for) : json(nullptr)}};
}

json of(std::optional<rank_check> const& c) {
  if (!c) return nullptr;
  return {{"of_means", null_or(c->of_means)},
          {"of_layers", c->of_layers},
          {"across_layers", c->of_layers.size() > 1 ? null_or(c->across_layers) : json(nullptr)}};
}

}  // namespace

std::string risk_json(risk_report const& report) {
  json root;
  root["input"] = printable(report.input, 4000);
  root["tokens"] = report.tokens;
  root["head_dim"] = report.head_dim;
  root["kv_heads"] = report.kv_heads;
  root["query_heads"] = report.query_heads;
  root["queries"] = report.recorded_queries ? "recorded" : "stand_in";
  root["probes"] = report.probes;
  root["group"] = report.caches.group;
  root["tile_tokens"] = report.caches.tile_tokens;
  root["pool"] = report.caches.pool;
  root["recommended"] = report.recommended.empty() ? json(nullptr) : json(report.recommended);
  root["limits"] = json::array();
  for (limit_advice const& l : report.limits)
    root["limits"].push_back(
        {{"limit", l.limit}, {"scheme", l.scheme.empty() ? json(nullptr) : json(l.scheme)}});
  root["advice"] = report.sentences;
  root["rank_correlation"] = {{"predicted", of(report.predicted)}, {"stand_in", of(report.stand_in)}};
  root["means"] = of(report.means);
  root["layers"] = json::array();
  for (layer_risk const& layer : report.layers)
    root["layers"].push_back(of(layer));
  root["notes"] = json::array();
  for (std::string const& note : report.notes)
    root["notes"].push_back(printable(note));
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace kvcrumb_compare
