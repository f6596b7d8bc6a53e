// SPDX-License-Identifier: Apache-2.0
//! @file TurboQuant; turboquant_prod with a Gaussian projection from seed 1.
#include <kvcrumb/schemes/turboquant.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_turboquant(std::string_view name, layer_request const& r) {
  using namespace kvcrumb;
  if (name == "turboquant2") return make_layer(name, with_window(schemes::turboquant<2>(), r), r);
  if (name == "turboquant3") return make_layer(name, with_window(schemes::turboquant<3>(), r), r);
  if (name == "turboquant4") return make_layer(name, with_window(schemes::turboquant<4>(), r), r);
  struct memory_type {
    std::vector<float> values;
    sketch_projection projection;
  };
  auto memory = std::make_shared<memory_type>();
  memory->values.assign(static_cast<std::size_t>(r.head_dim * r.head_dim), 0.0f);
  if (status const s = fill_projection(projection_kind::gaussian, 1, r.head_dim, r.head_dim, memory->values,
                                       memory->projection);
      s != status::ok)
    return failure{fmt::format("{}: {} (head_dim {})", name, to_string(s), r.head_dim)};
  return make_layer(name, with_window(schemes::turboquant_prod<3>(memory->projection), r), r, memory);
}

}  // namespace kvcrumb_lm
