// SPDX-License-Identifier: Apache-2.0
//! @file Two tracers in one argument.
#pragma once

#include "kvcrumb/trace/concept.hpp"

namespace kvcrumb::inline v0 {

//! Calls `first`, then `second`, for every hook each of them has.
template <tracer First, tracer Second>
struct tracer_pair {
  First& first;
  Second& second;

  void on_element(element_coordinate c, float x,
                  float x_hat) requires traces_elements<First> || traces_elements<Second> {
    if constexpr (traces_elements<First>) first.on_element(c, x, x_hat);
    if constexpr (traces_elements<Second>) second.on_element(c, x, x_hat);
  }
  void on_row(side which, int head, std::int64_t token, float const* row,
              int head_dim) requires traces_rows<First> || traces_rows<Second> {
    if constexpr (traces_rows<First>) first.on_row(which, head, token, row, head_dim);
    if constexpr (traces_rows<Second>) second.on_row(which, head, token, row, head_dim);
  }
  void on_score(score_coordinate c, float logit) requires traces_scores<First> || traces_scores<Second> {
    if constexpr (traces_scores<First>) first.on_score(c, logit);
    if constexpr (traces_scores<Second>) second.on_score(c, logit);
  }
};
// clang++ 14 deduces no aggregates by itself.
template <tracer First, tracer Second>
tracer_pair(First&, Second&) -> tracer_pair<First, Second>;

}  // namespace kvcrumb::inline v0
