// SPDX-License-Identifier: Apache-2.0
//! @file The block layout of ggml's q8_0 and q4_0: scale and codes of 32 channels side by side.
#pragma once

#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/layout/tile_shape.hpp"

namespace kvcrumb::inline v0 {

//! Token rows of 32-channel blocks, each an fp16 scale followed by its codes: 34 B for 8 bits (signed bytes),
//! 18 B for 4 bits (byte j holds channel j in the low and channel j + 16 in the high nibble). Bytes equal
//! `block_q8_0` and `block_q4_0` of github.com/ggml-org/ggml src/ggml-common.h.
//! Only per-token groups of 32 channels with one 2-byte parameter; head_dim a multiple of 32.
struct ggml_block {
  static constexpr char const* name = "ggml";
  static constexpr int block = 32;

  KVCRUMB_API static constexpr status supports(section_spec const& s) noexcept {
    if (status const shape = check_shape(s.shape); shape != status::ok) return shape;
    if (s.shape.head_dim % block != 0) return status::bad_head_dim;
    if (s.bits != 4 && s.bits != 8) return status::bad_bits;
    if (s.per_channel || s.group != block || s.planes != 1 || s.param_bytes != 2) return status::bad_group;
    return status::ok;
  }

  KVCRUMB_API static constexpr std::int64_t block_bytes(section_spec const& s) noexcept {
    return 2 + block * s.bits / 8;
  }
  KVCRUMB_API static constexpr std::int64_t row_bytes(section_spec const& s) noexcept {
    return s.shape.head_dim / block * block_bytes(s);
  }
  KVCRUMB_API static constexpr std::int64_t code_bytes(section_spec const& s) noexcept {
    return static_cast<std::int64_t>(s.shape.tile_tokens) * (s.shape.head_dim * s.bits / 8);
  }
  KVCRUMB_API static constexpr std::int64_t section_bytes(section_spec const& s) noexcept {
    return s.shape.tile_tokens * row_bytes(s);
  }

  KVCRUMB_API static constexpr std::int64_t code_bit(section_spec const& s, int token, int dim,
                                                     int i) noexcept {
    std::int64_t const data = param_offset(s, 0, token, dim / block) + 2;
    int const j = dim % block;
    return s.bits == 8 ? (data + j) * 8 + i : (data + j % 16) * 8 + 4 * (j / 16) + i;
  }
  KVCRUMB_API static constexpr std::int64_t param_offset(section_spec const& s, int /*plane*/, int owner,
                                                         int group) noexcept {
    return owner * row_bytes(s) + group * block_bytes(s);
  }

  //! 8-bit codes are kept as two's complement: the library's biased code with its top bit flipped.
  KVCRUMB_API static constexpr unsigned load(section_spec const& s, std::byte const* section, int token,
                                             int dim) noexcept {
    return load_bits(section, code_bit(s, token, dim, 0), s.bits) ^ flip(s);
  }
  KVCRUMB_API static constexpr void store(section_spec const& s, std::byte* section, int token, int dim,
                                          unsigned code) noexcept {
    store_bits(section, code_bit(s, token, dim, 0), s.bits, code ^ flip(s));
  }

 private:
  KVCRUMB_API static constexpr unsigned flip(section_spec const& s) noexcept {
    return s.bits == 8 ? 0x80u : 0u;
  }
};

}  // namespace kvcrumb::inline v0
