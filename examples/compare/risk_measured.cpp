// SPDX-License-Identifier: Apache-2.0
//! @file measured_risk: see risk_measured.hpp.
#include "risk_measured.hpp"

#include "evaluate.hpp"
#include "progress.hpp"

namespace kvcrumb_compare {

result<risk_report> measured_risk(std::string_view input, recorded_layers const& recorded,
                                  risk_settings const& settings) {
  std::vector<recorded_layers> single;  // a measurement runs on one layer
  std::vector<std::vector<exact_layer>> exact;
  for (recorded_layer const& layer : recorded.layers) {
    if (!layer.has_queries() || layer.value_dim != layer.head_dim) break;
    single.emplace_back().layers = {layer};
    exact.push_back({exact_attention(layer, settings.caches)});
  }
  auto const measure = [&](std::string_view scheme, std::size_t i) -> result<double> {
    auto const r = evaluate(scheme, single[i], exact[i], settings.caches, [] {});
    if (!r) return failure{r.error};
    return r->output_rel_l2_mean.value_or(0.0);
  };
  progress_bar bar(static_cast<double>(decodable_schemes().size() * recorded.layers.size()));
  double done = 0.0;
  auto report = assess_risk(input, recorded, settings, measure,
                            [&](std::string_view scheme) { bar.update(scheme, done += 1.0); });
  bar.finish();
  return report;
}

}  // namespace kvcrumb_compare
