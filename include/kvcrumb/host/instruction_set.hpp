// SPDX-License-Identifier: Apache-2.0
//! @file The instruction sets that host kernels are written for, and which of them this processor has.
#pragma once

#include <atomic>
#include <initializer_list>

#include "kvcrumb/status.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
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
  amx_int8 = 4,      //!< avx512_vnni with AMX for several query rows of a kv head; see request_amx
};

inline constexpr int instruction_set_count = 5;

//! The name in reports: "portable", "avx2", "avx512_vnni", "neon_dotprod", "amx_int8".
constexpr char const* to_string(instruction_set isa) noexcept {
  switch (isa) {
    case instruction_set::portable: return "portable";
    case instruction_set::avx2: return "avx2";
    case instruction_set::avx512_vnni: return "avx512_vnni";
    case instruction_set::neon_dotprod: return "neon_dotprod";
    case instruction_set::amx_int8: return "amx_int8";
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
    case instruction_set::amx_int8: {  // the processor only
      unsigned a = 0, b = 0, c = 0, d = 0;
      constexpr unsigned amx_tile = 1u << 24, amx_int8 = 1u << 25;
      return detect(instruction_set::avx512_vnni) && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
             (d & amx_tile) != 0 && (d & amx_int8) != 0;
    }
#elif defined(__aarch64__) && defined(__linux__)
    case instruction_set::neon_dotprod: {
      constexpr unsigned long dot_product = 1ul << 20;  // HWCAP_ASIMDDP
      return (getauxval(AT_HWCAP) & dot_product) != 0;
    }
#endif
    default: return false;
  }
}

//! What `detect` answers, kept.
inline bool in_processor(instruction_set isa) noexcept {
  static bool const answers[instruction_set_count] = {
      detect(instruction_set::portable), detect(instruction_set::avx2), detect(instruction_set::avx512_vnni),
      detect(instruction_set::neon_dotprod), detect(instruction_set::amx_int8)};
  int const number = static_cast<int>(isa);
  return number >= 0 && number < instruction_set_count && answers[number];
}

//! Whether Linux lets this process use the data of the AMX registers; asks for it first if `request`. A
//! permission is never taken back.
inline bool amx_permitted([[maybe_unused]] bool request) noexcept {
#if defined(__x86_64__) && defined(__linux__)
  static std::atomic<bool> known{false};
  if (known.load(std::memory_order_relaxed)) return true;
  constexpr int get_permission = 0x1022, request_permission = 0x1023;  // of arch_prctl, Linux 5.16
  constexpr unsigned long tile_data = 18;                              // number of the state component
  unsigned long permitted = 0;
  if (request && ::syscall(SYS_arch_prctl, request_permission, tile_data) != 0) return false;
  if (::syscall(SYS_arch_prctl, get_permission, &permitted) != 0 || (permitted >> tile_data & 1u) == 0)
    return false;
  known.store(true, std::memory_order_relaxed);
  return true;
#else
  return false;
#endif
}

}  // namespace detail

//! Whether kernels for it are part of this program and this processor, with its operating system, runs them.
//! The processor is asked once; the answer is kept. amx_int8 also needs a permission, see request_amx.
inline bool is_available(instruction_set isa) noexcept {
  return detail::in_processor(isa) && (isa != instruction_set::amx_int8 || detail::amx_permitted(false));
}

//! Asks Linux (5.16 or later) to let this process use AMX; afterwards amx_int8 is available. For all threads
//! of the process and for good: a context switch may then save 8 KiB more of a thread that is inside of
//! host::attend, and Linux refuses while a thread has an alternative signal stack too small for that. Call it
//! once when the program starts; nothing else here does. Errors: unsupported if processor or system have no
//! AMX or refuse it.
inline status request_amx() noexcept {
  bool const permitted = detail::in_processor(instruction_set::amx_int8) && detail::amx_permitted(true);
  return permitted ? status::ok : status::unsupported;
}

//! The fastest one that is available.
inline instruction_set best_instruction_set() noexcept {
  for (instruction_set const isa : {instruction_set::amx_int8, instruction_set::avx512_vnni,
                                    instruction_set::avx2, instruction_set::neon_dotprod}) {
    if (is_available(isa)) return isa;
  }
  return instruction_set::portable;
}

}  // namespace kvcrumb::inline v0::host
