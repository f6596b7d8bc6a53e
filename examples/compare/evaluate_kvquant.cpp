// SPDX-License-Identifier: Apache-2.0
#include "evaluate_scheme.hpp"
#include "kvquant_layer.hpp"

namespace kvcrumb_compare {

namespace {

//! Calibrated on the recorded layer itself.
template <int Bits>
result<scheme_result> run(std::string_view name, recorded_layers const& recorded,
                          std::span<exact_layer const> exact, evaluation_settings const& settings,
                          std::function<void()> const& advance) {
  using namespace kvcrumb;
  kvquant_calibration<Bits> c;
  auto const make = [&](recorded_layer const& layer) {
    return calibrate_layer(layer, c) == status::ok ? schemes::kvquant_as_given(c)
                                                   : schemes::kvquant_as_given_type<Bits>{};
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
