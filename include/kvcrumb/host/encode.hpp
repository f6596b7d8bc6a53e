// SPDX-License-Identifier: Apache-2.0
//! @file host::encode: codes and parameters of one side of a tile with the vector instructions of the
//! processor.
#pragma once

#include <span>

#include "kvcrumb/host/encode_plan.hpp"
#include "kvcrumb/host/execution.hpp"
#include "kvcrumb/host/targets.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host {

//! Whether host::encode has kernels for one side of a scheme: codes and layout as has_kernel.
template <class SideScheme>
inline constexpr bool has_encoder = encode_facts<SideScheme>::supported;

namespace detail {

template <class SideScheme>
bool runs_vectorized(tile_shape shape) noexcept {
  if constexpr (has_encoder<SideScheme>) {
    return encode_facts<SideScheme>::fits(shape.head_dim);
  } else {
    return false;
  }
}

//! Plan and memory of a call; with null work only the bytes are counted.
template <class SideScheme>
std::int64_t prepare_encode(SideScheme const& scheme, side which, tile_shape shape, std::byte* work,
                            encode_plan& plan, encode_memory& memory) noexcept {
  using facts = encode_facts<SideScheme>;
  plan = encode_plan::of<facts>(scheme, which, shape);
  memory_pieces pieces{work};
  memory = encode_memory::of(plan, facts::needs_floats, pieces);
  return pieces.used();
}

template <class SideScheme, class Row>
void run_encode(instruction_set isa, SideScheme const& scheme, encode_plan const& plan,
                encode_memory const& memory, row_request<Row const> const& r) noexcept {
  codebook_steps const steps = codebook_steps::of_codec(scheme.codec);
  switch (isa) {
#if defined(__x86_64__)
    case instruction_set::amx_int8:
    case instruction_set::avx512_vnni: return target_avx512_vnni::encode_side(scheme, steps, plan, memory, r);
    case instruction_set::avx2: return target_avx2::encode_side(scheme, steps, plan, memory, r);
#elif defined(__aarch64__)
    case instruction_set::neon_dotprod:
      return target_neon_dotprod::encode_side(scheme, steps, plan, memory, r);
#endif
    default: return target_portable::encode_side(scheme, steps, plan, memory, r);
  }
}

}  // namespace detail

//! Ok if host::encode answers for this side of a scheme under `how`, besides bad arguments; otherwise the
//! reason why not, as host::supports.
template <class SideScheme>
status supports_encode(SideScheme const& scheme, side which, tile_shape shape, int heads,
                       execution const& how) noexcept {
  if (status const s = scheme.supports(which, shape, heads); s != status::ok) return s;
  if (!is_available(how.isa)) return status::unsupported;
  bool const quick = how.isa != instruction_set::portable && detail::runs_vectorized<SideScheme>(shape);
  return quick || how.allow_slow ? status::ok : status::unsupported;
}

//! Bytes of working memory that host::encode needs for `count` rows of each of `heads` kv heads; they must
//! begin on a multiple of 64.
template <class SideScheme>
std::int64_t encode_workspace_bytes(SideScheme const& scheme, side which, tile_shape shape, int heads,
                                    int count) noexcept {
  std::int64_t const as_floats =
      std::int64_t{heads} * count * shape.head_dim * static_cast<std::int64_t>(sizeof(float));
  if constexpr (has_encoder<SideScheme>) {
    if (detail::runs_vectorized<SideScheme>(shape)) {
      encode_plan plan;
      encode_memory memory;
      std::int64_t const bytes = detail::prepare_encode(scheme, which, shape, nullptr, plan, memory);
      return bytes > as_floats ? bytes : as_floats;  // rows of 8 bits take the slow way
    }
  }
  return as_floats;
}

//! What scheme.encode(which, shape, request, null_tracer) does, with vector instructions and from rows where
//! they are: the same bytes, bit for bit, whatever the flags, and no byte besides.
//!
//!   work  encode_workspace_bytes(scheme, which, shape, r.heads, r.count) bytes on a multiple of 64
//!
//! Errors: those of supports_encode and check_rows; bad_shape for counts and slots that are no append unit or
//! beyond the tile; null_pointer; misaligned or buffer_too_small for `work`. Nothing is written then. No
//! allocation; one thread; calls with different sections and work may run at the same time.
template <class SideScheme, row_element Row>
status encode(SideScheme const& scheme, side which, tile_shape shape, row_request<Row> const& r,
              std::span<std::byte> work, execution const& how) noexcept {
  if (r.heads < 0 || r.count < 0 || r.slot < 0 || r.count > shape.tile_tokens ||
      r.slot > shape.tile_tokens - r.count || r.count % SideScheme::append_tokens != 0 ||
      r.slot % SideScheme::append_tokens != 0)
    return status::bad_shape;
  if (r.heads == 0) return status::ok;
  if (status const s = supports_encode(scheme, which, shape, r.heads, how); s != status::ok) return s;
  if (sizeof(Row) < 2 && !how.allow_slow) return status::unsupported;  // no kernel reads rows of 8 bits
  if (status const s = check_rows(r.rows, r.heads, r.count, shape.head_dim); s != status::ok) return s;
  if (r.count == 0) return status::ok;
  if (r.sections == nullptr) return status::null_pointer;
  if (reinterpret_cast<std::uintptr_t>(work.data()) % 64 != 0) return status::misaligned;
  if (static_cast<std::int64_t>(work.size()) < encode_workspace_bytes(scheme, which, shape, r.heads, r.count))
    return status::buffer_too_small;
  row_request<std::remove_const_t<Row> const> const request{
      r.rows.read_only(), r.isolated, r.sections, r.heads, r.count, r.slot};
  if constexpr (has_encoder<SideScheme> && sizeof(Row) >= 2) {
    if (detail::runs_vectorized<SideScheme>(shape)) {
      encode_plan plan;
      encode_memory memory;
      detail::prepare_encode(scheme, which, shape, work.data(), plan, memory);
      detail::run_encode(how.isa, scheme, plan, memory, request);
      return status::ok;
    }
  }
  null_tracer none;
  encode_as_floats(scheme, which, shape, request, reinterpret_cast<float*>(work.data()), none);
  return status::ok;
}

}  // namespace kvcrumb::inline v0::host

#endif
