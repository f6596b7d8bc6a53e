// SPDX-License-Identifier: Apache-2.0
//! @file KVQuant, keys given after RoPE, calibrated on the recording without its first token.
#include <kvcrumb/schemes/kvquant.hpp>

#include "kvquant_layer.hpp"
#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_kvquant(std::string_view name, layer_request const& r) {
  auto c = std::make_shared<kvcrumb::kvquant_calibration<3>>();
  if (kvcrumb::status const s = kvcrumb_compare::calibrate_layer(*r.calibration, *c);
      s != kvcrumb::status::ok)
    return failure{fmt::format("{}, layer {}: cannot be calibrated: {}", name, r.layer, to_string(s))};
  return make_layer(name, with_window(kvcrumb::schemes::kvquant_as_given(*c), r), r, c);
}

}  // namespace kvcrumb_lm
