// SPDX-License-Identifier: Apache-2.0
//! @file copy_tiles: tiles moved between pages, caches and files; a tile is self-contained and
//! position-independent.
#pragma once

#include <cstring>

#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! Copies `bytes` bytes of every kv head of tiles [0, tiles) from one view to another; strides and block
//! tables may differ, the bytes must not overlap. `bytes` is blob_layout::bytes for whole blobs, or the bytes
//! of one section. Errors: null_pointer, bad_shape (negative sizes), bad_stride (a stride smaller than
//! `bytes`); nothing is copied then. Cost: one memcpy per tile and head.
inline status copy_tiles(sections_view<std::byte const> from, sections_view<std::byte> to, int kv_heads,
                         std::int64_t tiles, std::int64_t bytes) noexcept {
  if (kv_heads < 0 || tiles < 0 || bytes < 0) return status::bad_shape;
  if (kv_heads == 0 || tiles == 0 || bytes == 0) return status::ok;
  if (from.data == nullptr || to.data == nullptr) return status::null_pointer;
  bool const overlapping = (kv_heads > 1 && (from.stride_head < bytes || to.stride_head < bytes)) ||
                           (tiles > 1 && (from.stride_tile < bytes || to.stride_tile < bytes));
  if (overlapping) return status::bad_stride;
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    for (int head = 0; head < kv_heads; ++head) {
      std::memcpy(to.section(head, tile), from.section(head, tile), static_cast<std::size_t>(bytes));
    }
  }
  return status::ok;
}

}  // namespace kvcrumb::inline v0
