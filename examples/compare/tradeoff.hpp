// SPDX-License-Identifier: Apache-2.0
//! @file tradeoff: how many tokens in how many bits are worth the same bytes (quantized pruning, arXiv
//! 2412.12706).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "result.hpp"
#include "tensor_file.hpp"

namespace kvcrumb_compare {

struct tradeoff_settings {
  std::vector<std::int64_t>
      budgets;           //!< in tokens of fp16; empty: those of 32, 64, 128, 256 below the prompt
  int max_queries = 64;  //!< the last so many recorded queries: the first half observes, the other is judged
  int recent = 8;        //!< newest tokens of the prompt: always held, and exact in every scheme
  int group = 0;         //!< tokens per key group of kivi2: 16, 32, 64 or 128; 0: by the length of the prompt
};

//! One scheme within one budget. Tokens and bytes are those of one layer; all have the same.
struct tradeoff_point {
  std::int64_t budget = 0;        //!< bytes of keys and values of so many fp16 tokens
  std::int64_t budget_bytes = 0;  //!< a layer
  std::int64_t tokens = 0;        //!< held, per kv head
  std::int64_t bytes = 0;         //!< measured, positions included
  double bits_per_value = 0.0;    //!< of the tokens held
  double output_rel_l2_mean = 0.0;
};

struct tradeoff_curve {
  std::string scheme;
  std::vector<tradeoff_point> points;  //!< by growing budget
};

struct tradeoff_result {
  std::int64_t prompt = 0;    //!< tokens that the caches choose from
  std::int64_t observed = 0;  //!< queries per head that tell the importance
  std::int64_t judged = 0;    //!< queries per head whose output is compared
  int recent = 0;
  int group = 0;
  std::vector<std::int64_t> budgets;
  std::vector<tradeoff_curve> curves;
};

//! The schemes that have a curve, with 16, 8, 4, 3, 2 and 2 bits.
std::span<std::string_view const> tradeoff_schemes();

//! Measures the curves. The prompt is every token up to the first judged query. Each scheme holds as many of
//! its tokens as fit into the budget (pruned_cache): the newest, then the most important to the observing
//! queries (attention_importance: SnapKV), each kv head its own. Quantized tokens come in whole tiles; rows
//! that do not fill one stay exact, so that no byte is padding. The error is that of the attention output of
//! the judged queries over the prompt: relative L2 against exact attention over all of its tokens, mean over
//! queries, heads and layers.
//! Refused: no queries, fewer than two, or queries out of order; a prompt too short for the budgets; a budget
//! that does not hold the recent tokens and one more; an unknown scheme; a shape that a scheme cannot take.
//! `advance` is called after each point of a layer.
result<tradeoff_result> measure_tradeoff(recorded_layers const& recorded,
                                         std::span<std::string const> schemes,
                                         tradeoff_settings const& settings,
                                         std::function<void()> const& advance);

//! A table: schemes down, budgets across, tokens held x bits per value and error in the cells.
std::string tradeoff_text(std::string_view input, tradeoff_result const& r);

//! Top level: input prompt observed judged recent group curves; a curve: scheme points; a point: budget
//! budget_bytes tokens bytes bits_per_value output_rel_l2_mean (null if not finite).
std::string tradeoff_json(std::string_view input, tradeoff_result const& r);

}  // namespace kvcrumb_compare
