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

//! fp16 rows that are read 16 bytes at a time.
inline status check_exact(batch_rows<float16> const& r, int head_dim) noexcept {
  if (r.data == nullptr) return status::null_pointer;
  if (!aligned(r.data, 16) || r.stride_sequence % 8 != 0 || r.stride_head % 8 != 0 ||
      r.stride_token % 8 != 0) {
    return status::misaligned;
  }
  return r.stride_token < head_dim ? status::bad_stride : status::ok;
}

template <class T>
status check_rows(batch_rows<T> const& r, int head_dim, int heads, int tokens) noexcept {
  if (r.data == nullptr) return status::null_pointer;
  if (!aligned(r.data, alignof(T))) return status::misaligned;
  if ((heads > 1 && r.stride_head < head_dim) || (tokens > 1 && r.stride_token < head_dim)) {
    return status::bad_stride;
  }
  return status::ok;
}

inline bool has_exact_rows(batch_cache const& c) noexcept {
  return c.sink_capacity > 0 || c.tail_capacity > 0 || c.pool.capacity > 0 || c.aux.capacity > 0;
}

inline status check_isolated(batch_isolated const& p, int head_dim) noexcept {
  if (p.capacity < 0) return status::bad_window;
  if (p.capacity == 0) return status::ok;
  if (p.positions == nullptr || p.counts == nullptr) return status::null_pointer;
  if (status const s = check_exact(p.keys, head_dim); s != status::ok) return s;
  return check_exact(p.values, head_dim);
}

}  // namespace detail

}  // namespace kvcrumb::inline v0::device
