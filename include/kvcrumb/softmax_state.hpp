// SPDX-License-Identifier: Apache-2.0
//! @file The online-softmax accumulator: a commutative monoid with a true identity.
#pragma once

#include "kvcrumb/config.hpp"

#include <cmath>
#include <limits>

namespace kvcrumb::inline v0 {

inline constexpr float negative_infinity = -std::numeric_limits<float>::infinity();

//! Running maximum of the logits and the sum of exp(logit - max) seen so far. The un-normalized output row
//! that goes with it, o = sum exp(logit - max) v, is the caller's. Default value: the identity (nothing seen;
//! o must be zero). Logits are natural-log. (Milakov and Gimelshein, arXiv 1805.02867; FlashAttention, arXiv
//! 2205.14135.)
struct softmax_state {
  float max = negative_infinity;
  float sum = 0.0f;

  //! Nothing has been added, or only logits of -inf.
  KVCRUMB_API bool empty() const noexcept { return !(sum > 0.0f) && !(sum != sum); }

  //! Raises the maximum to at least m and returns the factor for o (and for everything else on the old
  //! scale).
  KVCRUMB_API float raise(float m) noexcept {
    if (!(m > max) && !(m != m)) return 1.0f;
    float const factor = max == negative_infinity ? 0.0f : ::expf(max - m);
    sum *= factor;
    max = m;
    return factor;
  }

  //! Natural logarithm of the sum of exp(logit); -inf when empty.
  KVCRUMB_API float log_sum_exp() const noexcept { return empty() ? negative_infinity : max + ::logf(sum); }
};

//! a := a merged with b, o_a likewise; both rows have head_dim floats. Commutative; associative up to
//! rounding.
KVCRUMB_API void merge(softmax_state& a, float* o_a, softmax_state const& b, float const* o_b,
                       int head_dim) noexcept {
  if (b.empty()) return;
  float const scale_a = a.raise(b.max);
  float const scale_b = b.max == a.max ? 1.0f : ::expf(b.max - a.max);
  a.sum += scale_b * b.sum;
  for (int i = 0; i < head_dim; ++i)
    o_a[i] = scale_a * o_a[i] + scale_b * o_b[i];
}

//! Merges two finished results (normalized output and log-sum-exp) over disjoint sets of tokens into the
//! first: for splits, cascades and context parallelism. An empty side (lse = -inf) changes nothing.
KVCRUMB_API void merge_outputs(float* o_a, float& lse_a, float const* o_b, float lse_b,
                               int head_dim) noexcept {
  if (lse_b == negative_infinity) return;
  if (lse_a == negative_infinity) {
    for (int i = 0; i < head_dim; ++i)
      o_a[i] = o_b[i];
    lse_a = lse_b;
    return;
  }
  float const top = lse_a > lse_b ? lse_a : lse_b;
  float const a = ::expf(lse_a - top), b = ::expf(lse_b - top);
  for (int i = 0; i < head_dim; ++i)
    o_a[i] = (a * o_a[i] + b * o_b[i]) / (a + b);
  lse_a = top + ::logf(a + b);
}

}  // namespace kvcrumb::inline v0
