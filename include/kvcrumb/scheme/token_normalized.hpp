// SPDX-License-Identifier: Apache-2.0
//! @file token_normalized<Base>: keys divided by the norm of their token before they are encoded.
#pragma once

#include "kvcrumb/numeric/square_root.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"
#include "kvcrumb/scheme/slot_scaled.hpp"
#include "kvcrumb/transform/identity.hpp"

namespace kvcrumb::inline v0 {

//! The factor of a token is its norm n = sqrt(sum over all kv heads and channels of k^2), the same for every
//! head (OScaR, arXiv 2605.19660). Squares of a head are added in tree order, then the heads in tree order; n
//! is rounded to fp16 and at most 65504; a norm that rounds to 0 counts as 1, as in OScaR's k_preprocess.cu.
//! Heads in which the token is isolated take no part. Values that are not finite take no part in the norm and
//! do to their group what the base scheme does. Cost: one pass.
struct norm_over_heads {
  identity rotation{};

  static void describe(description& d) noexcept { d << "token_norm(f16)"; }

  template <class Put>
  void scales(tile_shape shape, encode_request const& r, Put put) const noexcept {
    auto const add = [](float a, float b) { return add_rn(a, b); };
    for (int i = 0; i < r.count; ++i) {
      auto const out = [&](int head) {
        return r.isolated != nullptr && r.isolated[static_cast<std::int64_t>(head) * r.count + i] != 0;
      };
      auto const squares = [&](int head) {
        if (out(head)) return 0.0f;
        float const* x = r.rows + (static_cast<std::int64_t>(head) * r.count + i) * shape.head_dim;
        return tree_fold(
            shape.head_dim, [&](int d) { return is_finite_bits(x[d]) ? mul_rn(x[d], x[d]) : 0.0f; }, add);
      };
      float const n = to_float(from_float_saturate<float16>(sqrt_rn(tree_fold(r.heads, squares, add))));
      for (int head = 0; head < r.heads; ++head)
        put(head, i, out(head) ? 0.0f : is_positive_bits(n) ? n : 1.0f);
    }
  }
};

//! Any key scheme behind a normalization of tokens: Base encodes k / n. A token that is much smaller or
//! larger than its neighbours then has the range that they have, and does not widen a group of tokens that
//! shares parameters. Orthonormal transforms of Base commute with the division.
template <key_scheme Base>
using token_normalized = slot_scaled<Base, norm_over_heads>;

}  // namespace kvcrumb::inline v0
