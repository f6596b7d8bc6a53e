// SPDX-License-Identifier: Apache-2.0
//! @file Transforms of rows that are spread over a warp: lane l holds channels l, l + 32, l + 64, ...
#pragma once

#include "kvcrumb/transform/hadamard.hpp"
#include "kvcrumb/transform/identity.hpp"
#include "kvcrumb/transform/mean_center.hpp"
#include "kvcrumb/warp/query.cuh"

namespace kvcrumb::inline v0::warp {

//! Whether kernels know a transform, and whether it adds a constant to scores.
template <class Transform>
struct transform_traits {
  static constexpr bool supported = false;
  static constexpr bool has_offset = false;
};
template <>
struct transform_traits<identity> {
  static constexpr bool supported = true;
  static constexpr bool has_offset = false;
};
template <int Block>
struct transform_traits<hadamard<Block>> {
  static constexpr bool supported = true;
  static constexpr bool has_offset = false;
};
template <class Next>
struct transform_traits<centered<Next>> {
  static constexpr bool supported = transform_traits<Next>::supported;
  static constexpr bool has_offset = true;
};

//! Sum over the warp, the same in all lanes.
KVCRUMB_DEVICE float warp_sum(float x) {
  KVCRUMB_UNROLL
  for (int i = 1; i < 32; i *= 2)
    x += __shfl_xor_sync(~0u, x, i);
  return x;
}
KVCRUMB_DEVICE float warp_max(float x) {
  KVCRUMB_UNROLL
  for (int i = 1; i < 32; i *= 2)
    x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
  return x;
}

//! The orthonormal Hadamard rotation of hadamard<Block>; its own inverse and transpose.
template <int HeadDim, int Block>
KVCRUMB_DEVICE void rotate(float (&x)[HeadDim / 32], int lane) {
  constexpr int width = hadamard<Block>::block(HeadDim);
  constexpr int log2 = width < 2     ? 0
                       : width < 4   ? 1
                       : width < 8   ? 2
                       : width < 16  ? 3
                       : width < 32  ? 4
                       : width < 64  ? 5
                       : width < 128 ? 6
                       : width < 256 ? 7
                                     : 8;
  KVCRUMB_UNROLL
  for (int h = 1; h < 32 && h < width; h *= 2) {
    KVCRUMB_UNROLL
    for (int e = 0; e < HeadDim / 32; ++e) {
      float const other = __shfl_xor_sync(~0u, x[e], h);
      x[e] = (lane & h) != 0 ? other - x[e] : x[e] + other;
    }
  }
  KVCRUMB_UNROLL
  for (int h = 1; 32 * h < width; h *= 2) {
    KVCRUMB_UNROLL
    for (int e = 0; e < HeadDim / 32; ++e) {
      if ((e & h) != 0) continue;
      float const a = x[e], b = x[e + h];
      x[e] = a + b;
      x[e + h] = a - b;
    }
  }
  constexpr float scale = (log2 & 1 ? 0.70710678118654752f : 1.0f) / static_cast<float>(1 << (log2 / 2));
  KVCRUMB_UNROLL
  for (int e = 0; e < HeadDim / 32; ++e)
    x[e] *= scale;
}

//! transform::query of a row of kv head `head`; returns what must be added to every score.
template <int HeadDim>
KVCRUMB_DEVICE float transform_query(identity, int, float (&)[HeadDim / 32], int) {
  return 0.0f;
}
template <int HeadDim, int Block>
KVCRUMB_DEVICE float transform_query(hadamard<Block>, int, float (&q)[HeadDim / 32], int lane) {
  rotate<HeadDim, Block>(q, lane);
  return 0.0f;
}
template <int HeadDim, class Next>
KVCRUMB_DEVICE float transform_query(centered<Next> const& t, int head, float (&q)[HeadDim / 32], int lane) {
  float sum = 0.0f;
  if (t.means != nullptr) {
    KVCRUMB_UNROLL
    for (int e = 0; e < HeadDim / 32; ++e)
      sum += q[e] * t.means[static_cast<std::int64_t>(head) * HeadDim + 32 * e + lane];
    sum = warp_sum(sum);
  }
  return sum + transform_query<HeadDim>(t.next, head, q, lane);
}

//! transform::inverse of an output row whose weights sum to `sum`.
template <int HeadDim>
KVCRUMB_DEVICE void invert_output(identity, int, float (&)[HeadDim / 32], float, int) {}
template <int HeadDim, int Block>
KVCRUMB_DEVICE void invert_output(hadamard<Block>, int, float (&o)[HeadDim / 32], float, int lane) {
  rotate<HeadDim, Block>(o, lane);
}
template <int HeadDim, class Next>
KVCRUMB_DEVICE void invert_output(centered<Next> const& t, int head, float (&o)[HeadDim / 32], float sum,
                                  int lane) {
  invert_output<HeadDim>(t.next, head, o, sum, lane);
  if (t.means != nullptr) {
    KVCRUMB_UNROLL
    for (int e = 0; e < HeadDim / 32; ++e)
      o[e] += sum * t.means[static_cast<std::int64_t>(head) * HeadDim + 32 * e + lane];
  }
}

}  // namespace kvcrumb::inline v0::warp
