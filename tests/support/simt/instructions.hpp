// SPDX-License-Identifier: Apache-2.0
//! @file The emulated bodies of kvcrumb/ptx.cuh; their meaning is written there. Included by simt.hpp only.
#pragma once

#include <bit>
#include <cmath>

namespace simt {

#if defined(KVCRUMB_SIMT_NO_BULK_COPY)
inline constexpr bool has_bulk_copy = false;
#else
inline constexpr bool has_bulk_copy = true;
#endif

// ---- the runtime's part

enum class access { load, store, barrier };
//! The byte at a shared address; `bytes` of one array must begin there.
void* shared_at(std::uint32_t address, std::uint32_t bytes, access kind, site at);
std::uint32_t address_of_shared(void const* p, site at);
//! What barrier_init leaves in the barrier's 8 bytes; anything else there later means that they were
//! overwritten.
inline constexpr std::uint64_t barrier_content = 0x6B76'6372'756D'6221u;
void barrier_create(std::uint32_t barrier, int count, site at);
void barrier_arrive_expect(std::uint32_t barrier, int bytes, site at);
void barrier_block(std::uint32_t barrier, std::uint32_t parity, site at);
void copy_bulk(std::uint32_t to, void const* from, int bytes, std::uint32_t barrier, site at);
void copy_16(std::uint32_t to, void const* from, site at);
void copy_arrive(std::uint32_t barrier, site at);
void proxy_fence();

//! Reads the barrier as any thread that uses it does, so that TSan sees a missing __syncthreads() after its
//! init.
inline void read_barrier(std::uint32_t barrier, site at) {
  preempt();
  if (*static_cast<any_u64 const*>(shared_at(barrier, 8, access::barrier, at)) != barrier_content) {
    fail_at(at, "barrier used before barrier_init, or overwritten");
  }
}

// ---- shared and global memory

inline std::uint32_t shared_address(void const* p, SIMT_SITE) { return address_of_shared(p, at); }

template <int Words>
inline void load_shared_words(std::uint32_t (&r)[Words], std::uint32_t address, site at) {
  require_defined(address);
  preempt();
  auto const* p = static_cast<any_u32 const*>(shared_at(address, 4 * Words, access::load, at));
  for (int i = 0; i < Words; ++i) {
    r[i] = p[i];
  }
}
inline std::uint32_t load_shared_32(std::uint32_t address, SIMT_SITE) {
  std::uint32_t r[1];
  load_shared_words(r, address, at);
  return r[0];
}
inline void load_shared_64(std::uint32_t (&r)[2], std::uint32_t address, SIMT_SITE) {
  load_shared_words(r, address, at);
}
inline void load_shared_128(std::uint32_t (&r)[4], std::uint32_t address, SIMT_SITE) {
  load_shared_words(r, address, at);
}
inline void store_shared_16(std::uint32_t address, std::uint16_t value, SIMT_SITE) {
  require_defined(address);
  preempt();
  *static_cast<any_u16*>(shared_at(address, 2, access::store, at)) = value;
}
inline void store_shared_32(std::uint32_t address, std::uint32_t value, SIMT_SITE) {
  require_defined(address);
  preempt();
  *static_cast<any_u32*>(shared_at(address, 4, access::store, at)) = value;
}
inline void load_global_128(std::uint32_t (&r)[4], void const* p, SIMT_SITE) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) {
    fail_at(at, "load_global_128: the address is not a multiple of 16");
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = static_cast<any_u32 const*>(p)[i];
  }
}

// ---- barriers and asynchronous copies

inline void barrier_init(std::uint32_t barrier, int count, SIMT_SITE) {
  preempt();
  *static_cast<any_u64*>(shared_at(barrier, 8, access::barrier, at)) = barrier_content;
  barrier_create(barrier, count, at);
}
inline void barrier_init_fence() {}  // not modelled
inline void barrier_expect(std::uint32_t barrier, int bytes, SIMT_SITE) {
  if constexpr (!has_bulk_copy) {
    fail_at(at, "barrier_expect on a target without bulk copies");
  }
  read_barrier(barrier, at);
  barrier_arrive_expect(barrier, bytes, at);
}
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity, SIMT_SITE) {
  require_defined(parity);
  read_barrier(barrier, at);
  barrier_block(barrier, parity, at);
}
inline void bulk_copy(std::uint32_t to, void const* from, int bytes, std::uint32_t barrier, SIMT_SITE) {
  if constexpr (!has_bulk_copy) {
    fail_at(at, "bulk_copy on a target without bulk copies");
  }
  read_barrier(barrier, at);
  copy_bulk(to, from, bytes, barrier, at);
}
inline void async_proxy_fence() { proxy_fence(); }
inline void copy_async_16(std::uint32_t to, void const* from, SIMT_SITE) {
  preempt();
  copy_16(to, from, at);
}
inline void copy_async_arrive(std::uint32_t barrier, SIMT_SITE) {
  read_barrier(barrier, at);
  copy_arrive(barrier, at);
}

// ---- tensor cores

struct mma_input {
  std::uint32_t a[4], b[2];
  float c[4];
};
inline void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                std::uint32_t b0, std::uint32_t b1, SIMT_SITE) {
  mma_input const in{{a0, a1, a2, a3}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  require_defined(in);
  collective(op_mma, ~0u, &in, c, at);
}
inline std::uint32_t transpose_8x8(std::uint32_t a, SIMT_SITE) {
  require_defined(a);
  std::uint32_t r = 0;
  collective(op_transpose, ~0u, &a, &r, at);
  return r;
}

// ---- arithmetic, exact to the bit

//! The value of an fp16 pattern.
inline float half_to_float(std::uint32_t h) {
  std::uint32_t const exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu, sign = (h & 0x8000u) << 16;
  if (exponent == 0) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24f) | sign);
  }
  return std::bit_cast<float>(sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) |
                              mantissa << 13);
}
//! The nearest fp16 pattern, ties to even, subnormals kept, overflow to infinity, every NaN 0x7FFF.
inline std::uint32_t float_to_half(float x) {
  std::uint32_t const bits = std::bit_cast<std::uint32_t>(x), sign = (bits >> 16) & 0x8000u;
  std::uint32_t const magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {
    return 0x7FFFu;
  }
  if (magnitude >= 0x477FF000u) {  // 65520
    return sign | 0x7C00u;
  }
  if (magnitude < 0x38800000u) {  // below the normal numbers: at 0.5 the unit of a float is 2^-24
    float const shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000u);
  }
  return sign | (((magnitude + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10));
}
inline std::uint32_t pack_half2(float low, float high) {
  return float_to_half(low) | float_to_half(high) << 16;
}
inline float low_half(std::uint32_t x) { return half_to_float(x & 0xFFFFu); }
inline float high_half(std::uint32_t x) { return half_to_float(x >> 16); }
//! A product of two 11-bit significands is exact in a float, so that it is rounded once.
inline std::uint32_t multiply_half2(std::uint32_t a, std::uint32_t b) {
  return pack_half2(low_half(a) * low_half(b), high_half(a) * high_half(b));
}
//! As double: at most 11 + 41 bits, so that the sum is exact. Rounding it to a float first would be seen only
//! at a middle between two fp16 values that the float reached by rounding, hence the odd bit.
inline std::uint32_t double_to_half(double x) {
  float f = static_cast<float>(x);
  std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
  if (static_cast<double>(f) != x && std::isfinite(f)) {
    if (std::fabs(static_cast<double>(f)) > std::fabs(x)) --bits;  // toward zero, then odd
    bits |= 1u;
    f = std::bit_cast<float>(bits);
  }
  return float_to_half(f);
}
template <class F>
std::uint32_t each_half(F f) {
  return f(0u) | f(16u) << 16;
}
inline std::uint32_t subtract_half2(std::uint32_t a, std::uint32_t b) {
  return each_half([&](std::uint32_t s) {
    return double_to_half(static_cast<double>(half_to_float(a >> s & 0xFFFFu)) -
                          static_cast<double>(half_to_float(b >> s & 0xFFFFu)));
  });
}
inline std::uint32_t fma_half2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return each_half([&](std::uint32_t s) {
    float const product = half_to_float(a >> s & 0xFFFFu) * half_to_float(b >> s & 0xFFFFu);  // exact
    double const addend = half_to_float(c >> s & 0xFFFFu), sum = static_cast<double>(product) + addend;
    double const part = sum - product, error = (product - (sum - part)) + (addend - part);
    std::uint64_t bits = std::bit_cast<std::uint64_t>(sum);
    if (error != 0.0 && (bits & 1u) == 0u) bits += (error > 0.0) == (sum > 0.0) ? 1u : ~std::uint64_t{0};
    return double_to_half(std::isfinite(sum) ? std::bit_cast<double>(bits) : sum);
  });
}
inline std::uint32_t half_order(std::uint32_t h) {
  return (h & 0x8000u) != 0 ? 0x8000u - (h & 0x7FFFu) - 1u : h + 0x8000u;
}
inline bool half_is_nan(std::uint32_t h) { return (h & 0x7FFFu) > 0x7C00u; }
inline std::uint32_t min_half2(std::uint32_t a, std::uint32_t b) {
  return each_half([&](std::uint32_t s) {
    std::uint32_t const x = a >> s & 0xFFFFu, y = b >> s & 0xFFFFu;
    return half_is_nan(x) || half_is_nan(y) ? 0x7FFFu : half_order(y) < half_order(x) ? y : x;
  });
}
inline std::uint32_t max_half2(std::uint32_t a, std::uint32_t b) {
  return each_half([&](std::uint32_t s) {
    std::uint32_t const x = a >> s & 0xFFFFu, y = b >> s & 0xFFFFu;
    return half_is_nan(x) || half_is_nan(y) ? 0x7FFFu : half_order(y) > half_order(x) ? y : x;
  });
}
//! x in [0, 1]; 0 for NaN and -0.
inline float saturated(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float multiply_saturated(float a, float b) { return saturated(a * b); }
inline float add_saturated(float a, float b) { return saturated(a + b); }
inline float fma_saturated(float a, float b, float c) { return saturated(std::fma(a, b, c)); }
inline std::uint32_t half_from_e4m3(std::uint32_t x) {
  std::uint32_t const magnitude = x & 0x7Fu;
  if (magnitude == 0x7Fu) {
    return 0x7FFFu;
  }
  // the same bits with an exponent bias that is 8 too small
  return float_to_half(half_to_float(magnitude << 7) * 256.0f) | (x & 0x80u) << 8;
}
inline std::uint32_t half2_from_e4m3x2(std::uint32_t x) {
  return half_from_e4m3(x & 0xFFu) | half_from_e4m3((x >> 8) & 0xFFu) << 16;
}
inline float exp2_approximate(float x) {
  require_defined(x);  // libm would launder it
  float const r = std::exp2(x);
  return r < 0x1p-126f ? 0.0f : r;
}
//! 1 / x; the hardware is within 1 unit of the last place and flushes subnormals.
//! Rounded correctly; the hardware is within 1 unit of the last place. Subnormals are zeros on both sides.
inline float reciprocal_approximate(float x) {
  float const r = 1.0f / (std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x);
  return std::fabs(r) < 0x1p-126f ? std::copysign(0.0f, r) : r;
}
inline std::uint32_t permute_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint64_t const bytes = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t r = 0;
  for (unsigned i = 0; i < 4; ++i) {
    std::uint32_t const digit = (selector >> (4 * i)) & 15u;
    std::uint32_t byte = static_cast<std::uint32_t>(bytes >> (8 * (digit & 7u))) & 0xFFu;
    if (digit & 8u) {  // its sign bit, eight times
      byte = (byte & 0x80u) != 0 ? 0xFFu : 0u;
    }
    r |= byte << (8 * i);
  }
  return r;
}

// ---- programmatic dependent launch: kernels run one after another here

inline void wait_for_dependencies() {}
inline void release_dependents() {}

}  // namespace simt
