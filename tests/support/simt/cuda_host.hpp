// SPDX-License-Identifier: Apache-2.0
//! @file Stand-ins for the CUDA runtime that launchers call: a device that does everything at once, in order.
//! Included by simt.hpp only. Numbers are those of an H100.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNotSupported = 801,
  cudaErrorUnknown = 999
};
using cudaStream_t = struct CUstream_st*;
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrL2CacheSize = 38,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4
};
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
union cudaLaunchAttributeValue {
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

namespace simt {

inline constexpr int max_shared_per_block = 232448, max_shared_per_multiprocessor = 233472;
inline constexpr int default_shared_per_block = 48 * 1024;

inline cudaError_t last_error = cudaSuccess;
//! Remembers an error until cudaGetLastError().
inline cudaError_t result(cudaError_t e) {
  if (e != cudaSuccess) {
    last_error = e;
  }
  return e;
}
//! The dynamic shared memory that cudaFuncSetAttribute allowed this kernel; the others may use the default.
//! No std::map: MSan does not see what libstdc++ writes into its nodes.
inline int& dynamic_shared_limit(void const* kernel) {
  struct limit {
    void const* kernel;
    int bytes;
  };
  static std::deque<limit> limits;
  for (limit& l : limits) {
    if (l.kernel == kernel) {
      return l.bytes;
    }
  }
  limits.push_back({kernel, default_shared_per_block});
  return limits.back().bytes;
}

}  // namespace simt

inline char const* cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDeviceFunction: return "invalid device function";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotSupported: return "operation not supported";
    default: return "unknown error";
  }
}
inline cudaError_t cudaPeekAtLastError() { return simt::last_error; }
inline cudaError_t cudaGetLastError() {
  cudaError_t const e = simt::last_error;
  simt::last_error = cudaSuccess;
  return e;
}

// ---- the device

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return simt::result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) {
    return simt::result(cudaErrorInvalidDevice);
  }
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = simt::default_shared_per_block; break;
    case cudaDevAttrMultiProcessorCount: *value = simt::settings().multiprocessors; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    case cudaDevAttrComputeCapabilityMajor: *value = simt::has_bulk_copy ? 9 : 8; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = simt::max_shared_per_multiprocessor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = simt::max_shared_per_block; break;
    default: return simt::result(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

// ---- launches

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || value > simt::max_shared_per_block) {
      return simt::result(cudaErrorInvalidValue);
    }
    simt::dynamic_shared_limit(reinterpret_cast<void const*>(kernel)) = value;
  }
  return cudaSuccess;
}
//! From threads and dynamic shared memory only: registers and static shared memory are not known here.
template <class... P>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void (*)(P...), int threads,
                                                          std::size_t dynamic_shared) {
  if (threads < 1 || threads > 1024) {
    return simt::result(cudaErrorInvalidValue);
  }
  int const reserved = 1024;  // what the system takes of each block's shared memory
  int const by_shared = simt::max_shared_per_multiprocessor / (static_cast<int>(dynamic_shared) + reserved);
  *blocks = std::min({32, 2048 / ((threads + 31) / 32 * 32), by_shared});
  return cudaSuccess;
}
//! As simt::launch with the current options, after the checks of a real launch.
template <class... P>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(P...),
                               std::type_identity_t<P>... args) {
  dim3 const g = config->gridDim, b = config->blockDim;
  std::uint64_t const threads = std::uint64_t{b.x} * b.y * b.z;
  bool const fits = g.x != 0 && g.x <= 0x7FFFFFFFu && g.y != 0 && g.y <= 65535 && g.z != 0 && g.z <= 65535 &&
                    threads != 0 && threads <= 1024 && b.z <= 64;
  if (!fits) {
    return simt::result(cudaErrorInvalidConfiguration);
  }
  int const limit = simt::dynamic_shared_limit(reinterpret_cast<void const*>(kernel));
  if (config->dynamicSmemBytes > static_cast<std::size_t>(limit)) {
    return simt::result(cudaErrorInvalidValue);
  }
  simt::launch<P...>(g, b, config->dynamicSmemBytes, kernel, args...);
  return cudaSuccess;
}

// ---- memory: the host's

//! Undefined bytes, aligned as cudaMalloc's.
inline cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  return simt::result(::posix_memalign(p, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}
template <class T>
cudaError_t cudaMalloc(T** p, std::size_t bytes) {
  void* memory = nullptr;
  cudaError_t const e = cudaMalloc(&memory, bytes);
  *p = static_cast<T*>(memory);
  return e;
}
inline cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, void const* from, std::size_t bytes, cudaMemcpyKind) {
  if (bytes != 0) {
    std::memmove(to, from, bytes);
  }
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t = nullptr) {
  return cudaMemcpy(to, from, bytes, kind);
}
inline cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  if (bytes != 0) {
    std::memset(to, value, bytes);
  }
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t = nullptr) {
  return cudaMemset(to, value, bytes);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
