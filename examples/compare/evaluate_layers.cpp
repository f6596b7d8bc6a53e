// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/layer_map.hpp>

#include "choose_bits.hpp"
#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

using kvcrumb::layer_bits;
using kvcrumb::status;

template <int Group>
status evaluate_bits(layer_bits bits, recorded_layer const& layer, exact_layer const& exact,
                     evaluation_settings const& settings, tally& t) {
  auto const run = [&](auto scheme) {
    scheme.flush = {settings.window, Group};
    return evaluate_layer(scheme, layer, exact, settings, t);
  };
  bool const one = bits.key == 1 || bits.value == 1;
  return one ? kvcrumb::with_layer_bits<Group, 1, 2>(bits, run)
             : kvcrumb::with_layer_bits<Group, 2, 4>(bits, run);
}

//! What a choice costs: the mean output error, or without queries the errors of keys and values.
double error_of(tally const& t) {
  if (t.output_errors.empty()) return t.keys.relative() + t.values_error.relative();
  double sum = 0.0;
  for (double const e : t.output_errors)
    sum += e;
  return sum / static_cast<double>(t.output_errors.size());
}

failure refused(std::string_view name, recorded_layer const& layer, status s, int group,
                evaluation_settings const& settings) {
  return {fmt::format("{}, layer {}: {} (head_dim {}, groups of {}, tiles of {} tokens)", name, layer.number,
                      to_string(s), layer.head_dim, group, settings.tile_tokens)};
}

template <int Group>
result<std::vector<layer_bits>> choose(std::span<recorded_layer const> layers,
                                       std::span<exact_layer const> exact,
                                       evaluation_settings const& settings) {
  constexpr double budget = 3.0;
  std::vector<std::vector<kvcrumb::layer_choice>> choices(layers.size());
  for (std::size_t i = 0; i < choices.size(); ++i) {
    for (layer_bits const b : {layer_bits{2, 2}, {4, 2}, {2, 4}, {4, 4}}) {
      tally t;
      if (status const s = evaluate_bits<Group>(b, layers[i], exact[i], settings, t); s != status::ok)
        return refused("kvtuner", layers[i], s, Group, settings);
      choices[i].push_back({b, error_of(t)});
    }
  }
  return kvcrumb::choose_layer_bits(choices, budget);
}

template <int Group>
result<scheme_result> evaluate_map(std::string_view name, recorded_layers const& recorded,
                                   std::span<exact_layer const> exact, evaluation_settings const& settings,
                                   std::function<void()> const& advance) {
  std::vector<layer_bits> bits;
  if (name == "asymkv") {
    int layers = 0;
    for (recorded_layer const& layer : recorded.layers)
      layers = std::max(layers, layer.number + 1);
    for (recorded_layer const& layer : recorded.layers)
      bits.push_back(kvcrumb::asymkv_bits(layer.number, (layers + 1) / 2, 0));
  } else {
    auto chosen = choose<Group>(recorded.layers, exact, settings);
    if (!chosen) return failure{chosen.error};
    bits = std::move(*chosen);
  }
  tally t;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (status const s = evaluate_bits<Group>(bits[i], recorded.layers[i], exact[i], settings, t);
        s != status::ok)
      return refused(name, recorded.layers[i], s, Group, settings);
    advance();
  }
  return summary(name, std::move(t));
}

}  // namespace

result<std::vector<layer_bits>> choose_kvtuner_bits(std::span<recorded_layer const> layers,
                                                    evaluation_settings const& settings) {
  std::vector<exact_layer> exact;
  for (recorded_layer const& layer : layers)
    exact.push_back(exact_attention(layer, settings));
  return settings.group >= 32 ? choose<32>(layers, exact, settings) : choose<16>(layers, exact, settings);
}

//! "asymkv": 2-bit keys in the first half of the layers, 1 bit elsewhere. "kvtuner": 2 or 4 bits for keys and
//! values of each layer, 3 on average, chosen by the errors on the input itself. Groups of 32, of 16 for
//! short inputs.
result<scheme_result> evaluate_layers(std::string_view name, recorded_layers const& recorded,
                                      std::span<exact_layer const> exact, evaluation_settings const& settings,
                                      std::function<void()> const& advance) {
  return settings.group >= 32 ? evaluate_map<32>(name, recorded, exact, settings, advance)
                              : evaluate_map<16>(name, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
