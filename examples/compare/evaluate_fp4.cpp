// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/nvfp4.hpp>
#include <kvcrumb/schemes/saw_int4.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

//! "saw_int4", and "nvfp4" with the scales of the tensors taken from the recorded layer itself.
result<scheme_result> evaluate_fp4(std::string_view name, recorded_layers const& recorded,
                                   std::span<exact_layer const> exact, evaluation_settings const& settings,
                                   std::function<void()> const& advance) {
  if (name == "saw_int4") {
    return evaluate_scheme(
        name, [](int /*layer*/) { return kvcrumb::schemes::saw_int4(); }, recorded, exact, settings, advance);
  }
  auto const scale = [](std::vector<float> const& tensor) {
    float top = 0.0f;
    for (float const x : tensor)
      top = std::max(top, std::fabs(x));
    return kvcrumb::schemes::nvfp4_scale(top);
  };
  auto const make = [&](recorded_layer const& layer) {
    return kvcrumb::schemes::nvfp4(scale(layer.k), scale(layer.v));
  };
  return evaluate_scheme(name, make, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
