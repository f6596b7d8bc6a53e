// SPDX-License-Identifier: Apache-2.0
//! @file risk: gathers the figures of a risk report; see risk.hpp.
#include "risk.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

namespace {

constexpr std::int64_t fewest_tokens = 16;

//! |k' - k| over the rows that `reference` encodes.
double key_error(recorded_layer const& layer, decoded_layer const& decoded, decoded_layer const& reference) {
  double sum = 0.0;
  for (std::size_t i = 0; i < layer.k.size(); ++i) {
    if (reference.exact[i / static_cast<std::size_t>(layer.head_dim)] != 0) continue;
    double const e = static_cast<double>(decoded.k[i]) - static_cast<double>(layer.k[i]);
    sum += e * e;
  }
  return std::sqrt(sum);
}

double ratio(double without, double with) { return with > 0.0 ? without / with : 1.0; }

//! What the advice compares, kept while the schemes of a layer are decoded.
struct compared_schemes {
  std::optional<decoded_layer> kivi2, kivi4, ott2, qserve4, saw_int4, centred;

  void keep(std::string_view name, decoded_layer const& d) {
    if (name == "kivi2") kivi2 = d;
    if (name == "kivi4") kivi4 = d;
    if (name == "ott2") ott2 = d;
    if (name == "qserve4") qserve4 = d;
    if (name == "saw_int4") saw_int4 = d;
    if (name == "qserve4_centred") centred = d;
  }
};

void fill_gains(recorded_layer const& layer, compared_schemes const& c, layer_advice& a) {
  auto const gain = [&](std::optional<decoded_layer> const& without,
                        std::optional<decoded_layer> const& with) -> std::optional<double> {
    if (!without || !with) return std::nullopt;
    return ratio(key_error(layer, *without, *with), key_error(layer, *with, *with));
  };
  a.tracing_gain = gain(c.kivi2, c.ott2);
  a.centring_gain = gain(c.qserve4, c.centred);
  a.channel_gain = gain(c.qserve4, c.kivi4);
  a.rotation_gain = gain(c.qserve4, c.saw_int4);
}

void add(prediction& sum, prediction const& p, double weight) {
  sum.output += weight * p.output;
  sum.key_part += weight * p.key_part;
  sum.value_part += weight * p.value_part;
  sum.divergence += weight * p.divergence;
}

std::vector<scheme_risk> means_of(std::vector<layer_risk> const& layers) {
  std::vector<scheme_risk> means(layers.front().schemes.size());
  double const weight = 1.0 / static_cast<double>(layers.size());
  for (layer_risk const& layer : layers) {
    for (std::size_t i = 0; i < means.size(); ++i) {
      scheme_risk const& s = layer.schemes[i];
      means[i].scheme = s.scheme;
      means[i].tile_bits = s.tile_bits;
      means[i].bits_per_value += weight * s.bits_per_value;
      add(means[i].predicted, s.predicted, weight);
      if (s.stand_in) {
        if (!means[i].stand_in) means[i].stand_in.emplace();
        add(*means[i].stand_in, *s.stand_in, weight);
      }
      if (s.measured) means[i].measured = means[i].measured.value_or(0.0) + weight * *s.measured;
    }
  }
  return means;
}

template <class Error>
rank_check check_ranks(risk_report const& report, Error error) {
  rank_check check;
  auto const correlate = [&](std::vector<scheme_risk> const& schemes) {
    std::vector<double> a, b;
    for (scheme_risk const& s : schemes) {
      a.push_back(error(s));
      b.push_back(*s.measured);
    }
    return rank_correlation(a, b);
  };
  for (layer_risk const& layer : report.layers)
    check.of_layers.push_back(correlate(layer.schemes));
  check.of_means = correlate(report.means);
  for (std::size_t i = 0; i < report.means.size(); ++i) {
    std::vector<double> a, b;
    for (layer_risk const& layer : report.layers) {
      a.push_back(error(layer.schemes[i]));
      b.push_back(*layer.schemes[i].measured);
    }
    check.across_layers += rank_correlation(a, b) / static_cast<double>(report.means.size());
  }
  return check;
}

bool only_zeros(std::vector<float> const& rows) {
  return std::all_of(rows.begin(), rows.end(), [](float const x) { return x == 0.0f; });
}

std::optional<failure> refusal(recorded_layers const& recorded, int group) {
  if (recorded.layers.empty()) return failure{"there are no layers"};
  if (!with_group(group, [](auto) {})) return no_such_group("risk", group);
  std::int64_t const fewest = std::max<std::int64_t>(fewest_tokens, group);
  for (recorded_layer const& layer : recorded.layers) {
    if (layer.value_dim != layer.head_dim) {
      return failure{fmt::format("layer {}: keys have {} channels and values {}; they must be equal",
                                 layer.number, layer.head_dim, layer.value_dim)};
    }
    if (layer.tokens < fewest) {
      return failure{fmt::format("layer {}: {} tokens; a risk report with groups of {} needs at least {}",
                                 layer.number, layer.tokens, group, fewest)};
    }
    if (only_zeros(layer.k) || only_zeros(layer.v)) {
      return failure{
          fmt::format("layer {}: {} are all zero", layer.number, only_zeros(layer.k) ? "keys" : "values")};
    }
  }
  return std::nullopt;
}

//! The schemes that can take the shape of a layer; the others go into `left_out`.
std::vector<std::string_view> fitting_schemes(recorded_layer const& layer, evaluation_settings const& caches,
                                              std::vector<std::string>& left_out) {
  std::vector<std::string_view> names;
  for (std::string_view const name : decodable_schemes()) {
    auto const decoded = decode_layer(name, layer, caches);
    if (decoded) {
      names.push_back(name);
    } else {
      left_out.push_back(decoded.error);
    }
  }
  return names;
}

//! Everything about one layer but the advice.
result<layer_risk> assess_layer(recorded_layer const& layer, std::size_t index, risk_settings const& settings,
                                std::span<std::string_view const> names, measure_function const& measure,
                                std::function<void(std::string_view)> const& advance) {
  layer_risk out;
  out.number = layer.number;
  out.statistics = statistics_of(layer);
  query_probe const stand_in = probe_stand_in(layer, settings.probes, risk_rule::stand_in_spread);
  std::optional<query_probe> asked;
  if (layer.has_queries()) asked = probe_recorded(layer, settings.probes, settings.caches.max_queries);
  compared_schemes compared;
  for (std::string_view const name : names) {
    auto const decoded = decode_layer(name, layer, settings.caches);
    if (!decoded) return failure{decoded.error};
    compared.keep(name, *decoded);
    scheme_risk s;
    s.scheme = name;
    s.bits_per_value = decoded->bits_per_value;
    s.tile_bits = decoded->tile_bits;
    s.predicted = predict(layer, asked ? *asked : stand_in, *decoded);
    if (asked) s.stand_in = predict(layer, stand_in, *decoded);
    if (asked && measure) {
      auto const measured = measure(name, index);
      if (!measured) return failure{measured.error};
      s.measured = *measured;
    }
    out.schemes.push_back(std::move(s));
    advance(name);
  }
  if (auto const centred = decode_layer("qserve4_centred", layer, settings.caches))
    compared.keep("qserve4_centred", *centred);
  fill_gains(layer, compared, out.advice);
  return out;
}

}  // namespace

std::string_view name_of(advised a) noexcept {
  switch (a) {
    case advised::yes: return "yes";
    case advised::partly: return "partly";
    case advised::no: return "no";
    case advised::unknown: break;
  }
  return "unknown";
}

risk_settings risk_settings_of(evaluation_settings const& caches) {
  risk_settings s;
  s.caches = caches;
  s.caches.window = 0;
  s.caches.first_traced = 0;
  return s;
}

result<risk_report> assess_risk(std::string_view input, recorded_layers const& recorded,
                                risk_settings const& settings, measure_function const& measure,
                                std::function<void(std::string_view)> const& advance) {
  if (auto const f = refusal(recorded, settings.caches.group)) return *f;
  recorded_layer const& first = recorded.layers.front();
  risk_report report;
  report.input = input;
  report.tokens = first.tokens;
  report.head_dim = first.head_dim;
  report.kv_heads = first.kv_heads;
  report.query_heads = first.query_heads;
  report.recorded_queries = first.has_queries();
  report.probes = settings.probes;
  if (report.recorded_queries)
    report.probes = std::min<std::int64_t>({report.probes, first.queries, settings.caches.max_queries});
  report.caches = settings.caches;
  auto const names = fitting_schemes(first, settings.caches, report.left_out);
  for (std::size_t i = 0; i < recorded.layers.size(); ++i) {
    auto layer = assess_layer(recorded.layers[i], i, settings, names, measure, advance);
    if (!layer) return failure{layer.error};
    report.layers.push_back(std::move(*layer));
  }
  report.means = means_of(report.layers);
  if (!report.means.empty() && report.means.front().measured) {
    report.predicted = check_ranks(report, [](scheme_risk const& s) { return s.predicted.output; });
    report.stand_in = check_ranks(report, [](scheme_risk const& s) { return s.stand_in->output; });
  }
  give_advice(report);
  return report;
}

}  // namespace kvcrumb_compare
