// SPDX-License-Identifier: Apache-2.0
//! @file Compiler detection and every macro of the library; nothing else defines one.
#pragma once

#if defined(_MSVC_LANG) ? _MSVC_LANG < 202002L : __cplusplus < 202002L
#error "kvcrumb: C++20 is required (g++ 10+, clang++ 14+, nvcc 12+ with -std=c++20)"
#endif

#include <bit>
#include <cstddef>
#include <cstdint>

static_assert(std::endian::native == std::endian::little,
              "kvcrumb: the byte format is little-endian and so must be the machine");

//! KVCRUMB_API marks every function that host and device code share.
#if defined(__CUDACC__)
#define KVCRUMB_API __host__ __device__ __forceinline__
#else
#define KVCRUMB_API inline
#endif

//! KVCRUMB_CALLS_ANY stands before a template for host and device that calls what it is given, so that nvcc
//! does not warn where that is a host function.
#if defined(__CUDACC__)
#define KVCRUMB_CALLS_ANY _Pragma("nv_exec_check_disable")
#else
#define KVCRUMB_CALLS_ANY
#endif

//! What kernels are written with. A .cuh is device code for a CUDA compiler, or plain C++ for the emulator of
//! the tests, which defines KVCRUMB_SIMT and is included before it (docs/cuda.md).
//! - KVCRUMB_DEVICE marks device functions, KVCRUMB_UNROLL the loops that must be unrolled,
//!   KVCRUMB_KEEP_ROLLED those that must not
//! - KVCRUMB_SHARED(Type, name) declares a static shared variable, KVCRUMB_SHARED_DYNAMIC(name) the dynamic
//! array
#if defined(__CUDACC__)
#define KVCRUMB_DEVICE __device__ __forceinline__
#define KVCRUMB_UNROLL _Pragma("unroll")
#define KVCRUMB_KEEP_ROLLED _Pragma("unroll 1")
#define KVCRUMB_SHARED(Type, name) __shared__ __align__(16) Type name
#define KVCRUMB_SHARED_DYNAMIC(name) extern __shared__ __align__(128) std::byte name[]
#elif defined(KVCRUMB_SIMT)
#define KVCRUMB_DEVICE inline
#define KVCRUMB_UNROLL
#define KVCRUMB_KEEP_ROLLED
#define KVCRUMB_SHARED(Type, name) auto& name = ::simt::shared_static<Type>([] {})
#define KVCRUMB_SHARED_DYNAMIC(name) std::byte* const name = ::simt::shared_dynamic()
#endif

//! KVCRUMB_ASSERT checks a precondition in debug builds; it is empty when NDEBUG is set and never traps in
//! release.
#if !defined(KVCRUMB_ASSERT)
#if defined(NDEBUG)
#define KVCRUMB_ASSERT(condition) static_cast<void>(0)
#else
#include <cassert>
#define KVCRUMB_ASSERT(condition) assert(condition)
#endif
#endif

//! KVCRUMB_OPAQUE(x) hides a float or double variable from the optimizer, so that no rounding step is fused,
//! reordered or replaced by a reciprocal. Always on: a function's target attribute or single fast-math flags
//! leave no macro to test (seen with g++ 12.2 and clang++ 14).
#if defined(__CUDA_ARCH__)
#define KVCRUMB_OPAQUE(x) static_cast<void>(0)
#elif defined(__x86_64__) && defined(__GNUC__)
#define KVCRUMB_OPAQUE(x) __asm__ volatile("" : "+x"(x))
#elif defined(__aarch64__) && defined(__GNUC__)
#define KVCRUMB_OPAQUE(x) __asm__ volatile("" : "+w"(x))
#else
#define KVCRUMB_OPAQUE(x)                \
  do {                                   \
    auto volatile kvcrumb_opaque_ = (x); \
    (x) = kvcrumb_opaque_;               \
  } while (false)
#endif
