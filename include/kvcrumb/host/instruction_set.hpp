// SPDX-License-Identifier: Apache-2.0
//! @file The instruction sets that host kernels are written for, and which of them this processor has.
#pragma once

#include <initializer_list>

#include "kvcrumb/config.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace kvcrumb::inline v0::host {

//! What a host kernel is compiled for. The numbers are stable: they may be stored in a configuration.
enum class instruction_set : std::uint8_t {
  portable = 0,      //!< plain C++ on any processor: the reference of the others' integer sums, and slow
  avx2 = 1,          //!< x86-64 with AVX2, FMA, F16C, BMI1 and BMI2 (Haswell, Zen and later)
  avx512_vnni = 2,   //!< x86-64 with AVX-512 F, BW, DQ, VL and VNNI
  neon_dotprod = 3,  //!< AArch64 with the dot product instructions (Armv8.2 DotProd)
};

inline constexpr int instruction_set_count = 4;

//! The name in reports: "portable", "avx2", "avx512_vnni", "neon_dotprod".
constexpr char const* to_string(instruction_set isa) noexcept {
  switch (isa) {
    case instruction_set::portable: return "portable";
    case instruction_set::avx2: return "avx2";
    case instruction_set::avx512_vnni: return "avx512_vnni";
    case instruction_set::neon_dotprod: return "neon_dotprod";
  }
  return "unknown";
}

namespace detail {

//! Asks the processor. Slow: on a virtual machine a CPUID instruction takes microseconds.
inline bool detect(instruction_set isa) noexcept {
  switch (isa) {
    case instruction_set::portable: return true;
#if defined(__x86_64__)
    case instruction_set::avx2: {
      unsigned a = 0, b = 0, c = 0, d = 0;
      bool const f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
      return f16c && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
             __builtin_cpu_supports("bmi") != 0 && __builtin_cpu_supports("bmi2") != 0;
    }
    case instruction_set::avx512_vnni:
      return detect(instruction_set::avx2) && __builtin_cpu_supports("avx512f") != 0 &&
             __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
             __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
#elif defined(__aarch64__) && defined(__linux__)
    case instruction_set::neon_dotprod: {
      constexpr unsigned long dot_product = 1ul << 20;  // HWCAP_ASIMDDP
      return (getauxval(AT_HWCAP) & dot_product) != 0;
    }
#endif
    default: return false;
  }
}

}  // namespace detail

//! Whether kernels for it are part of this program and this processor, with its operating system, runs them.
//! The processor is asked once; the answer is kept.
inline bool is_available(instruction_set isa) noexcept {
  static bool const answers[instruction_set_count] = {
      detail::detect(instruction_set::portable), detail::detect(instruction_set::avx2),
      detail::detect(instruction_set::avx512_vnni), detail::detect(instruction_set::neon_dotprod)};
  int const number = static_cast<int>(isa);
  return number >= 0 && number < instruction_set_count && answers[number];
}

//! The fastest one that is available.
inline instruction_set best_instruction_set() noexcept {
  for (instruction_set const isa :
       {instruction_set::avx512_vnni, instruction_set::avx2, instruction_set::neon_dotprod}) {
    if (is_available(isa)) return isa;
  }
  return instruction_set::portable;
}

}  // namespace kvcrumb::inline v0::host
