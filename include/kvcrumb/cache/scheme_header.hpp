// SPDX-License-Identifier: Apache-2.0
//! @file What a scheme and a configuration contribute to the header of a saved cache.
#pragma once

#include "kvcrumb/cache/config.hpp"
#include "kvcrumb/cache/file_header.hpp"

namespace kvcrumb::inline v0 {

//! Copies a text into a zero-filled field; cuts it so that a terminating zero remains.
template <std::size_t N>
void copy_text(char (&to)[N], char const* from) noexcept {
  for (std::size_t i = 0; i + 1 < N && from[i] != '\0'; ++i)
    to[i] = from[i];
}

//! Whether the header can hold the descriptions of a scheme uncut.
template <class Scheme>
bool descriptions_fit(Scheme const& scheme) noexcept {
  description key, value, isolated;
  scheme.key.describe(key);
  scheme.value.describe(value);
  describe_as<typename Scheme::isolation_type>(isolated);
  return key.length < static_cast<int>(sizeof(file_header::key_text)) &&
         value.length < static_cast<int>(sizeof(file_header::value_text)) &&
         isolated.length < static_cast<int>(sizeof(file_header::isolation_text));
}

//! A header with everything that a reader's scheme must have in common with the writer's.
template <class Scheme>
file_header scheme_header(Scheme const& scheme, cache_config const& config) noexcept {
  file_header h;
  std::memcpy(h.magic, file_header::expected_magic, sizeof h.magic);
  h.version = static_cast<std::uint32_t>(format_version);
  h.header_bytes = sizeof(file_header);
  copy_text(h.scheme_name, scheme.name);
  description key, value, isolated;
  scheme.key.describe(key);
  scheme.value.describe(value);
  describe_as<typename Scheme::isolation_type>(isolated);
  copy_text(h.key_text, key.text);
  copy_text(h.value_text, value.text);
  copy_text(h.isolation_text, isolated.text);
  h.key_state = scheme.key.state_id(config.kv_heads, config.shape.head_dim);
  h.value_state = scheme.value.state_id(config.kv_heads, config.shape.head_dim);
  if constexpr (requires { scheme.isolate.id(); }) h.isolation_state = scheme.isolate.id();
  h.head_dim = config.shape.head_dim;
  h.tile_tokens = config.shape.tile_tokens;
  h.kv_heads = config.kv_heads;
  h.recent = scheme.flush.recent;
  h.block = scheme.flush.block;
  h.sink_capacity = scheme.isolate.sink_tokens();
  h.pool_capacity = scheme.isolate.pool_capacity();
  h.aux_capacity = scheme.isolate.aux_capacity();
  h.scope = static_cast<std::int32_t>(scheme.isolate.scope());
  return h;
}

}  // namespace kvcrumb::inline v0
