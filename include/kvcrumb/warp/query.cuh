// SPDX-License-Identifier: Apache-2.0
//! @file The query as a B operand, and small helpers of the warp collectives.
#pragma once

#include <utility>

#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::warp {

namespace detail {
template <class F, int... I>
KVCRUMB_DEVICE void call_each(F& f, std::integer_sequence<int, I...>) {
  (f.template operator()<I>(), ...);
}
}  // namespace detail

//! Calls f.operator()<0>(), ..., f.operator()<N - 1>(): a loop whose index is a constant.
template <int N, class F>
KVCRUMB_DEVICE void unrolled(F&& f) {
  detail::call_each(f, std::make_integer_sequence<int, N>{});
}

//! 2^e as a constant.
KVCRUMB_API constexpr float power_of_two(int e) noexcept {
  return float_from_bits(static_cast<std::uint32_t>(127 + e) << 23);
}

//! The low (0) or high (1) half of a pair as a float.
KVCRUMB_DEVICE float half_of(std::uint32_t pair, int high) { return ptx::low_half(pair >> (16 * high)); }

//! 8 * ColumnTiles query rows of HeadDim channels as fp16 B operands. In shared memory a lane's registers of
//! two neighbouring column blocks (32 channels) are 16 bytes: [column tile][pair of blocks][lane][4].
template <int HeadDim, int ColumnTiles>
class query {
 public:
  static constexpr int blocks = HeadDim / 16;
  static constexpr int shared_bytes = ColumnTiles * blocks / 2 * 512;
  //! Registers for narrow heads; wide ones read shared memory again for each tile.
  static constexpr bool in_registers = HeadDim * ColumnTiles <= 128;

  //! Byte offset of channel d of query column `column`.
  KVCRUMB_API static constexpr int offset(int column, int d) noexcept {
    int const lane = 4 * (column & 7) + ((d >> 1) & 3);
    return (((column >> 3) * (blocks / 2) + (d >> 5)) * 32 + lane) * 16 + 4 * ((d >> 3) & 3) + 2 * (d & 1);
  }

  KVCRUMB_DEVICE void load(std::uint32_t shared, int lane) {
    shared_ = shared + static_cast<std::uint32_t>(16 * lane);
    if constexpr (in_registers) {
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        KVCRUMB_UNROLL
        for (int j = 0; j < blocks / 2; ++j)
          ptx::load_shared_128(registers_[n][j], at(n, j));
      }
    }
  }
  //! Registers b0, b1 of column block K.
  template <int K>
  KVCRUMB_DEVICE void get(std::uint32_t (&b)[ColumnTiles][2]) const {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      if constexpr (in_registers) {
        b[n][0] = registers_[n][K / 2][2 * (K % 2)];
        b[n][1] = registers_[n][K / 2][2 * (K % 2) + 1];
      } else {
        ptx::load_shared_64(b[n], at(n, K / 2) + 8 * (K % 2));
      }
    }
  }

 private:
  KVCRUMB_DEVICE std::uint32_t at(int n, int j) const {
    return shared_ + static_cast<std::uint32_t>((n * (blocks / 2) + j) * 512);
  }
  std::uint32_t shared_ = 0;
  std::uint32_t registers_[in_registers ? ColumnTiles : 1][in_registers ? blocks / 2 : 1][4];
};

}  // namespace kvcrumb::inline v0::warp
