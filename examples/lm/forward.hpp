// SPDX-License-Identifier: Apache-2.0
//! @file forward: the transformer over one step of any number of sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv_layer.hpp"
#include "weights.hpp"

namespace kvcrumb_lm {

//! A text that is being read: its caches, one for each layer. All have the same number of tokens.
struct sequence {
  std::vector<std::unique_ptr<kv_layer>> layers;
  double cache_seconds = 0.0;  //!< spent in append and attend

  std::int64_t tokens() const { return layers.empty() ? 0 : layers.front()->tokens(); }
  std::int64_t bytes() const;
};

//! The next tokens of a sequence.
struct step {
  sequence* of = nullptr;
  std::span<int const> tokens;
};

//! What a layer sees of one step: [count] rows of each head, strides in the views.
struct layer_rows {
  int layer = 0;
  std::size_t step = 0;  //!< which of the steps
  std::int64_t first = 0, count = 0;
  row_view queries, keys, keys_before_rope, values;
};
using row_observer = std::function<void(layer_rows const&)>;

//! Memory of `forward`, kept from call to call.
struct activations {
  std::vector<float> x, normed, qkv, before_rope, attended, projected, gate_up, gated, angles;
};

//! Runs the new tokens of all steps through all layers: in each layer a step's keys and values are appended
//! to its cache, and its queries then attend to what the cache holds. Products with the weights are done for
//! all steps together. On return a.x holds the rows [all tokens, step after step][hidden] after the last
//! norm. Gives an error text, empty if all is well: a token outside of the vocabulary, or what a cache
//! refused.
std::string forward(model const& m, std::span<step const> steps, activations& a, workers& threads,
                    row_observer const& observe = {});

//! Logits [count][vocabulary] of `count` rows of a.x.
void project_logits(model const& m, float const* x, std::int64_t count, float* logits, workers& threads);

}  // namespace kvcrumb_lm
