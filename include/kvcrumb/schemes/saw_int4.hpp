// SPDX-License-Identifier: Apache-2.0
//! @file SAW-INT4 (arXiv 2604.19157): 4-bit rows, keys rotated by a block-diagonal Hadamard matrix.
#pragma once

#include "kvcrumb/schemes.hpp"

namespace kvcrumb::inline v0::schemes {

//! Affine 4-bit codes with one fp16 scale and minimum per token and head; keys, and with them the queries,
//! are rotated in blocks of `Block` channels (the largest power of two that divides head_dim, if smaller);
//! values are not. Row-independent; 4 + 32 / head_dim bits. The block of the published code is not known to
//! us; 1024 means one block for every usual head_dim.
template <int Block = 1024, layout Layout = fragment>
using saw_int4_type = kv_scheme<composed<affine<4>, per_row, hadamard<Block>, Layout>,
                                composed<affine<4>, per_row, identity, Layout>>;
template <int Block = 1024, layout Layout = fragment>
constexpr saw_int4_type<Block, Layout> saw_int4() noexcept {
  return {.name = "saw_int4"};
}

}  // namespace kvcrumb::inline v0::schemes
