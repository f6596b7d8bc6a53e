// SPDX-License-Identifier: Apache-2.0
//! @file Memory that host and kernels both see, so that one source of a test runs under the emulator and on a
//! device.
#pragma once

#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include <cuda_runtime.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#endif

namespace kvcrumb::test {

//! Waits for all kernels; the host reads what they wrote only behind it. Throws what the device reports.
inline void synchronize() {
#if defined(__CUDACC__)
  if (cudaError_t const e = cudaDeviceSynchronize(); e != cudaSuccess)
    throw std::runtime_error(std::string("device: ") + cudaGetErrorString(e));
#endif
}

#if defined(__CUDACC__)

//! Blocks of powers of two that are used again; one of these per program, never destroyed.
//!
//! $KVCRUMB_TEST_MEMORY: `pinned` host memory (default: the host may touch it at any time on any system) or
//! `managed`; with `-each` behind it, every block is an allocation of its own, of exact size, which is what
//! compute-sanitizer needs to see overruns.
class device_memory_pool {
 public:
  static device_memory_pool& instance() {
    static auto* const pool = new device_memory_pool;
    return *pool;
  }
  void* take(std::size_t bytes) {
    if (each_) return allocate(bytes);
    int const order = order_of(bytes);
    std::vector<void*>& blocks = free_[order];
    if (!blocks.empty()) {
      void* const p = blocks.back();
      blocks.pop_back();
      return p;
    }
    std::size_t const size = std::size_t{1} << order;
    if (size > left_) {
      left_ = size > chunk_bytes ? size : chunk_bytes;
      at_ = static_cast<std::byte*>(allocate(left_));
    }
    void* const p = at_;
    at_ += size;
    left_ -= size;
    return p;
  }
  void give(void* p, std::size_t bytes) {
    static_cast<void>(cudaDeviceSynchronize());  // a kernel may still use it
    if (each_) {
      static_cast<void>(managed_ ? cudaFree(p) : cudaFreeHost(p));
    } else {
      free_[order_of(bytes)].push_back(p);
    }
  }

 private:
  static constexpr std::size_t chunk_bytes = std::size_t{16} << 20;

  device_memory_pool() {
    char const* const text = std::getenv("KVCRUMB_TEST_MEMORY");
    managed_ = text != nullptr && std::strncmp(text, "managed", 7) == 0;
    each_ = text != nullptr && std::strstr(text, "-each") != nullptr;
  }
  static int order_of(std::size_t bytes) {
    return bytes <= 256 ? 8 : static_cast<int>(std::bit_width(bytes - 1));
  }
  void* allocate(std::size_t bytes) const {
    void* p = nullptr;
    cudaError_t const e =
        managed_ ? cudaMallocManaged(&p, bytes) : cudaHostAlloc(&p, bytes, cudaHostAllocDefault);
    if (e != cudaSuccess) throw std::runtime_error(std::string("device memory: ") + cudaGetErrorString(e));
    return p;
  }

  bool managed_ = false, each_ = false;
  std::byte* at_ = nullptr;
  std::size_t left_ = 0;
  std::vector<void*> free_[64];
};

#endif

//! Memory on a multiple of 64 bytes: of device_memory_pool on a device, the program's own under the emulator
//! (of exact size, so that ASan sees overruns).
template <class T>
struct device_allocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};

  device_allocator() = default;
  template <class U>
  device_allocator(device_allocator<U> const&) {}

  T* allocate(std::size_t n) {
#if defined(__CUDACC__)
    return static_cast<T*>(device_memory_pool::instance().take(n * sizeof(T)));
#else
    return static_cast<T*>(::operator new(n * sizeof(T), alignment));
#endif
  }
  void deallocate(T* p, [[maybe_unused]] std::size_t n) {
#if defined(__CUDACC__)
    device_memory_pool::instance().give(p, n * sizeof(T));
#else
    ::operator delete(p, alignment);
#endif
  }
  friend bool operator==(device_allocator const&, device_allocator const&) { return true; }
};

template <class T>
using device_vector = std::vector<T, device_allocator<T>>;

}  // namespace kvcrumb::test
