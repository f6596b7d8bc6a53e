// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/qjl.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

//! Twice as many signs as channels, as published for head_dim 128; one projection for all layers (seed 1).
template <int Bits, int Group>
result<scheme_result> evaluate_qjl_as(std::string_view name, recorded_layers const& recorded,
                                      std::span<exact_layer const> exact, evaluation_settings const& settings,
                                      std::function<void()> const& advance) {
  using namespace kvcrumb;
  std::vector<float> memory;
  sketch_projection projection;  // null where head_dim is beyond its limits: the cache then refuses it
  auto const make = [&](recorded_layer const& layer) {
    if (projection.head_dim != layer.head_dim) {
      memory.assign(static_cast<std::size_t>(Bits * layer.head_dim), 0.0f);
      projection = {};
      if (fill_projection(projection_kind::orthogonal, 1, Bits, static_cast<int>(layer.head_dim), memory,
                          projection) != status::ok)
        projection = {};
    }
    auto scheme = schemes::qjl<Bits, Group>(projection);
    scheme.flush = {settings.window, settings.group};
    return scheme;
  };
  return evaluate_scheme(name, make, recorded, exact, settings, advance);
}

}  // namespace

//! Outlier channels per 32 tokens, or 16 where settings.group is. 128 signs up to head_dim 64, 256 above it,
//! decided by the first layer.
result<scheme_result> evaluate_qjl(std::string_view name, recorded_layers const& recorded,
                                   std::span<exact_layer const> exact, evaluation_settings const& settings,
                                   std::function<void()> const& advance) {
  bool const narrow = !recorded.layers.empty() && recorded.layers.front().head_dim <= 64;
  bool const shorter = settings.group < 32;
  auto const run = narrow ? (shorter ? evaluate_qjl_as<128, 16> : evaluate_qjl_as<128, 32>)
                          : (shorter ? evaluate_qjl_as<256, 16> : evaluate_qjl_as<256, 32>);
  return run(name, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
