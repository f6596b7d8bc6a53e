// SPDX-License-Identifier: Apache-2.0
//! @file WKVQuant (arXiv 2402.12065), its cache: static smoothing per channel, then 4-bit groups per token,
//! past only.
#pragma once

#include "kvcrumb/calibrate/nuq.hpp"
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/channel_scale.hpp"

namespace kvcrumb::inline v0 {

//! Static shift and scale of both sides of one layer, [kv_heads][head_dim] each. Owns the memory that the
//! schemes made from it point to.
struct wkvquant_calibration {
  int kv_heads = 0, head_dim = 0;
  std::vector<float> key_shift, key_scale, value_shift, value_scale;
};

//! Middle and half range of every channel of the rows, so that all channels fill one token-wise range alike.
//! Errors as channel_ranges; `out` is untouched unless ok.
inline status calibrate_wkvquant(rows_view<float const> keys, rows_view<float const> values, int kv_heads,
                                 std::int64_t tokens, int head_dim, wkvquant_calibration& out) {
  if (kv_heads < 1 || head_dim < 1) return status::bad_shape;
  std::size_t const n = static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(head_dim);
  std::vector<float> const zero(n, 0.0f);
  wkvquant_calibration c{kv_heads, head_dim, zero, zero, zero, zero};
  if (status const s = channel_ranges(keys, kv_heads, tokens, head_dim, 1.0, c.key_shift, c.key_scale);
      s != status::ok)
    return s;
  if (status const s = channel_ranges(values, kv_heads, tokens, head_dim, 1.0, c.value_shift, c.value_scale);
      s != status::ok)
    return s;
  out = static_cast<wkvquant_calibration&&>(c);
  return status::ok;
}

namespace schemes {

//! Two-dimensional quantization: static per channel (channel_scale), dynamic per token over `Group` channels
//! (fp16 scale and minimum). Row-independent; the newest token stays exact, so it is exact when it attends
//! ("past-only"). All-in bits: Bits + 32 / Group.
template <int Bits = 4, int Group = 128, layout Layout = fragment>
using wkvquant_type = kv_scheme<composed<affine<Bits>, per_token<Group>, channel_scale, Layout>,
                                composed<affine<Bits>, per_token<Group>, channel_scale, Layout>>;

//! The calibration must outlive every cache made with the scheme.
template <int Bits = 4, int Group = 128, layout Layout = fragment>
wkvquant_type<Bits, Group, Layout> wkvquant(wkvquant_calibration const& c) noexcept {
  std::int64_t const n = std::int64_t{c.kv_heads} * c.head_dim;
  wkvquant_type<Bits, Group, Layout> s{.name = Bits == 4 ? "wkvquant4" : "wkvquant", .flush = {1, 1}};
  s.key.transform = {c.key_shift.data(), c.key_scale.data(), {}, n};
  s.value.transform = {c.value_shift.data(), c.value_scale.data(), {}, n};
  return s;
}

}  // namespace schemes

}  // namespace kvcrumb::inline v0
