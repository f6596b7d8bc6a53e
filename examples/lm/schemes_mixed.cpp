// SPDX-License-Identifier: Apache-2.0
//! @file Caches with other bits in other layers, in groups of 32 as published.
#include <kvcrumb/schemes/layer_map.hpp>

#include "choose_bits.hpp"
#include "layer_of.hpp"

namespace kvcrumb_lm {

using map_type = std::vector<kvcrumb::layer_bits>;

result<std::shared_ptr<void const>> plan_kvtuner(layer_request const& shape,
                                                 std::span<recorded_layer const> calibration) {
  auto map = kvcrumb_compare::choose_kvtuner_bits(
      calibration, {.group = 32, .window = shape.window, .tile_tokens = shape.tile_tokens()});
  if (!map) return failure{map.error};
  return std::shared_ptr<void const>(std::make_shared<map_type>(std::move(*map)));
}

//! asymkv: 2-bit keys in the first half of the layers, everything else 1 bit. kvtuner: the planned map.
result<std::unique_ptr<kv_layer>> make_mixed(std::string_view name, layer_request const& r) {
  kvcrumb::layer_bits const bits =
      r.plan == nullptr ? kvcrumb::asymkv_bits(r.layer, (r.layers + 1) / 2, 0)
                        : (*static_cast<map_type const*>(r.plan.get()))[static_cast<std::size_t>(r.layer)];
  result<std::unique_ptr<kv_layer>> made = failure{fmt::format("{}: bits that are not compiled in", name)};
  auto const run = [&](auto scheme) {
    scheme.flush = flush_of(r);
    made = make_layer(name, scheme, r);
    return kvcrumb::status::ok;
  };
  bool const one = bits.key == 1 || bits.value == 1;
  [[maybe_unused]] kvcrumb::status const s =
      one ? kvcrumb::with_layer_bits<32, 1, 2>(bits, run) : kvcrumb::with_layer_bits<32, 2, 4>(bits, run);
  return made;
}

}  // namespace kvcrumb_lm
