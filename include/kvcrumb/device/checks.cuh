// SPDX-License-Identifier: Apache-2.0
//! @file Checks of device pointers and strides that launchers share; nothing is read.
#pragma once

#include "kvcrumb/view/batch_cache.hpp"

namespace kvcrumb::inline v0::device {

namespace detail {

inline bool aligned(void const* p, std::uintptr_t n) noexcept {
  return reinterpret_cast<std::uintptr_t>(p) % n == 0;
}

inline status check_sections(batch_sections const& s, std::int64_t bytes, int kv_heads) noexcept {
  if (s.data == nullptr) return status::null_pointer;
  if (!aligned(s.data, 16) || s.stride_page % 16 != 0 || s.stride_head % 16 != 0) return status::misaligned;
  if (s.stride_page < bytes || (kv_heads > 1 && s.stride_head < bytes)) return status::bad_stride;
  return status::ok;
}

//! Rows of different heads and tokens, and unless `sequences` is 1 of different sequences, may not coincide.
template <class T>
status check_rows(batch_rows<T> const& r, int head_dim, int sequences, int heads, int tokens) noexcept {
  if (r.data == nullptr) return status::null_pointer;
  if (!aligned(r.data, alignof(T))) return status::misaligned;
  if ((sequences > 1 && r.stride_sequence < head_dim) || (heads > 1 && r.stride_head < head_dim) ||
      (tokens > 1 && r.stride_token < head_dim)) {
    return status::bad_stride;
  }
  return status::ok;
}

//! fp16 rows of a cache that are read 16 bytes at a time.
inline status check_exact(batch_rows<float16> const& r, batch_cache const& c) noexcept {
  if (status const s = check_rows(r, c.shape.head_dim, c.sequences, c.kv_heads, 2); s != status::ok) return s;
  bool const strides = r.stride_sequence % 8 == 0 && r.stride_head % 8 == 0 && r.stride_token % 8 == 0;
  return aligned(r.data, 16) && strides ? status::ok : status::misaligned;
}

inline status check_pages(page_map const& p, int sequences) noexcept {
  if (p.table != nullptr) {
    // Only lists know their own lengths; a table without a stride is the same for all sequences.
    if (p.indptr == nullptr && p.last_page_len != nullptr) return status::null_pointer;
    return p.indptr == nullptr && sequences > 1 && p.stride < 1 ? status::bad_stride : status::ok;
  }
  if (p.indptr != nullptr || p.last_page_len != nullptr) return status::null_pointer;
  if (sequences > 1 && p.stride < 1) return status::bad_stride;
  return p.stride < 0 || p.stride > (std::int64_t{1} << 31) / sequences ? status::size_overflow : status::ok;
}

inline bool has_exact_rows(batch_cache const& c) noexcept {
  return c.sink_capacity > 0 || c.tail_capacity > 0 || c.pool.capacity > 0 || c.aux.capacity > 0;
}

inline status check_isolated(batch_isolated const& p, batch_cache const& c) noexcept {
  if (p.capacity < 0) return status::bad_window;
  if (p.capacity == 0) return status::ok;
  if (p.positions == nullptr || p.counts == nullptr) return status::null_pointer;
  if (status const s = check_exact(p.keys, c); s != status::ok) return s;
  return check_exact(p.values, c);
}

}  // namespace detail

}  // namespace kvcrumb::inline v0::device
