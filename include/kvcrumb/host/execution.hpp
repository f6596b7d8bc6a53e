// SPDX-License-Identifier: Apache-2.0
//! @file execution: with which instructions and in which arithmetic a host function works, and what it
//! supports.
#pragma once

#include "kvcrumb/host/format.hpp"
#include "kvcrumb/host/instruction_set.hpp"
#include "kvcrumb/kv_scheme.hpp"

namespace kvcrumb::inline v0::host {

//! In what queries and weights are multiplied with codes.
enum class precision : std::uint8_t {
  two_terms,  //!< as the sum of two bytes, 15 bits of the largest magnitude of a tile; integer sums
  binary32,   //!< as they are; several times slower
};

//! How a host function works. Make one when the program starts and pass it to every call.
struct execution {
  instruction_set isa = best_instruction_set();
  precision arithmetic = precision::two_terms;
  //! Also run without vector instructions: by the portable kernels, and by kvcrumb::attend for a scheme that
  //! has no kernel here. Otherwise both are refused, so that nothing is slow silently.
  bool allow_slow = false;
  //! With avx512_vnni: what amx_int8 does, with its products of matrices in plain C++. For tests on
  //! processors without AMX; slow, and refused unless that is allowed.
  bool emulate_amx = false;
};

//! Whether a scheme has a host kernel at all: composed codes of 1, 2, 3, 4 or 8 bits in the fragment layout
//! with parameters of 16 or 32 bits, for keys and for values.
template <class Scheme>
inline constexpr bool has_kernel =
    scheme_facts<typename Scheme::key_type>::supported&& scheme_facts<typename Scheme::value_type>::supported;

//! Ok if host::attend answers for this scheme and shape under `how` (besides bad arguments): `unsupported` if
//! the processor lacks the instruction set, there is no kernel or only a slow one that is not allowed,
//! otherwise what Scheme::supports says.
template <class Scheme>
status supports(Scheme const& scheme, tile_shape shape, int kv_heads, execution const& how) noexcept {
  if (status const s = scheme.supports(shape, kv_heads); s != status::ok) return s;
  if (!is_available(how.isa)) return status::unsupported;
  if ((how.isa == instruction_set::portable || how.emulate_amx) && !how.allow_slow)
    return status::unsupported;
  if (how.emulate_amx && how.isa != instruction_set::avx512_vnni) return status::unsupported;
  return has_kernel<Scheme> || how.allow_slow ? status::ok : status::unsupported;
}

}  // namespace kvcrumb::inline v0::host
