// SPDX-License-Identifier: Apache-2.0
//! @file The emulated half of the conformance test: compiled as plain C++ with support/simt/simt.hpp included
//! first.
#include "gpu/conformance.hpp"
// after simt.hpp
#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/ptx.cuh"

namespace kvcrumb::conformance {

namespace {

#include "gpu/conformance_kernels.inl"

}  // namespace

words emulated(wrapper w, words const& in) {
  traffic const t = traffic_of(w);
  int const n = static_cast<int>(in.size()) / t.in, items = n / 32;
  words out(static_cast<std::size_t>(n * t.out));
  if (!t.warp) {
    for (int i = 0; i < n; ++i)
      out[static_cast<std::size_t>(i)] = apply(w, in.data() + i * t.in);
    return out;
  }
  dim3 const one(1), warp(32);
  switch (w) {
    case wrapper::mma:
    case wrapper::multiply:
      simt::launch(one, warp, 0, mma_kernel, in.data(), out.data(), items, w == wrapper::mma);
      break;
    case wrapper::transpose_8x8:
      simt::launch(one, warp, 0, transpose_kernel, in.data(), out.data(), items);
      break;
    case wrapper::shared_memory:
      simt::launch(one, warp, 0, shared_kernel, in.data(), out.data(), items);
      break;
    case wrapper::bulk_copy:
      simt::launch(one, warp, 0, bulk_kernel, in.data(), out.data(), items, false);
      break;
    case wrapper::proxy_fence:
      simt::launch(one, warp, 0, bulk_kernel, in.data(), out.data(), items, true);
      break;
    case wrapper::copy_async: simt::launch(one, warp, 0, async_kernel, in.data(), out.data(), items); break;
    default: simt::launch(one, warp, 0, global_kernel, in.data(), out.data(), items); break;
  }
  return out;
}

}  // namespace kvcrumb::conformance
