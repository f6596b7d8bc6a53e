// SPDX-License-Identifier: Apache-2.0
//! @file Launching a kernel: the one place that knows how, for CUDA and for the emulator of the tests.
#pragma once

#include <type_traits>

#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::device {

//! Whether a kernel may begin before its predecessor in the stream has ended (programmatic dependent launch,
//! sm_90). Such a kernel calls ptx::wait_for_dependencies() before it reads or writes anything of the others.
enum class dependency : std::uint8_t { full, programmatic };

//! Launches kernel(args...) in `stream`; never synchronizes. Dynamic shared memory beyond 48 KB is asked for.
template <dependency Dependency = dependency::full, class... P>
[[nodiscard]] cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                                 cudaStream_t stream, std::type_identity_t<P>... args) {
  if (shared_bytes > std::size_t{48} << 10) {
    cudaError_t const e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(shared_bytes));
    if (e != cudaSuccess) return e;
  }
#if defined(__CUDACC__)
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  if constexpr (Dependency == dependency::programmatic) {
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, args...);
#else
  static_cast<void>(stream);
  simt::launch(grid, block, shared_bytes, kernel, args...);
  return cudaGetLastError();
#endif
}

}  // namespace kvcrumb::inline v0::device
