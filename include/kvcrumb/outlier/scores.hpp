// SPDX-License-Identifier: Apache-2.0
//! @file Scores by which outlier tokens are found; small means outlier.
#pragma once

#include <concepts>

#include "kvcrumb/description.hpp"
#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"

namespace kvcrumb::inline v0 {

//! A token score: score(key row, head_dim) -> float, deterministic, finite for finite rows within fp16 range.
template <class S>
concept token_score = requires(S const s, float const* row) {
  { S::name } -> std::convertible_to<char const*>;
  { s(row, 128) } -> std::same_as<float>;
};

//! L1 norm of the key, sum over channels of |k|: OTT's criterion (arXiv 2505.10938; "sum of key magnitudes").
struct l1_score {
  static constexpr char const* name = "l1";
  KVCRUMB_API float operator()(float const* row, int head_dim) const noexcept {
    return tree_fold(
        head_dim, [&](int i) { return absolute(row[i]); }, [](float a, float b) { return add_rn(a, b); });
  }
};

//! Squared L2 norm of the key: the same order as the norm, and unchanged by RoPE (OScaR, arXiv 2605.19660).
struct l2_score {
  static constexpr char const* name = "l2";
  KVCRUMB_API float operator()(float const* row, int head_dim) const noexcept {
    return tree_fold(
        head_dim, [&](int i) { return mul_rn(row[i], row[i]); },
        [](float a, float b) { return add_rn(a, b); });
  }
};

//! Largest magnitude of the key, NaN aside: a token without any value in the outlier channels.
struct absmax_score {
  static constexpr char const* name = "absmax";
  KVCRUMB_API float operator()(float const* row, int head_dim) const noexcept {
    float largest = 0.0f;
    for (int i = 0; i < head_dim; ++i) {
      if (!is_nan_bits(row[i])) largest = maximum(largest, absolute(row[i]));
    }
    return largest;
  }
};

//! The opposite end: isolates the tokens with the *largest* value of another score (a control in
//! experiments).
template <token_score Score>
struct negated {
  static constexpr char const* name = "negated";
  static constexpr void describe(description& d) noexcept {
    d << name << " ";
    describe_as<Score>(d);
  }
  Score score{};
  KVCRUMB_API float operator()(float const* row, int head_dim) const noexcept {
    return -score(row, head_dim);
  }
};

}  // namespace kvcrumb::inline v0
