// SPDX-License-Identifier: Apache-2.0
//! @file Caches with other bits in other layers.
#include <kvcrumb/schemes/layer_map.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

//! asymkv: 2-bit keys in the first half of the layers, everything else 1 bit; groups of 32 as published.
result<std::unique_ptr<kv_layer>> make_mixed(std::string_view name, layer_request const& r) {
  kvcrumb::layer_bits const bits = kvcrumb::asymkv_bits(r.layer, (r.layers + 1) / 2, 0);
  auto const run = [&](auto scheme) {
    scheme.flush = flush_of(r);
    return make_layer(name, scheme, r);
  };
  return bits.key == 2 ? run(kvcrumb::schemes::mixed_kivi<2, 1, 32>())
                       : run(kvcrumb::schemes::mixed_kivi<1, 1, 32>());
}

}  // namespace kvcrumb_lm
