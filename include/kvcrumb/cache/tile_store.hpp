// SPDX-License-Identifier: Apache-2.0
//! @file The tiles of a kv_cache: blobs [tile][head] in aligned memory.
#pragma once

#include <span>
#include <vector>

#include "kvcrumb/cache/config.hpp"
#include "kvcrumb/cache/row_encoder.hpp"
#include "kvcrumb/cache/storage.hpp"

namespace kvcrumb::inline v0::detail {

//! Blobs of one layer. The scheme is passed in, it belongs to the cache.
template <class Scheme>
struct tile_store {
  cache_config config{};
  blob_layout parts{};
  std::int64_t stride = 0;  //!< bytes from one blob to the next
  std::int64_t slots = 0;   //!< slots in use, isolated ones included
  byte_buffer bytes;

  static status make(Scheme const& scheme, cache_config const& config, tile_store& out) {
    tile_store made;
    made.config = config;
    made.parts = scheme.blob(config.shape);
    if (status const s = resolve_blob_stride(config, made.parts.bytes, made.stride); s != status::ok)
      return s;
    out = static_cast<tile_store&&>(made);
    return status::ok;
  }

  std::int64_t tiles() const noexcept {
    return (slots + config.shape.tile_tokens - 1) / config.shape.tile_tokens;
  }
  std::byte const* blob(std::int64_t tile, int head) const noexcept {
    return bytes.data() + (tile * config.kv_heads + head) * stride;
  }
  std::byte* blob(std::int64_t tile, int head) noexcept {
    return bytes.data() + (tile * config.kv_heads + head) * stride;
  }
  //! Slots that are left in the tile of the next one.
  std::int64_t room() const noexcept { return config.shape.tile_tokens - slots % config.shape.tile_tokens; }
  //! Makes room for `count` slots; bytes of slots that were never written are zero.
  void reserve(std::int64_t count) {
    std::int64_t const needed = (count + config.shape.tile_tokens - 1) / config.shape.tile_tokens;
    std::size_t const size = static_cast<std::size_t>(needed * config.kv_heads * stride);
    if (size > bytes.size()) bytes.resize(size, std::byte{0});
  }

  //! Encodes rows into slots of one tile that begin at `slot`; marks valid those that are not isolated
  //! ([head][rows.count], empty: none).
  template <storage_float Row, class Encoder>
  void encode(Scheme const& scheme, std::int64_t slot, exact_rows<Row> const& rows,
              std::span<std::uint8_t const> isolated, Encoder& encoder) {
    int const n = static_cast<int>(rows.count);
    int const heads = config.kv_heads;
    std::int64_t const tile = slot / config.shape.tile_tokens;
    int const at = static_cast<int>(slot % config.shape.tile_tokens);
    std::vector<std::byte*> keys, values;
    for (int head = 0; head < heads; ++head) {
      std::byte* b = blob(tile, head);
      keys.push_back(b + parts.key_offset);
      values.push_back(b + parts.value_offset);
      for (int i = 0; i < n; ++i) {
        if (!isolated.empty() && isolated[static_cast<std::size_t>(head * n + i)] != 0) continue;
        b[parts.mask_offset + (at + i) / 8] |= std::byte{1} << ((at + i) % 8);
      }
    }
    std::uint8_t const* out = isolated.empty() ? nullptr : isolated.data();
    row_request<Row const> request{rows.keys, out, keys.data(), heads, n, at, rows.first};
    encoder.encode(scheme.key, side::key, config.shape, request);
    request.rows = rows.values;
    request.sections = values.data();
    encoder.encode(scheme.value, side::value, config.shape, request);
  }

  //! One slot as floats in the original basis.
  void decode(Scheme const& scheme, int head, std::int64_t slot, float* key, float* value) const noexcept {
    std::byte const* b = blob(slot / config.shape.tile_tokens, head);
    int const at = static_cast<int>(slot % config.shape.tile_tokens);
    scheme.key.decode_row(side::key, config.shape, head, b + parts.key_offset, at, key);
    scheme.value.decode_row(side::value, config.shape, head, b + parts.value_offset, at, value);
  }

  //! Row-independent schemes: makes slots [count, slots) as never written and gives whole tiles back.
  void truncate(Scheme const& scheme, std::int64_t count) {
    for (std::int64_t slot = count; slot < slots; ++slot) {
      int const at = static_cast<int>(slot % config.shape.tile_tokens);
      for (int head = 0; head < config.kv_heads; ++head) {
        std::byte* b = blob(slot / config.shape.tile_tokens, head);
        scheme.key.clear(side::key, config.shape, at, 1, b + parts.key_offset);
        scheme.value.clear(side::value, config.shape, at, 1, b + parts.value_offset);
        b[parts.mask_offset + at / 8] &= ~(std::byte{1} << (at % 8));
      }
    }
    slots = count;
    bytes.resize(static_cast<std::size_t>(tiles() * config.kv_heads * stride));
  }

  //! A view of one part of the blobs, which begins at `offset`.
  sections_view<std::byte const> view(std::int64_t offset) const noexcept {
    std::byte const* first = bytes.empty() ? nullptr : bytes.data() + offset;  // null + offset is undefined
    return {first, stride, stride * config.kv_heads};
  }
};

}  // namespace kvcrumb::inline v0::detail
