// SPDX-License-Identifier: Apache-2.0
//! @file kv_scheme: a key scheme, a value scheme, an isolation policy and a window; and the blob they share.
#pragma once

#include "kvcrumb/outlier/isolation.hpp"
#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! When tokens leave the full-precision tail: as soon as it holds `recent + block` tokens, the oldest `block`
//! are encoded. block = 0: never (a full-precision cache). KIVI: recent 0, block 128. OTT: recent 32, block =
//! group. Row-independent schemes: recent 0, block 1.
struct window {
  int recent = 0;
  int block = 1;

  //! How many of the oldest tokens of a tail of `tokens` are encoded.
  template <class Int>
  KVCRUMB_API constexpr Int to_encode(Int tokens) const noexcept {
    return block > 0 && tokens - recent >= block ? (tokens - recent) / block * block : Int{0};
  }

  friend constexpr bool operator==(window const&, window const&) = default;
};

inline constexpr int max_window = 1 << 20;

//! Where the parts of a blob lie. A blob is one tile of one kv head: key section, value section and one
//! validity bit per slot, self-contained and position-independent. Offsets are multiples of 16.
struct blob_layout {
  std::int64_t key_offset = 0;
  std::int64_t value_offset = 0;
  std::int64_t mask_offset = 0;
  std::int64_t bytes = 0;  //!< without padding at the end; the stride between blobs is the owner's choice
};

//! Everything that decides the bytes of a cache.
template <key_scheme Key, value_scheme Value, isolation Isolation = no_isolation>
struct kv_scheme {
  using key_type = Key;
  using value_type = Value;
  using isolation_type = Isolation;

  static constexpr int append_tokens =
      Key::append_tokens > Value::append_tokens ? Key::append_tokens : Value::append_tokens;
  static_assert(append_tokens % Key::append_tokens == 0 && append_tokens % Value::append_tokens == 0,
                "kvcrumb::kv_scheme: one append unit must be a multiple of the other");
  //! Every token can be appended, rewritten and dropped alone.
  static constexpr bool row_independent = append_tokens == 1;

  char const* name = "custom";  //!< at most 31 characters; saved with a cache
  window flush{0, append_tokens};
  Isolation isolate{};
  Key key{};
  Value value{};

  //! Ok, or why this shape cannot be held.
  status supports(tile_shape shape, int kv_heads) const noexcept {
    if (kv_heads < 1 || kv_heads > 65536) return status::bad_shape;
    if (flush.recent < 0 || flush.block < 0 || flush.recent > max_window || flush.block > max_window) {
      return status::bad_window;
    }
    if (flush.block % append_tokens != 0) return status::bad_window;
    if (status const s = check_isolation(isolate); s != status::ok) return s;
    if (shape.tile_tokens % append_tokens != 0) return status::bad_tile_tokens;
    if (status const s = key.supports(side::key, shape, kv_heads); s != status::ok) return s;
    return value.supports(side::value, shape, kv_heads);
  }

  constexpr blob_layout blob(tile_shape shape) const noexcept {
    blob_layout b;
    b.value_offset = align_up(key.section_bytes(side::key, shape), 16);
    b.mask_offset = align_up(b.value_offset + value.section_bytes(side::value, shape), 16);
    b.bytes = b.mask_offset + shape.tile_tokens / 8;
    return b;
  }
};

//! Default alignment of blobs in memory: one cache line, so that a tile starts on a vector and a sector
//! boundary.
inline constexpr std::int64_t default_blob_alignment = 64;

}  // namespace kvcrumb::inline v0
