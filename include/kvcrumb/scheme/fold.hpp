// SPDX-License-Identifier: Apache-2.0
//! @file Scores and weighted sums over a tile with the group parameters folded out of the inner loop.
#pragma once

#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/numeric/rows.hpp"

namespace kvcrumb::inline v0 {

//! A tile unpacked once for many queries: units[token][dim] and gain[group][owner], bias[group][owner], so
//! that x_hat = gain * unit + bias. Floats in the caller's memory. The folds are
//! - keys per channel: score[t] = sum_d (q[d] gain[d]) unit[t][d] + sum_d q[d] bias[d]
//! - keys per token: score[t] = sum_g (gain[t] sum_{d in g} q[d] unit[t][d] + bias[t] sum_{d in g} q[d])
//! - values per token: o[d] += sum_t (w[t] gain[t]) unit[t][d] + sum_t w[t] bias[t]
//! - values per channel: o[d] += gain[d] sum_t w[t] unit[t][d] + bias[d] sum_t w[t]
//! so no value is scaled or shifted by itself.
class loaded_tile {
 public:
  loaded_tile(section_spec const& s, float* work) noexcept : s_{s}, work_{work} {}

  //! Floats of working memory: units, gain, bias and one row of scratch.
  static std::int64_t floats(section_spec const& s) noexcept {
    return unit_count(s) + 2 * vector_count(s) +
           (s.shape.head_dim > s.shape.tile_tokens ? s.shape.head_dim : s.shape.tile_tokens);
  }
  float* units() const noexcept { return work_; }
  float* gain(int group) const noexcept {
    return work_ + unit_count(s_) + static_cast<std::int64_t>(group) * s_.owners();
  }
  float* bias(int group) const noexcept { return gain(group) + vector_count(s_); }

  //! scores[t] of all slots; `offset` is added to each.
  void score(float const* q, float offset, float* scores) const noexcept {
    int const width = s_.shape.head_dim, tokens = s_.shape.tile_tokens;
    float* folded = scratch();
    if (s_.per_channel) {
      for (int group = 0; group < s_.groups(); ++group) {
        float constant = offset;
        for (int d = 0; d < width; ++d) {
          folded[d] = q[d] * gain(group)[d];
          constant += q[d] * bias(group)[d];
        }
        int const end = (group + 1) * s_.group < tokens ? (group + 1) * s_.group : tokens;
        for (int t = group * s_.group; t < end; ++t)
          scores[t] = dot(folded, row(t), width) + constant;
      }
      return;
    }
    for (int t = 0; t < tokens; ++t)
      scores[t] = offset;
    for (int group = 0; group < s_.groups(); ++group) {
      int const begin = group * s_.group;
      int const n = width - begin < s_.group ? width - begin : s_.group;
      float sum = 0.0f;
      for (int d = begin; d < begin + n; ++d)
        sum += q[d];
      for (int t = 0; t < tokens; ++t) {
        scores[t] += gain(group)[t] * dot(q + begin, row(t) + begin, n) + bias(group)[t] * sum;
      }
    }
  }

  //! o[d] += sum_t weights[t] * x_hat[t][d] over all slots; slots with weight 0 are skipped, whatever they
  //! hold.
  void accumulate(float const* weights, float* o) const noexcept {
    int const width = s_.shape.head_dim, tokens = s_.shape.tile_tokens;
    float* sum = scratch();
    for (int group = 0; group < s_.groups(); ++group) {
      if (s_.per_channel) {
        int const end = (group + 1) * s_.group < tokens ? (group + 1) * s_.group : tokens;
        float total = 0.0f;
        bool weighted = false;  // not total != 0: weights may cancel
        for (int d = 0; d < width; ++d)
          sum[d] = 0.0f;
        for (int t = group * s_.group; t < end; ++t) {
          if (weights[t] == 0.0f) continue;
          add_scaled(weights[t], row(t), width, sum);
          total += weights[t];
          weighted = true;
        }
        if (!weighted) continue;
        for (int d = 0; d < width; ++d)
          o[d] += gain(group)[d] * sum[d] + bias(group)[d] * total;
        continue;
      }
      int const begin = group * s_.group;
      int const n = width - begin < s_.group ? width - begin : s_.group;
      float constant = 0.0f;
      for (int t = 0; t < tokens; ++t) {
        if (weights[t] == 0.0f) continue;
        add_scaled(weights[t] * gain(group)[t], row(t) + begin, n, o + begin);
        constant += weights[t] * bias(group)[t];
      }
      for (int d = begin; d < begin + n; ++d)
        o[d] += constant;
    }
  }

 private:
  static std::int64_t unit_count(section_spec const& s) noexcept {
    return static_cast<std::int64_t>(s.shape.tile_tokens) * s.shape.head_dim;
  }
  static std::int64_t vector_count(section_spec const& s) noexcept {
    return static_cast<std::int64_t>(s.groups()) * s.owners();
  }
  float* scratch() const noexcept { return work_ + unit_count(s_) + 2 * vector_count(s_); }
  float const* row(int t) const noexcept { return work_ + static_cast<std::int64_t>(t) * s_.shape.head_dim; }

  section_spec s_;
  float* work_;
};

}  // namespace kvcrumb::inline v0
