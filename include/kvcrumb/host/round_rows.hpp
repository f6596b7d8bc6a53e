// SPDX-License-Identifier: Apache-2.0
//! @file Rows rounded to another type with the vector instructions of the processor.
#pragma once

#include "kvcrumb/host/execution.hpp"
#include "kvcrumb/host/targets.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host::detail {

//! to.row(head, i) = from.row(head, i), each value as convert() rounds it. Finite values; a NaN may become an
//! infinity.
template <storage_float To, row_element From>
void round_rows(instruction_set isa, rows_view<From> from, int heads, std::int64_t count, int head_dim,
                rows_view<To> to) noexcept {
  using type = std::remove_const_t<From>;
  for (int head = 0; head < heads; ++head) {
    rows_view<type const> const x = from.read_only().starting_at(head, 0);
    rows_view<To> const y = to.starting_at(head, 0);
    switch (isa) {
#if defined(__x86_64__)
      case instruction_set::amx_int8:
      case instruction_set::avx512_vnni: target_avx512_vnni::round_rows_of(x, count, head_dim, y); break;
      case instruction_set::avx2: target_avx2::round_rows_of(x, count, head_dim, y); break;
#elif defined(__aarch64__)
      case instruction_set::neon_dotprod: target_neon_dotprod::round_rows_of(x, count, head_dim, y); break;
#endif
      default: target_portable::round_rows_of(x, count, head_dim, y);
    }
  }
}

}  // namespace kvcrumb::inline v0::host::detail

#endif
