// SPDX-License-Identifier: Apache-2.0
//! @file Runs CUDA kernel source, compiled as plain C++20, on a CPU: one fibre per CUDA thread, blocks one
//! after another.
//!
//! Include it before anything of kvcrumb (`-include support/simt/simt.hpp`) and without CUDA headers; kernels
//! and their launchers then compile unchanged. This header and those beside it are compiled with the
//! sanitizers of the test; the .cpp files beside it never are. README.md says what this proves and what it
//! cannot.
#pragma once

#define KVCRUMB_SIMT 1

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

//! As in CUDA.
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
//! Those of the running CUDA thread; variables and no macros, because structs of the CUDA runtime have such
//! members.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace simt {

//! Which lane runs next: any that can, or the one with the highest priority, which now and then changes
//! (finds orders that a uniform choice practically never makes).
enum class order { uniform, priority };

//! When copies into shared memory end: at random times, as late as possible, or before the next instruction.
enum class copies { random, late, immediate };

//! How a launch runs. Equal options give equal schedules.
struct options {
  std::uint64_t seed = 1;
  simt::order order = simt::order::uniform;
  simt::copies copies = simt::copies::random;
  int multiprocessors = 4;  //!< what cudaDeviceGetAttribute says
};

//! The options of every launch that names none.
inline options& settings() {
  static options current_settings;
  return current_settings;
}

//! Memory that is read and written as words whatever its type is.
using any_u16 = std::uint16_t __attribute__((may_alias));
using any_u32 = std::uint32_t __attribute__((may_alias));
using any_u64 = std::uint64_t __attribute__((may_alias));

//! The place in the source of an instruction.
struct site {
  char const* file;
  int line;
};
#define SIMT_SITE ::simt::site at = {__builtin_FILE(), __builtin_LINE()}

//! Runs every thread of every block; the arguments are copied once, as a launch does.
void run(dim3 grid_dim, dim3 block_dim, std::size_t dynamic_shared, options const& how, void (*thread)(void*),
         void* context);

template <class... P>
void launch(dim3 grid_dim, dim3 block_dim, std::size_t dynamic_shared, options const& how,
            void (*kernel)(P...), std::type_identity_t<P>... args) {
  struct call {
    void (*kernel)(P...);
    std::tuple<P...> args;
  } c{kernel, std::tuple<P...>(args...)};
  run(
      grid_dim, block_dim, dynamic_shared, how,
      [](void* context) {
        auto const& self = *static_cast<call const*>(context);
        std::apply(self.kernel, self.args);
      },
      &c);
}
template <class... P>
void launch(dim3 grid_dim, dim3 block_dim, std::size_t dynamic_shared, void (*kernel)(P...),
            std::type_identity_t<P>... args) {
  launch<P...>(grid_dim, block_dim, dynamic_shared, settings(), kernel, args...);
}

void first_error(void (*body)(void*), void* context, char* text, std::size_t capacity);
//! The first error of the callable, run in a forked child: the message of the emulator, "data race" or
//! "sanitizer report" in a sanitizer build, "signal N", or nothing. What the callable changes is lost.
template <class Callable>
std::string expect_error(Callable const& callable) {
  char text[4096] = {};  // defined for MSan, which does not see that it is written
  first_error([](void* c) noexcept { (*static_cast<Callable const*>(c))(); },
              const_cast<void*>(static_cast<void const*>(&callable)), text, sizeof(text));
  return text;
}

//! Ends the program with this message (or the child of expect_error).
[[noreturn]] void fail_at(site at, char const* what);

// ---- shared memory

void* shared_allocate(void const* key, std::size_t bytes, std::size_t alignment);
std::byte* shared_dynamic();

//! A static shared variable: the closure type is its name, unique per declaration and template instance.
template <class T, class Key>
T& shared_static(Key) {
  static char const key = 0;
  return *static_cast<T*>(shared_allocate(&key, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

// ---- what instructions are made of

//! A warp operation: all lanes of the mask hand over `in` and get `out`.
struct operation {
  char const* name;
  void (*run)(std::uint32_t mask, void const* const* in, void* const* out);
  bool orders_memory;  //!< __syncwarp only: the others are no fences
  bool aligned;        //!< wants all 32 lanes
};
extern operation const op_sync, op_ballot, op_any, op_all, op_shfl, op_shfl_xor, op_shfl_up, op_shfl_down,
    op_mma, op_transpose;
void collective(operation const& op, std::uint32_t mask, void const* in, void* out, site at);

enum class block_vote { none, any, all, count };
int block_barrier(block_vote vote, bool predicate, site at);

//! A chance for other lanes to run, before an instruction that they can notice.
void preempt();
//! As preempt(), but always.
void yield_lane(site at);
void thread_fence();
//! The memory order of an atomic operation on p: acquires; releases if the thread has executed a
//! __threadfence().
void atomic_order(void const* p);

}  // namespace simt

// ---- MemorySanitizer: arguments of warp operations must be defined

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#define SIMT_MSAN 1
extern "C" void __msan_check_mem_is_initialized(void const volatile*, std::size_t);
extern "C" void __msan_unpoison(void const volatile*, std::size_t);
#endif
#endif
namespace simt {
template <class T>
void require_defined([[maybe_unused]] T const& x) {
#if defined(SIMT_MSAN)
  __msan_check_mem_is_initialized(&x, sizeof(x));
#endif
}
//! What the runtime returned after other lanes ran is defined, whatever these left in MSan's registers.
template <class T>
T defined(T x) {
#if defined(SIMT_MSAN)
  __msan_unpoison(&x, sizeof(x));
#endif
  return x;
}
}  // namespace simt

#include "support/simt/cuda_device.hpp"
#include "support/simt/instructions.hpp"
// after has_bulk_copy
#include "support/simt/cuda_host.hpp"
