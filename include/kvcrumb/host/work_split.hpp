// SPDX-License-Identifier: Apache-2.0
//! @file work_split: one attend call as independent items for the caller's own threads, and their join.
#pragma once

#include "kvcrumb/host/attend.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host {

//! How one call is cut: kv heads first, because they share nothing, and each head into `parts` ranges of
//! tiles where there are too few heads. Results depend on the split (sums are rounded in another order), not
//! on which thread does which item or when.
struct work_split {
  int kv_heads = 0;
  std::int64_t tiles = 0;
  int ranges = 0;  //!< of kv heads
  int parts = 1;   //!< of each kv head; more than one only if every head is a range

  //! Items for `threads` workers: about four per worker if there are so many heads, or one range of heads per
  //! worker if that comes out even; else parts of heads, as long as each has a few tiles.
  static work_split of(int kv_heads, std::int64_t tiles, int threads) noexcept {
    if (kv_heads < 1) return {};
    if (threads < 2) return {kv_heads, tiles, 1, 1};
    if (kv_heads % threads == 0 || kv_heads >= 8 * threads) {
      int const most = 4 * threads;
      return {kv_heads, tiles, kv_heads < most ? kv_heads : most, 1};
    }
    constexpr std::int64_t least = 4;  // tiles of a part: below that its fixed cost shows
    std::int64_t const wanted = (std::int64_t{4} * threads + kv_heads - 1) / kv_heads;
    std::int64_t const possible = tiles / least > 1 ? tiles / least : 1;
    return {kv_heads, tiles, kv_heads, static_cast<int>(wanted < possible ? wanted : possible)};
  }

  int items() const noexcept { return ranges * parts; }
  //! What item i does; the last part of a head also has its exact rows.
  attention_part part(int item) const noexcept {
    std::int64_t const range = item / parts, which = item % parts;
    attention_part p;
    p.first_head = static_cast<int>(kv_heads * range / ranges);
    p.end_head = static_cast<int>(kv_heads * (range + 1) / ranges);
    p.first_tile = tiles * which / parts;
    p.end_tile = tiles * (which + 1) / parts;
    p.exact_rows = which + 1 == parts;
    return p;
  }
  //! Floats that the items leave for `join`; 0 if they write their results where they belong.
  std::int64_t partial_floats(int query_heads, int queries, int head_dim) const noexcept {
    return parts == 1 ? 0 : static_cast<std::int64_t>(parts) * query_heads * queries * (head_dim + 1);
  }
};

//! Item `item` of a call of host::attend. Arguments as there, with `partial` of split.partial_floats(...)
//! floats that all items share; `work` is the worker's own. options.part is overwritten by the split.
//! Different items may run at the same time. o and lse are written by items if split.parts is 1, otherwise by
//! join.
template <class Scheme, storage_float Row, row_element Q>
status attend_item(work_split const& split, int item, cache_view<Scheme, Row> const& view, rows_view<Q> q,
                   int query_heads, int queries, rows_view<float> o, float* lse, attention_options options,
                   std::span<float> partial, std::span<std::byte> work, execution const& how) noexcept {
  if (item < 0 || item >= split.items() || split.kv_heads != view.kv_heads || split.tiles != view.tiles()) {
    return status::out_of_range;
  }
  options.part = split.part(item);
  if (split.parts == 1) return attend(view, q, query_heads, queries, o, lse, options, work, how);
  int const width = view.shape.head_dim;
  if (static_cast<std::int64_t>(partial.size()) < split.partial_floats(query_heads, queries, width)) {
    return status::buffer_too_small;
  }
  std::int64_t const rows = static_cast<std::int64_t>(query_heads) * queries;
  float* const first = partial.data() + item % split.parts * rows * (width + 1);
  return attend(view, q, query_heads, queries, hnd_rows(first, queries, width), first + rows * width, options,
                work, how);
}

//! Joins the results of all items, in a fixed order; nothing to do if split.parts is 1. lse may be null.
inline status join(work_split const& split, int query_heads, int queries, int head_dim, rows_view<float> o,
                   float* lse, std::span<float> partial) noexcept {
  if (split.parts == 1) return status::ok;
  if (status const s = check_rows(o, query_heads, queries, head_dim); s != status::ok) return s;
  if (static_cast<std::int64_t>(partial.size()) < split.partial_floats(query_heads, queries, head_dim)) {
    return status::buffer_too_small;
  }
  std::int64_t const rows = static_cast<std::int64_t>(query_heads) * queries;
  for (std::int64_t row = 0; row < rows; ++row) {
    float* const total = partial.data() + row * head_dim;
    float& total_lse = partial[static_cast<std::size_t>(rows * head_dim + row)];
    for (int part = 1; part < split.parts; ++part) {
      float const* const other = partial.data() + part * rows * (head_dim + 1);
      merge_outputs(total, total_lse, other + row * head_dim, other[rows * head_dim + row], head_dim);
    }
    float* const out = o.row(row / queries, row % queries);
    for (int d = 0; d < head_dim; ++d)
      out[d] = total[d];
    if (lse != nullptr) lse[row] = total_lse;
  }
  return status::ok;
}

}  // namespace kvcrumb::inline v0::host

#endif
