// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/wkvquant.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

//! Calibrated on the recorded layer itself; groups of 128 channels (a head, where it is narrower).
result<scheme_result> evaluate_wkvquant(std::string_view name, recorded_layers const& recorded,
                                        std::span<exact_layer const> exact,
                                        evaluation_settings const& settings,
                                        std::function<void()> const& advance) {
  using namespace kvcrumb;
  wkvquant_calibration c;
  auto const make = [&](recorded_layer const& layer) {
    int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
    status const s =
        calibrate_wkvquant(hnd_rows(layer.k.data(), layer.tokens, width),
                           hnd_rows(layer.v.data(), layer.tokens, width), heads, layer.tokens, width, c);
    if (s != status::ok) c = {};  // supports() then refuses: no channel is calibrated
    return schemes::wkvquant(c);
  };
  return evaluate_scheme(name, make, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
