// SPDX-License-Identifier: Apache-2.0
//! @file status: why a host function refused its arguments; nothing is changed when it is not ok.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! Result of a host function. Everything but `ok` means: refused, and no state was changed.
enum class [[nodiscard]] status : std::uint8_t{
    ok = 0,
    null_pointer,      //!< a required pointer is null
    misaligned,        //!< a pointer or stride is not aligned as its element type or the blob asks
    bad_head_dim,      //!< head_dim is not one the layout can hold
    bad_tile_tokens,   //!< tile_tokens is not 32, 64 or 128, or not a multiple of the scheme's append unit
    bad_group,         //!< the group size does not fit head_dim, tile_tokens or the number of heads
    bad_bits,          //!< this bit width does not exist in this layout
    bad_window,        //!< the window or pool sizes are negative or beyond their limits
    bad_shape,         //!< heads, tokens or queries have inconsistent or non-positive sizes
    bad_stride,        //!< a stride is smaller than what it must step over
    size_overflow,     //!< a size does not fit the index type
    not_finite,        //!< the input holds a NaN or an infinity
    out_of_range,      //!< a value, position or index lies outside what can be represented or addressed
    not_in_tail,       //!< these tokens are already encoded in a closed group and cannot be dropped alone
    not_empty,         //!< the operation needs an empty cache
    buffer_too_small,  //!< the caller's buffer is smaller than the size query says
    unknown_scheme,    //!< no scheme has this name
    bad_magic,         //!< not a kvcrumb file
    bad_version,       //!< a kvcrumb file of a format version that this library does not read
    bad_header,        //!< the header contradicts itself
    bad_checksum,      //!< the content does not match its checksum
    truncated,         //!< the file ends before its content does
    scheme_mismatch,   //!< the file was written by another scheme or another scheme state
    unsupported,       //!< no kernel for this scheme and instruction set, or only a slow one that is not allowed
};

//! One sentence for people. Never null.
constexpr char const* to_string(status s) noexcept {
  switch (s) {
    case status::ok: return "ok";
    case status::null_pointer: return "a required pointer is null";
    case status::misaligned: return "a pointer or stride is not aligned as required";
    case status::bad_head_dim: return "head_dim is not supported by this layout";
    case status::bad_tile_tokens:
      return "tile_tokens must be 32, 64 or 128 and a multiple of the append unit";
    case status::bad_group: return "the group size does not fit head_dim, tile_tokens or the number of heads";
    case status::bad_bits: return "this bit width does not exist in this layout";
    case status::bad_window: return "window or pool sizes are negative or beyond their limits";
    case status::bad_shape: return "heads, tokens or queries have inconsistent or non-positive sizes";
    case status::bad_stride: return "a stride is smaller than the data it must step over";
    case status::size_overflow: return "a size does not fit the index type";
    case status::not_finite: return "the input holds a NaN or an infinity";
    case status::out_of_range: return "a value, position or index is outside the representable range";
    case status::not_in_tail: return "these tokens are in a closed group and cannot be dropped alone";
    case status::not_empty: return "the operation needs an empty cache";
    case status::buffer_too_small: return "the buffer is smaller than the size query says";
    case status::unknown_scheme: return "no scheme has this name";
    case status::bad_magic: return "not a kvcrumb file";
    case status::bad_version: return "the file's format version is not readable by this library";
    case status::bad_header: return "the file's header contradicts itself";
    case status::bad_checksum: return "the content does not match its checksum";
    case status::truncated: return "the file ends before its content does";
    case status::scheme_mismatch: return "the file was written by another scheme";
    case status::unsupported: return "this processor, or the allowed instruction set, has no kernel for this scheme";
  }
  return "unknown status";
}

}  // namespace kvcrumb::inline v0
