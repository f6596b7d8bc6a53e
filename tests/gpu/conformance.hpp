// SPDX-License-Identifier: Apache-2.0
//! @file What the two halves of the conformance test share: one is compiled by nvcc, the other with the
//! emulator.
#pragma once

#include <cstdint>
#include <vector>

namespace kvcrumb::conformance {

using words = std::vector<std::uint32_t>;

//! The wrappers of ptx.cuh, and the conversions that are instructions on a device and integer steps
//! elsewhere. The first ones map words to a word each, the others need a warp.
enum class wrapper {
  to_float,
  from_float,
  from_float_saturate,
  round_half_even,
  multiply_half2,
  subtract_half2,
  fma_half2,
  min_half2,
  max_half2,
  multiply_saturated,
  add_saturated,
  fma_saturated,
  pack_half2,
  low_half,
  high_half,
  half2_from_e4m3x2,
  exp2_approximate,
  reciprocal_approximate,
  permute_bytes,
  mma,
  multiply,
  transpose_8x8,
  shared_memory,
  bulk_copy,
  copy_async,
  proxy_fence,
  load_global_128,
};

//! Words that an item (elementwise) or a lane of an item (warp) reads and writes.
struct traffic {
  int in, out;
  bool warp;
};
constexpr traffic traffic_of(wrapper w) {
  switch (w) {
    case wrapper::multiply_half2:
    case wrapper::subtract_half2:
    case wrapper::min_half2:
    case wrapper::max_half2:
    case wrapper::multiply_saturated:
    case wrapper::add_saturated:
    case wrapper::pack_half2: return {2, 1, false};
    case wrapper::fma_half2:
    case wrapper::fma_saturated:
    case wrapper::permute_bytes: return {3, 1, false};
    case wrapper::mma:
    case wrapper::multiply: return {10, 4, true};
    case wrapper::transpose_8x8: return {1, 1, true};
    case wrapper::shared_memory: return {4, 12, true};
    case wrapper::bulk_copy:
    case wrapper::copy_async:
    case wrapper::proxy_fence:
    case wrapper::load_global_128: return {4, 4, true};
    default: return {1, 1, false};
  }
}

//! The emulator's results; `in` holds items [item][lane][word]. Defined in conformance_emulated.cpp.
words emulated(wrapper w, words const& in);

}  // namespace kvcrumb::conformance
