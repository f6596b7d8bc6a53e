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

//! c += A B, or c = A B for the first product of a sum.
template <bool First>
KVCRUMB_DEVICE void multiply_add(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                 std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  if constexpr (First) {
    ptx::multiply(c, a0, a1, a2, a3, b0, b1);
  } else {
    ptx::mma(c, a0, a1, a2, a3, b0, b1);
  }
}

//! The low (0) or high (1) half of a pair as a float.
KVCRUMB_DEVICE float half_of(std::uint32_t pair, int high) { return ptx::low_half(pair >> (16 * high)); }

//! In which order a lane keeps the four registers of two neighbouring column blocks k and k + 1.
enum class register_order : std::uint8_t {
  by_block,  //!< b0, b1 of k, b0, b1 of k + 1: each block is an operand as it stands
  by_half,   //!< b0 of both blocks, b1 of both blocks: the order in which parameter vectors are an A operand
};

//! 8 * ColumnTiles query rows of HeadDim channels as fp16 B operands. In shared memory a lane's registers of
//! two neighbouring column blocks (32 channels) are 16 bytes: [column tile][pair of blocks][lane][4].
template <int HeadDim, int ColumnTiles, register_order Order>
class query {
 public:
  static constexpr int blocks = HeadDim / 16;
  static constexpr register_order order = Order;
  static constexpr int shared_bytes = ColumnTiles * blocks / 2 * 512;
  //! Registers for narrow heads; wide ones read shared memory again for each tile.
  static constexpr bool in_registers = HeadDim * ColumnTiles <= 128;

  //! Register of a pair that holds b0 (c = 0) or b1 (c = 1) of its first (k = 0) or second block.
  KVCRUMB_API static constexpr int place(int k, int c) noexcept {
    return Order == register_order::by_block ? 2 * k + c : 2 * c + k;
  }
  //! Byte offset of channel d of query column `column`.
  KVCRUMB_API static constexpr int offset(int column, int d) noexcept {
    int const lane = 4 * (column & 7) + ((d >> 1) & 3);
    return (((column >> 3) * (blocks / 2) + (d >> 5)) * 32 + lane) * 16 +
           4 * place((d >> 4) & 1, (d >> 3) & 1) + 2 * (d & 1);
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
  //! The four registers of column blocks 2 Pair and 2 Pair + 1.
  template <int Pair>
  KVCRUMB_DEVICE void get(std::uint32_t (&b)[ColumnTiles][4]) const {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      if constexpr (in_registers) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 4; ++i)
          b[n][i] = registers_[n][Pair][i];
      } else {
        ptx::load_shared_128(b[n], at(n, Pair));
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
