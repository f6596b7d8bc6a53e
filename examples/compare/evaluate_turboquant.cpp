// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/turboquant.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

//! Names: turboquant2, turboquant3, turboquant4, and turboquant_prod (3 bits, Gaussian projection from seed
//! 1).
result<scheme_result> evaluate_turboquant(std::string_view name, recorded_layers const& recorded,
                                          std::span<exact_layer const> exact,
                                          evaluation_settings const& settings,
                                          std::function<void()> const& advance) {
  using namespace kvcrumb;
  auto const with = [&](auto const& scheme) {
    return evaluate_scheme(
        name, [&](int /*layer*/) { return scheme; }, recorded, exact, settings, advance);
  };
  if (name == "turboquant2") return with(schemes::turboquant<2>());
  if (name == "turboquant3") return with(schemes::turboquant<3>());
  if (name == "turboquant4") return with(schemes::turboquant<4>());
  if (name != "turboquant_prod") return failure{fmt::format("no scheme is named '{}'", name)};

  std::vector<float> memory;
  sketch_projection projection;  // null where head_dim is beyond its limits: the cache then refuses it
  auto const make = [&](recorded_layer const& layer) {
    if (projection.head_dim != layer.head_dim) {
      int const width = static_cast<int>(layer.head_dim);
      memory.assign(static_cast<std::size_t>(layer.head_dim * layer.head_dim), 0.0f);
      projection = {};
      if (fill_projection(projection_kind::gaussian, 1, width, width, memory, projection) != status::ok)
        projection = {};
    }
    return schemes::turboquant_prod<3>(projection);
  };
  return evaluate_scheme(name, make, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
