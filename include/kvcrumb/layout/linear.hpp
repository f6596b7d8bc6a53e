// SPDX-License-Identifier: Apache-2.0
//! @file The linear layout: codes of one owner in a row, LSB first, as KIVI and most published formats keep
//! them.
#pragma once

#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/layout/tile_shape.hpp"

namespace kvcrumb::inline v0 {

//! Row-major layout: one row of codes per owner (a channel of per-channel groups, a token of per-token
//! groups), the code of run position j at bits [bits*j, bits*(j+1)) of its row; every row starts on a byte.
//! After the codes come the parameter planes, each [owner][group].
//!
//! Holds 1 to 8 and 16 bits and any head_dim. Equal to KIVI's int32 words where head_dim*bits and
//! tile_tokens*bits are multiples of 32 (github.com/jy-yuan/KIVI quant/new_pack.py).
struct linear {
  static constexpr char const* name = "linear";

  KVCRUMB_API static constexpr status supports(section_spec const& s) noexcept {
    if (status const shape = check_shape(s.shape); shape != status::ok) return shape;
    if (s.bits < 1 || (s.bits > 8 && s.bits != 16)) return status::bad_bits;
    return status::ok;
  }

  KVCRUMB_API static constexpr std::int64_t row_bytes(section_spec const& s) noexcept {
    return (static_cast<std::int64_t>(s.run()) * s.bits + 7) / 8;
  }
  KVCRUMB_API static constexpr std::int64_t code_bytes(section_spec const& s) noexcept {
    return s.owners() * row_bytes(s);
  }
  KVCRUMB_API static constexpr std::int64_t section_bytes(section_spec const& s) noexcept {
    return param_base(s) + s.param_count() * s.param_bytes;
  }

  //! Position of bit i of a code in the section's bit stream.
  KVCRUMB_API static constexpr std::int64_t code_bit(section_spec const& s, int token, int dim,
                                                     int i) noexcept {
    int const owner = s.per_channel ? dim : token;
    int const along = s.per_channel ? token : dim;
    return owner * row_bytes(s) * 8 + static_cast<std::int64_t>(along) * s.bits + i;
  }

  //! Byte offset of parameter `plane` of group `group` of `owner`.
  KVCRUMB_API static constexpr std::int64_t param_offset(section_spec const& s, int plane, int owner,
                                                         int group) noexcept {
    std::int64_t const index = (static_cast<std::int64_t>(plane) * s.owners() + owner) * s.groups() + group;
    return param_base(s) + index * s.param_bytes;
  }

  KVCRUMB_API static constexpr unsigned load(section_spec const& s, std::byte const* section, int token,
                                             int dim) noexcept {
    return load_bits(section, code_bit(s, token, dim, 0), s.bits);
  }
  KVCRUMB_API static constexpr void store(section_spec const& s, std::byte* section, int token, int dim,
                                          unsigned code) noexcept {
    store_bits(section, code_bit(s, token, dim, 0), s.bits, code);
  }

 private:
  //! Parameters start at a multiple of their own size.
  KVCRUMB_API static constexpr std::int64_t param_base(section_spec const& s) noexcept {
    return align_up(code_bytes(s), s.param_bytes > 0 ? s.param_bytes : 1);
  }
};

}  // namespace kvcrumb::inline v0
