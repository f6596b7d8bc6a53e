// SPDX-License-Identifier: Apache-2.0
//! @file evaluation: a text read through the caches of several schemes, against the same text through fp16.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base_logits.hpp"
#include "forward.hpp"
#include "schemes.hpp"
#include "scores.hpp"
#include "tokenizer.hpp"

namespace kvcrumb_lm {

//! The tokens of each window, the one in front included. Every token but the last of a window predicts one.
using windows = std::vector<std::vector<int>>;

//! Cuts `tokens` into windows of `context` tokens, each with `first` (if any) in front of it. A rest that
//! fills no window is left out, unless it is all there is and predicts something.
windows cut_windows(std::span<int const> tokens, std::int64_t context, std::optional<int> first);

//! Identifies the numbers that `model` predicts over `w`.
base_key key_of(model const& m, windows const& w);

//! Called with a label and the share of the work that is done.
using progress_function = std::function<void(std::string_view, double)>;

//! Rows of all layers while the model reads `tokens` through an fp32 cache: what calibration and `dump` take.
//! In the order of kvcrumb-compare; before_rope, if not null, gets the keys before RoPE,
//! [layer][kv_heads][tokens][head_dim].
result<std::vector<recorded_layer>> record_rows(model const& m, std::span<int const> tokens, workers& threads,
                                                std::vector<float>* before_rope = nullptr);

//! The log-probabilities of every window through the fp16 cache.
result<base_logits> compute_base(model const& m, windows const& w, bool half, workers& threads,
                                 progress_function const& progress);

struct scheme_evaluation {
  scheme_request request;
  double bits_per_value = 0.0;      //!< everything that the caches hold at the end of the windows
  double mean_bits = 0.0;           //!< the same over all steps: mean of the bytes over mean of the values
  double cache_seconds = 0.0;       //!< append and attend, processor time of all windows
  std::vector<token_score> scores;  //!< window after window
  score_summary summary;
};

struct evaluation_settings {
  std::int64_t context = 1024;
  int chunk = 1;  //!< tokens that enter the cache before their queries attend to it
};

//! Reads every window through the caches of every scheme, `chunk` tokens at a time: their keys and values are
//! appended first, then their queries attend to what the cache holds, their own tokens included.
result<std::vector<scheme_evaluation>> evaluate(model const& m, windows const& w, base_logits const& base,
                                                std::span<scheme_request const> schemes,
                                                std::span<recorded_layer const> calibration,
                                                evaluation_settings const& settings, workers& threads,
                                                progress_function const& progress);

//! The heads and layers of a model with the defaults that fit a context.
layer_request shape_of(model const& m, std::int64_t context);

}  // namespace kvcrumb_lm
