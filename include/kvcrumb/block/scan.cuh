// SPDX-License-Identifier: Apache-2.0
//! @file A prefix sum over the threads of a block.
#pragma once

#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::block {

struct scan_storage {
  std::int64_t warp_sums[32];
};

//! The sum of the values of all threads before this one; `total` becomes the sum of all. Called by the whole
//! block of Threads threads (a multiple of 32); `storage` may be used again after the call.
template <int Threads>
KVCRUMB_DEVICE std::int64_t exclusive_scan(scan_storage& storage, std::int64_t value, std::int64_t& total) {
  int const lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  std::int64_t sum = value;
  KVCRUMB_UNROLL
  for (int i = 1; i < 32; i *= 2) {
    std::int64_t const before = __shfl_up_sync(~0u, sum, static_cast<unsigned>(i));
    if (lane >= i) sum += before;
  }
  if (lane == 31) storage.warp_sums[warp] = sum;
  __syncthreads();
  std::int64_t offset = 0;
  total = 0;
  KVCRUMB_UNROLL
  for (int i = 0; i < Threads / 32; ++i) {
    std::int64_t const s = storage.warp_sums[i];
    if (i < warp) offset += s;
    total += s;
  }
  __syncthreads();
  return offset + sum - value;
}

}  // namespace kvcrumb::inline v0::block
