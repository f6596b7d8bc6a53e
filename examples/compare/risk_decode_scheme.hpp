// SPDX-License-Identifier: Apache-2.0
//! @file risk_decode_scheme: decode_layer for any kv_scheme.
#pragma once

#include <fmt/format.h>
#include <kvcrumb/kvcrumb.hpp>

#include "risk_decode.hpp"

namespace kvcrumb_compare {

template <class Scheme>
kvcrumb::status decode_into(Scheme const& scheme, recorded_layer const& layer, int tile_tokens,
                            decoded_layer& out) {
  using namespace kvcrumb;
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  kv_cache<Scheme> cache;
  tile_shape const shape{width, tile_tokens};
  if (status const s = kv_cache<Scheme>::create(scheme, {heads, shape}, cache); s != status::ok) return s;
  if (status const s = cache.prefill(hnd_rows(layer.k.data(), layer.tokens, width),
                                     hnd_rows(layer.v.data(), layer.tokens, width), layer.tokens);
      s != status::ok) {
    return s;
  }
  out.k.resize(layer.k.size());
  out.v.resize(layer.v.size());
  out.exact.resize(static_cast<std::size_t>(heads * layer.tokens));
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t token = 0; token < layer.tokens; ++token) {
      std::int64_t const row = head * layer.tokens + token;
      token_place place{};
      if (status const s =
              cache.read(head, token, out.k.data() + row * width, out.v.data() + row * width, &place);
          s != status::ok) {
        return s;
      }
      out.exact[static_cast<std::size_t>(row)] = place != token_place::tile;
    }
  }
  out.bits_per_value = cache.bits_per_value();
  out.tile_bits = 8.0 * static_cast<double>(align_up(scheme.blob(shape).bytes, default_blob_alignment)) /
                  static_cast<double>(2 * width * tile_tokens);
  return status::ok;
}

//! decode_into, with the sentence of a failure.
template <class Scheme>
result<decoded_layer> decode_as(std::string_view name, Scheme const& scheme, recorded_layer const& layer,
                                evaluation_settings const& settings) {
  decoded_layer out;
  if (kvcrumb::status const s = decode_into(scheme, layer, settings.tile_tokens, out);
      s != kvcrumb::status::ok) {
    return failure{fmt::format(
        "{}, layer {}: {} (head_dim {}, {} kv heads, groups of {}, tiles of {} tokens)", name, layer.number,
        to_string(s), layer.head_dim, layer.kv_heads, settings.group, settings.tile_tokens)};
  }
  return out;
}

}  // namespace kvcrumb_compare
