// SPDX-License-Identifier: Apache-2.0
//! @file risk_reports: what the tests of risk reports share.
#pragma once

#include "risk.hpp"
#include "sample.hpp"
#include "support/catch.hpp"

namespace kvcrumb_compare {

//! One of the recordings inside the program.
inline recorded_layers sample(std::string_view name) {
  auto loaded = load_tensor_bytes(find_sample(name)->bytes, name);
  REQUIRE(loaded);
  return *loaded;
}

//! Groups of 16 tokens for short sequences, of 128 for long ones.
inline risk_settings settings_of(std::int64_t tokens) {
  evaluation_settings caches;
  caches.group = tokens >= 512 ? 128 : tokens >= 128 ? 32 : 16;
  caches.tile_tokens = std::max(32, caches.group);
  return risk_settings_of(caches);
}

//! The report of a recording whose name would steer a terminal and open an HTML element.
inline risk_report assess(recorded_layers const& recorded, measure_function const& measure = {}) {
  auto const r = assess_risk("in\x1bput <b>", recorded, settings_of(recorded.layers.front().tokens), measure,
                             [](std::string_view) {});
  INFO(r.error);
  REQUIRE(r);
  return *r;
}

//! Numbers of the layers with this answer.
inline std::vector<int> layers_with(risk_report const& r, advised layer_advice::*what, advised answer) {
  std::vector<int> numbers;
  for (layer_risk const& layer : r.layers) {
    if (layer.advice.*what == answer) numbers.push_back(layer.number);
  }
  return numbers;
}

}  // namespace kvcrumb_compare
