// SPDX-License-Identifier: Apache-2.0
//! @file kvquant_layer: KVQuant calibrated on one recorded layer.
#pragma once

#include <kvcrumb/schemes/kvquant.hpp>

#include "tensor_file.hpp"

namespace kvcrumb_compare {

//! Keys as they were recorded (usually after RoPE), without the first token; 2 bits with Q-Norm.
template <int Bits>
kvcrumb::status calibrate_layer(recorded_layer const& layer, kvcrumb::kvquant_calibration<Bits>& out) {
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  std::int64_t const sinks = layer.tokens > 1 ? 1 : 0;
  auto const behind_sinks = [&](std::vector<float> const& rows) -> kvcrumb::rows_view<float const> {
    return {rows.data() + sinks * width, layer.tokens * width, width};
  };
  return kvcrumb::calibrate_kvquant(behind_sinks(layer.k), behind_sinks(layer.v), heads, layer.tokens - sinks,
                                    width, {.normalise = Bits == 2}, out);
}

}  // namespace kvcrumb_compare
