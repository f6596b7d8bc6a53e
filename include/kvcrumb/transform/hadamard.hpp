// SPDX-License-Identifier: Apache-2.0
//! @file Block-diagonal Hadamard rotation of a head's channels.
#pragma once

#include "kvcrumb/transform/concept.hpp"

namespace kvcrumb::inline v0 {

//! Orthonormal Walsh-Hadamard transform (Sylvester order) of blocks of channels. The block is the largest
//! power of two that divides head_dim and is at most `Block`: 128 -> 128, 96 -> 32, 80 -> 16, 46 -> 2; an odd
//! head_dim is left unchanged. Its own inverse and transpose. (QuaRot, SAW-INT4 arXiv 2604.19157, OScaR arXiv
//! 2605.19660.) Cost: D log2(block) additions. Every addition and the final multiplication round once, in the
//! order of the butterflies h = 1, 2, 4, ..., so that a warp gets the same bits.
template <int Block = 1024>
struct hadamard {
  static_assert(Block >= 2 && (Block & (Block - 1)) == 0, "kvcrumb::hadamard: Block must be a power of two");
  static constexpr char const* name = "hadamard";

  //! Channels of one block.
  KVCRUMB_API static constexpr int block(int head_dim) noexcept {
    int const largest = head_dim & -head_dim;
    return largest < Block ? largest : Block;
  }

  KVCRUMB_API void forward(int, int head_dim, float* x) const noexcept { rotate(head_dim, x); }
  KVCRUMB_API float query(int, int head_dim, float* q) const noexcept {
    rotate(head_dim, q);
    return 0.0f;
  }
  KVCRUMB_API void inverse(int, int head_dim, float* o, float) const noexcept { rotate(head_dim, o); }
  std::uint64_t id(int, int head_dim) const noexcept { return static_cast<std::uint64_t>(block(head_dim)); }

 private:
  KVCRUMB_API static void rotate(int head_dim, float* x) noexcept {
    int const width = block(head_dim);
    int log2 = 0;
    while ((1 << log2) < width)
      ++log2;
    float const root = (log2 & 1) != 0 ? 0.70710678118654752f : 1.0f;
    float const scale = mul_rn(root, 1.0f / static_cast<float>(1 << (log2 / 2)));
    for (int first = 0; first < head_dim; first += width) {
      for (int h = 1; h < width; h *= 2) {
        for (int i = first; i < first + width; i += 2 * h) {
          for (int j = i; j < i + h; ++j) {
            float const a = x[j], b = x[j + h];
            x[j] = add_rn(a, b);
            x[j + h] = sub_rn(a, b);
          }
        }
      }
      for (int i = first; i < first + width; ++i)
        x[i] = mul_rn(x[i], scale);
    }
  }
};

}  // namespace kvcrumb::inline v0
