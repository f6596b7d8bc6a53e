// SPDX-License-Identifier: Apache-2.0
//! @file Launching a kernel: the one place that knows how, for CUDA and for the emulator of the tests.
#pragma once

#include <type_traits>

#include "kvcrumb/ptx.cuh"

namespace kvcrumb::inline v0::device {

//! Whether a kernel may begin before its predecessor in the stream has ended (programmatic dependent launch,
//! sm_90). Such a kernel calls ptx::wait_for_dependencies() before it reads or writes anything of the others.
enum class dependency : std::uint8_t { full, programmatic };

//! Dynamic shared memory of a launch, and the most that any launch of the kernel uses: that much is allowed
//! at once, so that threads which launch the same kernel do not take it from each other.
struct dynamic_shared {
  std::size_t bytes, most;

  constexpr dynamic_shared(std::size_t n) noexcept : bytes(n), most(n) {}
  constexpr dynamic_shared(std::size_t n, std::size_t largest) noexcept : bytes(n), most(largest) {}
};

//! Launches kernel(args...) in `stream`; never synchronizes. Asks for much shared memory where that is needed
//! (beyond 48 KB, of which static shared memory is a part).
template <dependency Dependency = dependency::full, class... P>
[[nodiscard]] cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, dynamic_shared shared,
                                 cudaStream_t stream, std::type_identity_t<P>... args) {
  std::size_t const shared_bytes = shared.bytes;
  if (shared_bytes > std::size_t{32} << 10) {
    auto const allow = [&](std::size_t bytes) {
      return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes));
    };
    cudaError_t e = allow(shared.most);
    if (e != cudaSuccess && shared.most > shared_bytes) {  // more than this device has
      static_cast<void>(cudaGetLastError());
      e = allow(shared_bytes);
    }
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
