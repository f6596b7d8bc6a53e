// SPDX-License-Identifier: Apache-2.0
//! @file A static shift and scale per kv head and channel, with its dual on queries and outputs.
#pragma once

#include "kvcrumb/description.hpp"
#include "kvcrumb/transform/concept.hpp"
#include "kvcrumb/transform/identity.hpp"

namespace kvcrumb::inline v0 {

//! x' = (x - shift[head][channel]) / scale[head][channel]; then Next. The dual: queries are multiplied by the
//! scale and <q, shift> is added to every score; outputs are multiplied by the scale and the shift is added.
//! Both arrays are the caller's, [kv_heads][head_dim], and must outlive the transform; two null pointers mean
//! no change. They are estimated once (calibrate/nuq.hpp) and never changed: bytes depend on them.
//! Scales must be positive and finite, shifts finite; supports() refuses others.
//! Source: the offline ranges of KVQuant's keys (arXiv 2401.18079, section 3.1) and the channel smoothing of
//! WKVQuant (arXiv 2402.12065).
template <class Next>
struct channel_scaled {
  static constexpr char const* name = "channel_scale";
  static constexpr void describe(description& d) noexcept {
    d << name << "+";
    describe_as<Next>(d);
  }
  float const* shift = nullptr;
  float const* scale = nullptr;
  Next next{};
  //! Floats at each of the arrays; supports() refuses shapes that need more. 0: not stated, the caller
  //! vouches for every shape, that of a file given to restore included.
  std::int64_t count = 0;

  //! The arrays reach far enough and hold what they may. Cost: one look at every channel.
  bool fits(int kv_heads, int head_dim) const noexcept {
    if (shift == nullptr && scale == nullptr) return true;
    std::int64_t const used = static_cast<std::int64_t>(kv_heads) * head_dim;
    if (shift == nullptr || scale == nullptr || count < 0 || (count > 0 && used > count)) return false;
    for (std::int64_t i = 0; i < used; ++i) {
      if (!is_positive_bits(scale[i]) || !is_finite_bits(scale[i]) || !is_finite_bits(shift[i])) return false;
    }
    return true;
  }
  KVCRUMB_API void forward(int head, int head_dim, float* x) const noexcept {
    if (scale != nullptr) {
      std::int64_t const first = static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i)
        x[i] = div_rn(sub_rn(x[i], shift[first + i]), scale[first + i]);
    }
    next.forward(head, head_dim, x);
  }
  KVCRUMB_API float query(int head, int head_dim, float* q) const noexcept {
    float offset = 0.0f;
    if (scale != nullptr) {
      std::int64_t const first = static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i) {
        offset += q[i] * shift[first + i];
        q[i] *= scale[first + i];
      }
    }
    return offset + next.query(head, head_dim, q);
  }
  KVCRUMB_API void inverse(int head, int head_dim, float* o, float sum) const noexcept {
    next.inverse(head, head_dim, o, sum);
    if (scale != nullptr) {
      std::int64_t const first = static_cast<std::int64_t>(head) * head_dim;
      for (int i = 0; i < head_dim; ++i)
        o[i] = o[i] * scale[first + i] + sum * shift[first + i];
    }
  }
  //! FNV-1a over both arrays, so that a saved cache is only read back with the same ones.
  std::uint64_t id(int kv_heads, int head_dim) const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u ^ next.id(kv_heads, head_dim);
    if (scale == nullptr) return hash;
    std::int64_t const used = static_cast<std::int64_t>(kv_heads) * head_dim;
    for (std::int64_t i = 0; i < used; ++i) {
      hash = (hash ^ float_bits(shift[i])) * 0x100000001B3u;
      hash = (hash ^ float_bits(scale[i])) * 0x100000001B3u;
    }
    return hash;
  }
};

//! Shift and scale alone.
using channel_scale = channel_scaled<identity>;

}  // namespace kvcrumb::inline v0
