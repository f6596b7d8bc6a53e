// SPDX-License-Identifier: Apache-2.0
//! @file Subtracting a fixed mean per kv head and channel, for keys with a large bias.
#pragma once

#include "kvcrumb/description.hpp"
#include "kvcrumb/transform/concept.hpp"
#include "kvcrumb/transform/identity.hpp"

namespace kvcrumb::inline v0 {

//! x' = x - mean[head][channel]. The scores stay exact: <q, mean> is added back once per query, so sink
//! logits and soft-capping see the true score (subtracting alone is softmax-invariant only without them).
//! Removes what a k_proj bias contributes (Qwen2/2.5). The means are the caller's, [kv_heads][head_dim], and
//! must outlive the transform; a null pointer means no centering. They should be estimated once and never
//! changed: bytes depend on them. A transform of another kind may follow: Next sees the centered rows.
template <class Next>
struct centered {
  static constexpr char const* name = "centered";
  static constexpr void describe(description& d) noexcept {
    d << name << "+";
    describe_as<Next>(d);
  }
  float const* means = nullptr;  //!< [kv_heads][head_dim], host memory for host calls
  Next next{};
  //! Floats at `means`; supports() refuses shapes that need more. 0: not stated, the caller vouches for every
  //! shape, that of a file given to restore included.
  std::int64_t count = 0;

  constexpr bool fits(int kv_heads, int head_dim) const noexcept {
    return means == nullptr || count == 0 || static_cast<std::int64_t>(kv_heads) * head_dim <= count;
  }
  KVCRUMB_API void forward(int head, int head_dim, float* x) const noexcept {
    if (means != nullptr) {
      float const* m = means + static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i)
        x[i] = sub_rn(x[i], m[i]);
    }
    next.forward(head, head_dim, x);
  }
  KVCRUMB_API float query(int head, int head_dim, float* q) const noexcept {
    float offset = 0.0f;
    if (means != nullptr) {
      float const* m = means + static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i)
        offset += q[i] * m[i];
    }
    return offset + next.query(head, head_dim, q);
  }
  KVCRUMB_API void inverse(int head, int head_dim, float* o, float sum) const noexcept {
    next.inverse(head, head_dim, o, sum);
    if (means != nullptr) {
      float const* m = means + static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i)
        o[i] += sum * m[i];
    }
  }
  //! FNV-1a over the means, so that a saved cache is only read back with the same ones.
  std::uint64_t id(int kv_heads, int head_dim) const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u ^ next.id(kv_heads, head_dim);
    if (means == nullptr) return hash;
    std::int64_t const used = static_cast<std::int64_t>(kv_heads) * head_dim;
    for (std::int64_t i = 0; i < used; ++i) {
      hash = (hash ^ float_bits(means[i])) * 0x100000001B3u;
    }
    return hash;
  }
};

//! Mean-centering alone.
using mean_center = centered<identity>;

}  // namespace kvcrumb::inline v0
