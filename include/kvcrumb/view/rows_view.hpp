// SPDX-License-Identifier: Apache-2.0
//! @file Non-owning views of rows and tiles. Strides are 64-bit everywhere, independent for keys and values.
#pragma once

#include <type_traits>

#include "kvcrumb/config.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! Rows of `head_dim` contiguous elements: row(head, token) = data + head * stride_head + token *
//! stride_token. Strides count elements. Holds [head][token] (HND) and [token][head] (NHD) orders alike.
template <class T>
struct rows_view {
  T* data = nullptr;
  std::int64_t stride_head = 0;
  std::int64_t stride_token = 0;

  //! The same rows, read-only.
  KVCRUMB_API constexpr rows_view<T const> read_only() const noexcept {
    return {data, stride_head, stride_token};
  }
  KVCRUMB_API constexpr T* row(std::int64_t head, std::int64_t token) const noexcept {
    return data + head * stride_head + token * stride_token;
  }
  //! The same rows, numbered from this one on.
  KVCRUMB_API constexpr rows_view starting_at(std::int64_t head, std::int64_t token) const noexcept {
    return {row(head, token), stride_head, stride_token};
  }
};

//! [head][token][dim] in one piece.
template <class T>
constexpr rows_view<T> hnd_rows(T* data, std::int64_t tokens, int head_dim) noexcept {
  return {data, tokens * head_dim, head_dim};
}
//! [token][head][dim] in one piece.
template <class T>
constexpr rows_view<T> nhd_rows(T* data, int heads, int head_dim) noexcept {
  return {data, head_dim, static_cast<std::int64_t>(heads) * head_dim};
}

//! Checks a view of heads x tokens rows: not null, aligned as its element, and no row overlaps the next along
//! either axis (strides at least head_dim where there is more than one row).
template <class T>
status check_rows(rows_view<T> const& v, std::int64_t heads, std::int64_t tokens, int head_dim) noexcept {
  if (heads <= 0 || tokens <= 0) return status::ok;
  if (v.data == nullptr) return status::null_pointer;
  if (reinterpret_cast<std::uintptr_t>(v.data) % alignof(T) != 0) return status::misaligned;
  if (heads > 1 && v.stride_head < head_dim) return status::bad_stride;
  if (tokens > 1 && v.stride_token < head_dim) return status::bad_stride;
  constexpr std::int64_t limit = std::int64_t{1} << 60;
  if (v.stride_head > limit / heads || v.stride_token > limit / tokens) return status::size_overflow;
  return status::ok;
}

//! Largest magnitude of a cached value and of a query. With both, no score and no weighted sum over less than
//! 2^24 tokens overflows binary32, so that finite input never gives a NaN. fp16 cannot exceed either.
inline constexpr float max_row_magnitude = 0x1p90f;
inline constexpr float max_query_magnitude = 0x1p16f;

//! Sections of tiles: section(head, tile) = data + head * stride_head + index * stride_tile, strides in
//! bytes. With a block table the index of tile i is table[i] (pages anywhere), else i.
template <class Byte>
struct sections_view {
  Byte* data = nullptr;
  std::int64_t stride_head = 0;
  std::int64_t stride_tile = 0;
  std::int32_t const* block_table = nullptr;

  KVCRUMB_API constexpr Byte* section(std::int64_t head, std::int64_t tile) const noexcept {
    std::int64_t const index = block_table == nullptr ? tile : block_table[tile];
    return data + head * stride_head + index * stride_tile;
  }
  //! The same sections, read-only. (A template, because nvcc 13.0 warns of a conversion to the same type
  //! otherwise.)
  template <class To>
    requires(std::is_same_v<To, Byte const> && !std::is_const_v<Byte>)
  KVCRUMB_API constexpr operator sections_view<To>() const noexcept {
    return {data, stride_head, stride_tile, block_table};
  }
};

}  // namespace kvcrumb::inline v0
