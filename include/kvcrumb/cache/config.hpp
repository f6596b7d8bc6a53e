// SPDX-License-Identifier: Apache-2.0
//! @file What a kv_cache is made for, and where it keeps a token.
#pragma once

#include "kvcrumb/kv_scheme.hpp"

namespace kvcrumb::inline v0 {

//! Shape and memory layout of a cache.
struct cache_config {
  int kv_heads = 1;
  tile_shape shape{};
  //! Alignment of blobs in bytes, a power of two in [16, 4096].
  std::int64_t blob_alignment = default_blob_alignment;
  //! Bytes from one blob to the next, a multiple of blob_alignment and at least blob_layout::bytes; 0: the
  //! least.
  std::int64_t blob_stride = 0;
};

inline constexpr std::int64_t max_blob_alignment = 4096;

//! The stride that a configuration means, given the bytes of a blob; or why there is none.
inline status resolve_blob_stride(cache_config const& config, std::int64_t bytes,
                                  std::int64_t& stride) noexcept {
  std::int64_t const a = config.blob_alignment;
  if (a < 16 || a > max_blob_alignment || (a & (a - 1)) != 0) return status::misaligned;
  if (config.blob_stride == 0) {
    stride = align_up(bytes, a);
    return status::ok;
  }
  if (config.blob_stride < bytes) return status::bad_stride;
  if (config.blob_stride % a != 0) return status::misaligned;
  if (config.blob_stride > std::int64_t{1} << 32) return status::size_overflow;
  stride = config.blob_stride;
  return status::ok;
}

//! Where a token is kept.
enum class token_place : std::uint8_t { sink, tile, pool, auxiliary, tail };

}  // namespace kvcrumb::inline v0
