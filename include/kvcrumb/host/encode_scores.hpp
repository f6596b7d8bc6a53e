// SPDX-License-Identifier: Apache-2.0
//! @file host::score_rows: scores of tokens with the vector instructions of the processor.
#pragma once

#include "kvcrumb/host/encode_plan.hpp"
#include "kvcrumb/host/execution.hpp"
#include "kvcrumb/host/targets.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host {

namespace detail {

//! Whether there is a kernel for a score, of rows of two or four bytes and whole vectors.
template <class Score>
struct score_kernel {
  static constexpr bool supported = false, negate = false;
};
template <class Score>
  requires(std::same_as<Score, l1_score> || std::same_as<Score, l2_score> ||
           std::same_as<Score, absmax_score>)
struct score_kernel<Score> {
  static constexpr bool supported = true, negate = false;
  using base = Score;
};
template <class Score>
  requires(score_kernel<Score>::supported && !score_kernel<Score>::negate)
struct score_kernel<negated<Score>> {
  static constexpr bool supported = true, negate = true;
  using base = Score;
};

template <class Score, class Row>
void run_scores(instruction_set isa, rows_view<Row const> rows, std::int64_t tokens, int width,
                float* scores) noexcept {
  switch (isa) {
#if defined(__x86_64__)
    case instruction_set::amx_int8:
    case instruction_set::avx512_vnni:
      return target_avx512_vnni::score_rows_of<Score, Row>(rows, tokens, width, scores);
    case instruction_set::avx2: return target_avx2::score_rows_of<Score, Row>(rows, tokens, width, scores);
#elif defined(__aarch64__)
    case instruction_set::neon_dotprod:
      return target_neon_dotprod::score_rows_of<Score, Row>(rows, tokens, width, scores);
#endif
    default: return target_portable::score_rows_of<Score, Row>(rows, tokens, width, scores);
  }
}

}  // namespace detail

//! scores[head * tokens + i] = score(row(head, i) as floats, head_dim), equal bit for bit; Row is the type of
//! the cache, because scores are taken of rounded rows. Rows that score first are in the caches when they are
//! encoded: call it for a few heads or one append unit at a time.
//!
//! Errors: those of check_rows; bad_shape; null_pointer; unsupported (another score than l1, l2, absmax and
//! their negations, a head_dim that is no multiple of 32, or portable) unless how.allow_slow.
template <token_score Score, row_element Row>
status score_rows(Score const& score, rows_view<Row> rows, int heads, std::int64_t tokens, int head_dim,
                  float* scores, execution const& how) noexcept {
  using row_type = std::remove_const_t<Row>;
  if (heads < 0 || tokens < 0 || head_dim < 1 || head_dim > max_head_dim) return status::bad_shape;
  if (heads == 0 || tokens == 0) return status::ok;
  if (status const s = check_rows(rows, heads, tokens, head_dim); s != status::ok) return s;
  if (scores == nullptr) return status::null_pointer;
  if (!is_available(how.isa)) return status::unsupported;
  bool const quick = detail::score_kernel<Score>::supported && sizeof(Row) >= 2 && head_dim % 32 == 0;
  if ((!quick || how.isa == instruction_set::portable) && !how.allow_slow) return status::unsupported;
  for (int head = 0; head < heads; ++head) {
    float* const to = scores + head * tokens;
    if constexpr (detail::score_kernel<Score>::supported && sizeof(Row) >= 2) {
      if (quick) {
        using base = typename detail::score_kernel<Score>::base;
        rows_view<row_type const> const of_head = rows.read_only().starting_at(head, 0);
        detail::run_scores<base>(how.isa, of_head, tokens, head_dim, to);
        for (std::int64_t i = 0; detail::score_kernel<Score>::negate && i < tokens; ++i)
          to[i] = -to[i];
        continue;
      }
    }
    float row[max_head_dim];
    for (std::int64_t i = 0; i < tokens; ++i) {
      for (int d = 0; d < head_dim; ++d)
        row[d] = to_float(rows.row(head, i)[d]);
      to[i] = score(row, head_dim);
    }
  }
  return status::ok;
}

}  // namespace kvcrumb::inline v0::host

#endif
