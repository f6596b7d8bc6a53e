// SPDX-License-Identifier: Apache-2.0
//! @file CUDA's device functions, as far as kernels here may use them. Included by simt.hpp only.
#pragma once

#include <bit>
#include <cstring>

// ---- barriers

inline void __syncthreads(SIMT_SITE) { simt::block_barrier(simt::block_vote::none, false, at); }
inline int __syncthreads_or(int predicate, SIMT_SITE) {
  simt::require_defined(predicate);
  return simt::defined(simt::block_barrier(simt::block_vote::any, predicate != 0, at));
}
inline int __syncthreads_and(int predicate, SIMT_SITE) {
  simt::require_defined(predicate);
  return simt::defined(simt::block_barrier(simt::block_vote::all, predicate != 0, at));
}
inline int __syncthreads_count(int predicate, SIMT_SITE) {
  simt::require_defined(predicate);
  return simt::defined(simt::block_barrier(simt::block_vote::count, predicate != 0, at));
}
inline void __syncwarp(unsigned mask = ~0u, SIMT_SITE) {
  simt::collective(simt::op_sync, mask, nullptr, nullptr, at);
}

// ---- votes and shuffles

namespace simt {

inline std::uint32_t vote(operation const& op, unsigned mask, int predicate, site at) {
  require_defined(predicate);
  std::uint32_t r = 0;
  collective(op, mask, &predicate, &r, at);
  return r;
}

struct shuffle_input {
  std::uint64_t value;
  int source;  //!< a lane, the distance or the mask of lane bits
  int width;
};
template <class T>
T shuffle(operation const& op, unsigned mask, T value, int source, int width, site at) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "as CUDA's overloads");
  require_defined(value);
  require_defined(source);
  shuffle_input in{0, source, width};
  std::memcpy(&in.value, &value, sizeof(T));
  std::uint64_t r = 0;
  collective(op, mask, &in, &r, at);
  std::memcpy(&value, &r, sizeof(T));
  return value;
}

}  // namespace simt

namespace simt {
//! True in one lane, which the instruction does not promise to be the first.
inline bool elect_one(SIMT_SITE) {
  vote(op_any, ~0u, 1, at);
  return (threadIdx.x & 31u) == 31u;
}
}  // namespace simt

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return simt::vote(simt::op_ballot, mask, predicate, at);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::vote(simt::op_any, mask, predicate, at));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::vote(simt::op_all, mask, predicate, at));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::op_shfl, mask, value, source, width, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::op_shfl_xor, mask, value, lane_mask, width, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::op_shfl_up, mask, value, static_cast<int>(delta), width, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::op_shfl_down, mask, value, static_cast<int>(delta), width, at);
}

// ---- atomics: relaxed, as CUDA's are; __threadfence() gives them their order

namespace simt {

//! Sets *p to x, and the old value must be `old`: a lane is never interrupted within an atomic operation. The
//! builtins tell TSan that it is one.
inline void atomic_set(void* p, std::uint32_t old, std::uint32_t x) {
  __atomic_compare_exchange_n(static_cast<any_u32*>(p), &old, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
inline void atomic_set(void* p, std::uint64_t old, std::uint64_t x) {
  __atomic_compare_exchange_n(static_cast<any_u64*>(p), &old, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
inline void atomic_get(void const* p, std::uint32_t& x) {
  x = __atomic_load_n(static_cast<any_u32 const*>(p), __ATOMIC_RELAXED);
}
inline void atomic_get(void const* p, std::uint64_t& x) {
  x = __atomic_load_n(static_cast<any_u64 const*>(p), __ATOMIC_RELAXED);
}
//! *p = f(*p), and the old value.
template <class T, class F>
T atomic_update(T* p, F f) {
  preempt();
  atomic_order(p);
  std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t> old;
  atomic_get(p, old);
  atomic_set(p, old, std::bit_cast<decltype(old)>(f(std::bit_cast<T>(old))));
  return std::bit_cast<T>(old);
}
template <class T>
concept atomic_integer =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

}  // namespace simt

template <class T>
  requires(simt::atomic_integer<T> || std::is_same_v<T, float>)
T atomicAdd(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) {
    if constexpr (std::is_same_v<T, int>) {  // wraps around
      return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(x));
    } else {
      return static_cast<T>(old + x);
    }
  });
}
template <simt::atomic_integer T>
T atomicMax(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) { return old < x ? x : old; });
}
template <simt::atomic_integer T>
T atomicMin(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) { return x < old ? x : old; });
}
template <simt::atomic_integer T>
T atomicOr(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) { return static_cast<T>(old | x); });
}
template <simt::atomic_integer T>
T atomicAnd(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) { return static_cast<T>(old & x); });
}
template <class T>
  requires(simt::atomic_integer<T> || std::is_same_v<T, float>)
T atomicExch(T* p, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T) { return x; });
}
template <simt::atomic_integer T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  return simt::atomic_update(p, [&](T old) { return old == expected ? x : old; });
}
inline void __threadfence() { simt::thread_fence(); }
inline void __threadfence_block() { simt::thread_fence(); }
inline void __nanosleep(unsigned, SIMT_SITE) { simt::yield_lane(at); }

// ---- bits and loads

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (unsigned i = 0; i < 32; ++i) {
    r |= ((x >> i) & 1u) << (31u - i);
  }
  return r;
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
template <class T>
T __ldg(T const* p) {
  return *p;
}
