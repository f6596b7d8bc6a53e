// SPDX-License-Identifier: Apache-2.0
//! @file Checks that the launchers of encode, append and truncate share.
#pragma once

#include "kvcrumb/block/encode_arguments.cuh"
#include "kvcrumb/device/checks.cuh"
#include "kvcrumb/device/launch.cuh"

namespace kvcrumb::inline v0::device {

//! Whether encode kernels exist for a scheme in a shape, or what stands in the way: bad_bits (another layout
//! than fragment, or a width that it does not hold), unknown_scheme (a transform, codec, score or isolation
//! policy that kernels do not know), bad_tile_tokens (tiles that do not hold whole append units), bad_group
//! (groups of channels that are no power of two, or too many parameters for shared memory), bad_head_dim.
template <class Config>
constexpr status can_encode() noexcept {
  if (!block::can_isolate<typename Config::scheme_type::isolation_type>) return status::unknown_scheme;
  if (status const s = Config::key::supported(); s != status::ok) return s;
  if (status const s = Config::value::supported(); s != status::ok) return s;
  return Config::head_span % Config::least_span == 0 ? status::ok : status::bad_group;
}

namespace detail {

//! Input rows, read 16 bytes at a time. `packed`: rows of a sequence begin where a list says, so that rows of
//! different sequences need no stride.
template <class T>
status check_input(batch_rows<T> const& r, batch_cache const& c, bool packed, int tokens) noexcept {
  if (tokens <= 0) return status::ok;
  int const sequences = packed ? 1 : c.sequences, several = packed || tokens > 1 ? 2 : 1;
  if (status const s = check_rows(r, c.shape.head_dim, sequences, c.kv_heads, several); s != status::ok)
    return s;
  std::int64_t const n = 16 / static_cast<std::int64_t>(sizeof(T));
  bool const strides = r.stride_sequence % n == 0 && r.stride_head % n == 0 && r.stride_token % n == 0;
  return aligned(r.data, 16) && strides ? status::ok : status::misaligned;
}

inline status check_pool(batch_isolated const& p, int capacity, batch_cache const& c) noexcept {
  if (p.capacity != capacity) return status::bad_window;
  if (capacity > 0 && p.scores == nullptr) return status::null_pointer;
  return check_isolated(p, c);
}

//! A cache that encode kernels may write. `new_tokens`: rows that are written to the tail before it is
//! flushed.
template <class Config>
status check_cache(typename Config::scheme_type const& scheme, batch_cache const& c,
                   std::int64_t new_tokens) noexcept {
  if constexpr (can_encode<Config>() != status::ok) return can_encode<Config>();
  if (c.shape.head_dim != Config::head_dim) return status::bad_head_dim;
  if (c.shape.tile_tokens != Config::tile_tokens) return status::bad_tile_tokens;
  if (c.sequences < 0 || c.kv_heads < 1) return status::bad_shape;
  if (status const s = scheme.supports(c.shape, c.kv_heads); s != status::ok) return s;
  if (c.sequences == 0) return status::ok;
  if (c.tokens == nullptr) return status::null_pointer;
  if (status const s = check_pages(c.pages, c.sequences); s != status::ok) return s;
  if (status const s = check_sections(c.keys, Config::key::section::section_bytes, c.kv_heads);
      s != status::ok)
    return s;
  if (status const s = check_sections(c.values, Config::value::section::section_bytes, c.kv_heads);
      s != status::ok) {
    return s;
  }
  if (status const s = check_sections(c.masks, Config::tile_tokens / 8, c.kv_heads); s != status::ok)
    return s;
  if (c.sink_capacity != scheme.isolate.sink_tokens()) return status::bad_window;
  if (c.sink_capacity > 0) {
    if (status const s = check_exact(c.sink_keys, c); s != status::ok) return s;
    if (status const s = check_exact(c.sink_values, c); s != status::ok) return s;
  }
  window const w = scheme.flush;
  if (c.encoded == nullptr) {
    if (!Config::scheme_type::row_independent || !(w == window{0, 1})) return status::bad_window;
  } else {
    std::int64_t const least = std::int64_t{w.recent} + w.block + new_tokens - 1;
    if (c.tail_capacity < 1 || c.tail_capacity < least) return status::bad_window;
    if (status const s = check_exact(c.tail_keys, c); s != status::ok) return s;
    if (status const s = check_exact(c.tail_values, c); s != status::ok) return s;
  }
  if (status const s = check_pool(c.pool, scheme.isolate.pool_capacity(), c); s != status::ok) return s;
  return check_pool(c.aux, scheme.isolate.aux_capacity(), c);
}

//! A grid of this many blocks, or 0 where there are too many.
constexpr unsigned grid_of(std::int64_t a, std::int64_t b, std::int64_t c) noexcept {
  std::int64_t const limit = (std::int64_t{1} << 31) - 1;
  if (a > limit / (b > 0 ? b : 1) || a * b > limit / (c > 0 ? c : 1)) return 0;
  return static_cast<unsigned>(a * b * c);
}

//! Calls f(std::type_identity<encode_config>) for the config of a runtime shape; `otherwise` where there is
//! none.
template <class Scheme, class Input, class Result, class F>
Result with_shape(tile_shape shape, Result otherwise, F f) {
  auto const with_dim = [&]<int HeadDim>(std::integral_constant<int, HeadDim>) {
    auto const call = [&]<int Tokens>(std::integral_constant<int, Tokens>) {
      return f(std::type_identity<block::encode_config<Scheme, HeadDim, Tokens, Input>>{});
    };
    switch (shape.tile_tokens) {
      case 32: return call(std::integral_constant<int, 32>{});
      case 64: return call(std::integral_constant<int, 64>{});
      case 128: return call(std::integral_constant<int, 128>{});
      default: return otherwise;
    }
  };
  switch (shape.head_dim) {
    case 64: return with_dim(std::integral_constant<int, 64>{});
    case 96: return with_dim(std::integral_constant<int, 96>{});
    case 128: return with_dim(std::integral_constant<int, 128>{});
    case 192: return with_dim(std::integral_constant<int, 192>{});
    case 256: return with_dim(std::integral_constant<int, 256>{});
    default: return otherwise;
  }
}

}  // namespace detail

}  // namespace kvcrumb::inline v0::device
