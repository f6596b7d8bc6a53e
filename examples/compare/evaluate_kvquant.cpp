// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/kvquant.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

//! Keys as they were recorded (usually after RoPE), calibrated on the recorded layer itself without its first
//! token; 2 bits with Q-Norm.
template <int Bits>
result<scheme_result> run(std::string_view name, recorded_layers const& recorded,
                          std::span<exact_layer const> exact, evaluation_settings const& settings,
                          std::function<void()> const& advance) {
  using namespace kvcrumb;
  kvquant_calibration<Bits> c;
  auto const make = [&](recorded_layer const& layer) {
    int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
    std::int64_t const sinks = layer.tokens > 1 ? 1 : 0;
    auto const behind_sinks = [&](std::vector<float> const& rows) -> rows_view<float const> {
      return {rows.data() + sinks * width, layer.tokens * width, width};
    };
    status const s = calibrate_kvquant(behind_sinks(layer.k), behind_sinks(layer.v), heads,
                                       layer.tokens - sinks, width, {.normalise = Bits == 2}, c);
    return s == status::ok ? schemes::kvquant_as_given(c) : schemes::kvquant_as_given_type<Bits>{};
  };
  return evaluate_scheme(name, make, recorded, exact, settings, advance);
}

}  // namespace

result<scheme_result> evaluate_kvquant(std::string_view name, recorded_layers const& recorded,
                                       std::span<exact_layer const> exact,
                                       evaluation_settings const& settings,
                                       std::function<void()> const& advance) {
  if (name == "kvquant2") return run<2>(name, recorded, exact, settings, advance);
  if (name == "kvquant4") return run<4>(name, recorded, exact, settings, advance);
  return run<3>(name, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
