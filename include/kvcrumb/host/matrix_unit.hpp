// SPDX-License-Identifier: Apache-2.0
//! @file matrix_unit: products of small matrices of bytes, by the processor's unit for them or in plain C++.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0::host {

//! What multiplies matrices of bytes.
enum class matrix_unit : std::uint8_t {
  none,      //!< nothing: vector instructions do all the work
  amx,       //!< the AMX registers of x86-64
  emulated,  //!< plain C++ that does the same with the same operands; for tests
};

//! Up to four products C = A B with 32-bit sums: A of signed bytes, `rows` by 64 depth; B of unsigned bytes,
//! 64 depth by 16. A block of A is 16 rows of 64 bytes, of which `rows` are used; a block of B has in row j
//! and 4-byte element n the factors 4 j ... 4 j + 3 of column n. C is 16 rows of 16 sums; those of
//! a batch are neighbours.
struct matrix_batch {
  static constexpr int most = 4, block_bytes = 1024;
  int rows = 0, depth = 0, count = 0;
  std::byte const *a[most] = {}, *b[most] = {};
  std::int32_t* c = nullptr;
  static constexpr int sums = 256;  //!< of a C
};

//! matrix_unit::emulated.
inline void multiply_emulated(matrix_batch const& m) noexcept {
  for (int i = 0; i < m.count; ++i) {
    for (int row = 0; row < m.rows; ++row) {
      for (int n = 0; n < 16; ++n) {
        std::int32_t sum = 0;
        for (int k = 0; k < 64 * m.depth; ++k) {
          int const block = k / 64 * matrix_batch::block_bytes;
          int const a = static_cast<std::int8_t>(m.a[i][block + row * 64 + k % 64]);
          int const b = std::to_integer<int>(m.b[i][block + k % 64 / 4 * 64 + 4 * n + k % 4]);
          sum += a * b;
        }
        m.c[i * matrix_batch::sums + 16 * row + n] = sum;
      }
    }
  }
}

}  // namespace kvcrumb::inline v0::host
