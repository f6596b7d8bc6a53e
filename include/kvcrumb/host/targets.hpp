// SPDX-License-Identifier: Apache-2.0
//! @file Compiles the code of target/ once for each instruction set, each in a namespace of its own.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kvcrumb/attention/options.hpp"
#include "kvcrumb/host/encode_plan.hpp"
#include "kvcrumb/host/instruction_set.hpp"
#include "kvcrumb/host/memory.hpp"
#include "kvcrumb/outlier/scores.hpp"

// nvcc's front end knows neither these vectors nor the pragmas: a .cu file gets nothing from here.
#if !defined(__CUDACC__)

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Functions between these two are compiled for the named features whatever the flags of the translation unit
// are.
#if defined(__clang__)
#define KVCRUMB_BEGIN_TARGET(features) \
  KVCRUMB_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define KVCRUMB_END_TARGET KVCRUMB_PRAGMA(clang attribute pop)
#else
#define KVCRUMB_BEGIN_TARGET(features) KVCRUMB_PRAGMA(GCC push_options) KVCRUMB_PRAGMA(GCC target(features))
#define KVCRUMB_END_TARGET KVCRUMB_PRAGMA(GCC pop_options)
#endif
// Stands before a loop of few, constant steps, which must vanish for its arrays to become registers.
#if defined(__clang__)
#define KVCRUMB_TARGET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KVCRUMB_TARGET_UNROLL _Pragma("GCC unroll 16")
#endif
#if defined(__clang__)
#define KVCRUMB_DOTPROD "dotprod"
#else
#define KVCRUMB_DOTPROD "arch=armv8.2-a+dotprod"
#endif
#define KVCRUMB_AVX2 "avx2,fma,f16c,bmi,bmi2"
#define KVCRUMB_AVX512_VNNI "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi,bmi2"
#define KVCRUMB_PRAGMA(tokens) _Pragma(#tokens)
#define KVCRUMB_TARGET_INLINE inline __attribute__((always_inline))

// For vectors_halved.inl.
#define KVCRUMB_HALVED_OPERATOR(op)                                                                 \
  template <class Half>                                                                             \
  KVCRUMB_TARGET_INLINE auto operator op(halved<Half> const& a, halved<Half> const& b) noexcept {   \
    return halved<std::remove_cvref_t<decltype(a.low op b.low)>>{a.low op b.low, a.high op b.high}; \
  }                                                                                                 \
  template <class Half>                                                                             \
  KVCRUMB_TARGET_INLINE auto operator op(halved<Half> const& a, element<Half> b) noexcept {         \
    return halved<std::remove_cvref_t<decltype(a.low op b)>>{a.low op b, a.high op b};              \
  }

// 64-byte vectors never cross a call that is not inlined. Not undone at the end: templates are compiled at
// the end of the translation unit, and g++ 12.2 takes the state of this warning from there.
#pragma GCC diagnostic ignored "-Wpsabi"
#if !defined(__clang__)  // g++ 12.2 reports undefined registers of its own AVX-512 header (GCC bug 105593)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

// The order of these files is not alphabetical.
// clang-format off
namespace kvcrumb::inline v0::host::target_portable {
#include "kvcrumb/host/target/vectors_whole.inl"
#include "kvcrumb/host/target/plain_ops.inl"
#include "kvcrumb/host/target/portable.inl"
#include "kvcrumb/host/target/series.inl"
#include "kvcrumb/host/target/plain_power.inl"
#include "kvcrumb/host/target/vector.inl"
#include "kvcrumb/host/target/dot_by_lines.inl"
#include "kvcrumb/host/target/no_matrix.inl"
#include "kvcrumb/host/target/widen.inl"
#include "kvcrumb/host/target/sum_exact.inl"
#include "kvcrumb/host/target/operand.inl"
#include "kvcrumb/host/target/multiply.inl"
#include "kvcrumb/host/target/softmax.inl"
#include "kvcrumb/host/target/pass.inl"
#include "kvcrumb/host/target/encode_plain_ops.inl"
#include "kvcrumb/host/target/encode_portable.inl"
#include "kvcrumb/host/target/encode_codec.inl"
#include "kvcrumb/host/target/encode_rows.inl"
#include "kvcrumb/host/target/encode_threshold.inl"
#include "kvcrumb/host/target/encode_sources.inl"
#include "kvcrumb/host/target/encode_pack.inl"
#include "kvcrumb/host/target/encode_statistics.inl"
#include "kvcrumb/host/target/encode_pass.inl"
#include "kvcrumb/host/target/encode_scores.inl"
#include "kvcrumb/host/target/round_rows.inl"
}  // namespace kvcrumb::inline v0::host::target_portable

#if defined(__x86_64__)
KVCRUMB_BEGIN_TARGET(KVCRUMB_AVX2)
namespace kvcrumb::inline v0::host::target_avx2 {
inline constexpr int register_bytes = 32;
#include "kvcrumb/host/target/vectors_halved.inl"
#include "kvcrumb/host/target/avx2.inl"
#include "kvcrumb/host/target/series.inl"
#include "kvcrumb/host/target/plain_power.inl"
#include "kvcrumb/host/target/vector.inl"
#include "kvcrumb/host/target/dot_by_lines.inl"
#include "kvcrumb/host/target/no_matrix.inl"
#include "kvcrumb/host/target/widen.inl"
#include "kvcrumb/host/target/sum_exact.inl"
#include "kvcrumb/host/target/operand.inl"
#include "kvcrumb/host/target/multiply.inl"
#include "kvcrumb/host/target/softmax.inl"
#include "kvcrumb/host/target/pass.inl"
#include "kvcrumb/host/target/encode_avx2.inl"
#include "kvcrumb/host/target/encode_codec.inl"
#include "kvcrumb/host/target/encode_rows.inl"
#include "kvcrumb/host/target/encode_threshold.inl"
#include "kvcrumb/host/target/encode_sources.inl"
#include "kvcrumb/host/target/encode_pack.inl"
#include "kvcrumb/host/target/encode_statistics.inl"
#include "kvcrumb/host/target/encode_pass.inl"
#include "kvcrumb/host/target/encode_scores.inl"
#include "kvcrumb/host/target/round_rows.inl"
}  // namespace kvcrumb::inline v0::host::target_avx2
KVCRUMB_END_TARGET

KVCRUMB_BEGIN_TARGET(KVCRUMB_AVX512_VNNI)
namespace kvcrumb::inline v0::host::target_avx512_vnni {
#include "kvcrumb/host/target/vectors_whole.inl"
#include "kvcrumb/host/target/avx512_vnni.inl"
#include "kvcrumb/host/target/series.inl"
#include "kvcrumb/host/target/avx512_power.inl"
#include "kvcrumb/host/target/vector.inl"
#include "kvcrumb/host/target/dot_avx512_vnni.inl"
#include "kvcrumb/host/target/matrix_amx.inl"
#include "kvcrumb/host/target/matrix_avx512.inl"
#include "kvcrumb/host/target/widen.inl"
#include "kvcrumb/host/target/sum_exact.inl"
#include "kvcrumb/host/target/operand.inl"
#include "kvcrumb/host/target/multiply.inl"
#include "kvcrumb/host/target/softmax.inl"
#include "kvcrumb/host/target/pass.inl"
#include "kvcrumb/host/target/encode_plain_ops.inl"
#include "kvcrumb/host/target/encode_avx512.inl"
#include "kvcrumb/host/target/encode_codec.inl"
#include "kvcrumb/host/target/encode_rows.inl"
#include "kvcrumb/host/target/encode_threshold.inl"
#include "kvcrumb/host/target/encode_sources.inl"
#include "kvcrumb/host/target/encode_pack.inl"
#include "kvcrumb/host/target/encode_statistics.inl"
#include "kvcrumb/host/target/encode_pass.inl"
#include "kvcrumb/host/target/encode_scores.inl"
#include "kvcrumb/host/target/round_rows.inl"
}  // namespace kvcrumb::inline v0::host::target_avx512_vnni
KVCRUMB_END_TARGET
#elif defined(__aarch64__)
KVCRUMB_BEGIN_TARGET(KVCRUMB_DOTPROD)
namespace kvcrumb::inline v0::host::target_neon_dotprod {
inline constexpr int register_bytes = 16;
#include "kvcrumb/host/target/vectors_halved.inl"
#include "kvcrumb/host/target/neon_dotprod.inl"
#include "kvcrumb/host/target/series.inl"
#include "kvcrumb/host/target/plain_power.inl"
#include "kvcrumb/host/target/vector.inl"
#include "kvcrumb/host/target/dot_by_lines.inl"
#include "kvcrumb/host/target/no_matrix.inl"
#include "kvcrumb/host/target/widen.inl"
#include "kvcrumb/host/target/sum_exact.inl"
#include "kvcrumb/host/target/operand.inl"
#include "kvcrumb/host/target/multiply.inl"
#include "kvcrumb/host/target/softmax.inl"
#include "kvcrumb/host/target/pass.inl"
#include "kvcrumb/host/target/encode_neon.inl"
#include "kvcrumb/host/target/encode_codec.inl"
#include "kvcrumb/host/target/encode_rows.inl"
#include "kvcrumb/host/target/encode_threshold.inl"
#include "kvcrumb/host/target/encode_sources.inl"
#include "kvcrumb/host/target/encode_pack.inl"
#include "kvcrumb/host/target/encode_statistics.inl"
#include "kvcrumb/host/target/encode_pass.inl"
#include "kvcrumb/host/target/encode_scores.inl"
#include "kvcrumb/host/target/round_rows.inl"
}  // namespace kvcrumb::inline v0::host::target_neon_dotprod
KVCRUMB_END_TARGET
#endif
// clang-format on

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif  // !defined(__CUDACC__)
