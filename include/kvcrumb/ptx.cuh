// SPDX-License-Identifier: Apache-2.0
//! @file Every PTX instruction of the kernels, one small wrapper each (the roundings of numeric/ excepted).
//!
//! Each wrapper has a device body here and an emulated body of the same meaning in tests/support/simt; a
//! conformance test compares the two wherever there is a device. Registers that hold two 16-bit values are
//! std::uint32_t, the low half first. Shared addresses are 32-bit (shared_address). "Warp" wrappers are
//! convergent: all 32 lanes call them together.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0::ptx {

//! The fp16 pattern of 1 in both halves.
inline constexpr std::uint32_t half2_one = 0x3C003C00u;

#if defined(__CUDACC__)

//! Whether the target has the bulk copy and try_wait (sm_90); below it, cp.async takes their place.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool has_bulk_copy = false;
#else
inline constexpr bool has_bulk_copy = true;
#endif

// ---- shared memory

//! 32-bit address of a shared variable.
KVCRUMB_DEVICE std::uint32_t shared_address(void const* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
//! 4, 8 or 16 bytes from shared memory; the address is a multiple of the size.
KVCRUMB_DEVICE std::uint32_t load_shared_32(std::uint32_t address) {
  std::uint32_t r;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(address));
  return r;
}
KVCRUMB_DEVICE void load_shared_64(std::uint32_t (&r)[2], std::uint32_t address) {
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(address));
}
KVCRUMB_DEVICE void load_shared_128(std::uint32_t (&r)[4], std::uint32_t address) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}
KVCRUMB_DEVICE void store_shared_16(std::uint32_t address, std::uint16_t value) {
  asm volatile("st.shared.u16 [%0], %1;" ::"r"(address), "h"(value) : "memory");
}
KVCRUMB_DEVICE void store_shared_32(std::uint32_t address, std::uint32_t value) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// ---- global memory

//! 16 bytes; p is a multiple of 16. Not through the read-only path: a kernel that has begun before its
//! predecessor's end may read what that one wrote.
KVCRUMB_DEVICE void load_global_128(std::uint32_t (&r)[4], void const* p) {
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "l"(p)
               : "memory");
}

// ---- asynchronous copies into shared memory

//! A barrier of 8 bytes that completes a phase after `count` arrivals and all bytes that were announced.
KVCRUMB_DEVICE void barrier_init(std::uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
//! Makes initialized barriers visible to the copy engine; before the __syncthreads() that publishes them.
KVCRUMB_DEVICE void barrier_init_fence() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
//! One arrival that announces `bytes` of bulk copies.
KVCRUMB_DEVICE void barrier_expect(std::uint32_t barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
#endif
}
//! Waits for the end of the phase of this parity (0 for the first phase).
KVCRUMB_DEVICE void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n.reg .pred done;\nwait:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra end;\n"
      "bra wait;\nend:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
#else
  asm volatile(
      "{\n.reg .pred done;\nwait:\nmbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n@done bra end;\n"
      "bra wait;\nend:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
#endif
}
//! Copies `bytes` (a multiple of 16) from global memory; both addresses are multiples of 16. Counts on
//! `barrier`.
KVCRUMB_DEVICE void bulk_copy(std::uint32_t to, void const* from, int bytes, std::uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
#endif
}
//! True in one lane of a converged warp: bulk copies of that lane need no loop over lanes in machine code.
KVCRUMB_DEVICE bool elect_one() {
#if __CUDA_ARCH__ >= 900
  std::uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected != 0;
#else
  return (threadIdx.x & 31u) == 0;
#endif
}
//! Before bulk copies overwrite shared memory that this thread has written itself.
KVCRUMB_DEVICE void async_proxy_fence() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
//! One lane's 16 bytes of a copy, for targets without the bulk copy.
KVCRUMB_DEVICE void copy_async_16(std::uint32_t to, void const* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
//! An arrival of this thread on `barrier` once its earlier copy_async_16 are complete. The barrier counts it.
KVCRUMB_DEVICE void copy_async_arrive(std::uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

// ---- tensor cores (warp)

//! c += A B, mma.m16n8k16 with fp16 operands and fp32 accumulators. With g = lane / 4, t = lane % 4:
//! a0, a1, a2, a3: rows g, g + 8, g, g + 8, columns 2t, 2t + 1 (a0, a1) and 2t + 8, 2t + 9 (a2, a3);
//! b0, b1: k = 2t, 2t + 1 and 2t + 8, 2t + 9 of column g; c: rows g, g, g + 8, g + 8, columns 2t, 2t + 1.
KVCRUMB_DEVICE void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                        std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
//! c = A B: the same without an accumulator, which costs no instruction to clear.
KVCRUMB_DEVICE void multiply(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                             std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
}
//! Transposes an 8 x 8 matrix of 16-bit values, of which each lane holds two neighbours of row lane / 4.
KVCRUMB_DEVICE std::uint32_t transpose_8x8(std::uint32_t a) {
  std::uint32_t r;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(a));
  return r;
}

// ---- arithmetic

//! Both halves: the fp16 product, rounded to nearest even, subnormals kept.
KVCRUMB_DEVICE std::uint32_t multiply_half2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
//! Both halves: a - b and a * b + c, rounded once to nearest even, subnormals kept.
KVCRUMB_DEVICE std::uint32_t subtract_half2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
KVCRUMB_DEVICE std::uint32_t fma_half2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t r;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
  return r;
}
//! Both halves: the smaller and the larger value, -0 below +0; 0x7FFF if either is a NaN.
KVCRUMB_DEVICE std::uint32_t min_half2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("min.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
KVCRUMB_DEVICE std::uint32_t max_half2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
//! a * b, a + b and a * b + c, rounded once to nearest even, then limited to [0, 1]; 0 instead of a NaN.
KVCRUMB_DEVICE float multiply_saturated(float a, float b) {
  float r;
  asm("mul.rn.sat.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
KVCRUMB_DEVICE float add_saturated(float a, float b) {
  float r;
  asm("add.rn.sat.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
KVCRUMB_DEVICE float fma_saturated(float a, float b, float c) {
  float r;
  asm("fma.rn.sat.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c));
  return r;
}
//! Two floats rounded to fp16, `low` in the low half.
KVCRUMB_DEVICE std::uint32_t pack_half2(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
//! The low or the high half as a float.
KVCRUMB_DEVICE float low_half(std::uint32_t x) {
  float r;
  asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, l;}" : "=f"(r) : "r"(x));
  return r;
}
KVCRUMB_DEVICE float high_half(std::uint32_t x) {
  float r;
  asm("{.reg .b16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, h;}" : "=f"(r) : "r"(x));
  return r;
}
//! Two E4M3 values (the low 16 bits of x) as fp16, exactly.
KVCRUMB_DEVICE std::uint32_t half2_from_e4m3x2(std::uint32_t x) {
#if __CUDA_ARCH__ >= 890
  std::uint32_t r;
  asm("{.reg .b16 l;\ncvt.u16.u32 l, %1;\ncvt.rn.f16x2.e4m3x2 %0, l;}" : "=r"(r) : "r"(x));
  return r;
#else  // the same bits with an exponent bias that is 8 too small, times 2^8
  std::uint32_t const bytes = (x & 0xFFu) | (x & 0xFF00u) << 8;
  std::uint32_t const sign = (bytes & 0x00800080u) << 8, magnitude = bytes & 0x007F007Fu;
  std::uint32_t const nan = ((magnitude + 0x00010001u) & 0x00800080u) >> 7;
  return sign | multiply_half2(magnitude << 7, 0x5C005C00u) | nan * 0x7FFFu;
#endif
}
//! 2^x, within 2 units of the last place; subnormal results are 0.
KVCRUMB_DEVICE float exp2_approximate(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
//! 1 / x, within 1 unit of the last place; infinity for 0, 0 for infinity.
KVCRUMB_DEVICE float reciprocal_approximate(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
//! Bytes of {b, a} (b the high word) picked by the four selector digits of `selector`; digits below 8.
KVCRUMB_DEVICE std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint32_t r;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
  return r;
}

// ---- programmatic dependent launch (no-ops below sm_90)

//! Waits until the kernels before this one in the stream have finished; nothing of theirs is read earlier.
KVCRUMB_DEVICE void wait_for_dependencies() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
//! Lets the next kernel of the stream start its prologue.
KVCRUMB_DEVICE void release_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

//! x, of which the compiler knows nothing: what follows from it is computed here and not before.
KVCRUMB_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}
#elif defined(KVCRUMB_SIMT)

using simt::add_saturated, simt::async_proxy_fence, simt::barrier_expect, simt::barrier_init,
    simt::barrier_init_fence, simt::barrier_wait, simt::bulk_copy, simt::copy_async_16,
    simt::copy_async_arrive, simt::elect_one, simt::exp2_approximate, simt::fma_half2, simt::fma_saturated,
    simt::half2_from_e4m3x2, simt::has_bulk_copy, simt::high_half, simt::load_global_128,
    simt::load_shared_128, simt::load_shared_32, simt::load_shared_64, simt::low_half, simt::max_half2,
    simt::min_half2, simt::mma, simt::multiply_half2, simt::multiply_saturated, simt::pack_half2,
    simt::permute_bytes, simt::reciprocal_approximate, simt::release_dependents, simt::shared_address,
    simt::store_shared_16, simt::store_shared_32, simt::subtract_half2, simt::transpose_8x8,
    simt::wait_for_dependencies;
inline int opaque(int x) { return x; }
inline void multiply(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                     std::uint32_t b0, std::uint32_t b1) {
  c[0] = c[1] = c[2] = c[3] = 0.0f;
  mma(c, a0, a1, a2, a3, b0, b1);
}

#else
#error "kvcrumb: a .cuh needs a CUDA compiler"
#endif

}  // namespace kvcrumb::inline v0::ptx
