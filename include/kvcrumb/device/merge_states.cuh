// SPDX-License-Identifier: Apache-2.0
//! @file merge_states: attention over disjoint sets of tokens, joined from outputs and log-sum-exps.
#pragma once

#include "kvcrumb/device/checks.cuh"
#include "kvcrumb/device/launch.cuh"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/softmax_state.hpp"

namespace kvcrumb::inline v0 {

namespace kernel {

inline constexpr int merge_warps = 4;

//! One warp joins the parts of one row.
template <class T>
__global__ void __launch_bounds__(32 * merge_warps)
    merge_states_kernel(T const* o, float const* lse, int parts, std::int64_t rows, int head_dim, T* out,
                        float* out_lse) {
  std::int64_t const row = static_cast<std::int64_t>(blockIdx.x) * merge_warps + threadIdx.x / 32;
  int const lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= rows) return;
  float top = negative_infinity;
  bool empty = true;
  for (int i = 0; i < parts; ++i) {
    float const part = lse[i * rows + row];
    empty = empty && part == negative_infinity;
    top = fmaxf(top, part);  // ignores NaN, which the sum does not
  }
  float sum = 0.0f;
  for (int i = 0; i < parts; ++i) {
    float const part = lse[i * rows + row];
    sum += part == negative_infinity ? 0.0f : ::expf(part - top);
  }
  for (int d = lane; d < head_dim; d += 32) {
    float x = 0.0f;
    for (int i = 0; i < parts; ++i) {
      float const part = lse[i * rows + row];
      if (part == negative_infinity) continue;  // an empty part may hold anything
      x += ::expf(part - top) * to_float(o[(i * rows + row) * head_dim + d]);
    }
    out[row * head_dim + d] = from_float<T>(empty ? 0.0f : x / sum);
  }
  __syncwarp();  // all have read the row, which out_lse may be a part of
  if (lane == 0 && out_lse != nullptr) out_lse[row] = empty ? negative_infinity : top + ::logf(sum);
}

}  // namespace kernel

namespace device {

//! Joins `parts` results over disjoint sets of tokens (cascades, context parallelism, a cache beside ours):
//! outputs [parts][rows][head_dim] and natural log-sum-exps [parts][rows] to out [rows][head_dim] and out_lse
//! [rows] (may be null). A part with log-sum-exp -inf counts for nothing; if all are, the output is 0 and
//! out_lse -inf; a NaN makes its row NaN. T is float16, bfloat16 or float. `out` may not overlap `o`; out_lse
//! may be one part of lse. Errors: cudaErrorInvalidValue for null or misaligned pointers, parts < 1, rows
//! outside [0, 2^31], head_dim outside [1, 1024].
template <class T>
[[nodiscard]] cudaError_t merge_states(T const* o, float const* lse, int parts, std::int64_t rows,
                                       int head_dim, T* out, float* out_lse,
                                       cudaStream_t stream = nullptr) noexcept {
  if (parts < 1 || rows < 0 || rows > (std::int64_t{1} << 31) || head_dim < 1 || head_dim > max_head_dim) {
    return cudaErrorInvalidValue;
  }
  if (rows == 0) return cudaSuccess;
  if (o == nullptr || lse == nullptr || out == nullptr || !detail::aligned(o, alignof(T)) ||
      !detail::aligned(out, alignof(T)) || !detail::aligned(lse, 4) || !detail::aligned(out_lse, 4)) {
    return cudaErrorInvalidValue;
  }
  auto const blocks = static_cast<unsigned>((rows + kernel::merge_warps - 1) / kernel::merge_warps);
  return launch(kernel::merge_states_kernel<T>, dim3(blocks), dim3(32 * kernel::merge_warps), 0, stream, o,
                lse, parts, rows, head_dim, out, out_lse);
}

}  // namespace device
}  // namespace kvcrumb::inline v0
