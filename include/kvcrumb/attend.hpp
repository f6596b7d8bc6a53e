// SPDX-License-Identifier: Apache-2.0
//! @file attend: exact softmax attention of a few query tokens over a cache_view, straight on the packed
//! tiles.
#pragma once

#include <span>
#include <type_traits>

#include "kvcrumb/attention/pass.hpp"

namespace kvcrumb::inline v0 {

//! Attention of `queries` new tokens per query head over everything a cache holds.
//!
//!   q    [query_heads][queries][head_dim]; query head h reads kv head h / (query_heads / kv_heads)
//!   o    [query_heads][queries][head_dim], overwritten; 0 where nothing is visible
//!   lse  [query_heads][queries] contiguous, may be null: natural log of sum exp(logit), -inf where nothing
//!   is visible work attend_workspace(view, query_heads, queries) floats of the caller's
//!
//! Errors: null_pointer, misaligned, bad_stride, bad_shape, bad_window, out_of_range (also a query beyond
//! max_query_magnitude), not_finite, buffer_too_small; nothing is written then. No allocation.
//! One thread; options.part splits the work among the caller's threads, each with its own workspace.
//! Cost: one unpacking per (kv head, tile), two multiply-adds per value and query.
template <class Scheme, storage_float Row, row_element Q, class Tracer = null_tracer>
status attend(cache_view<Scheme, Row> const& view, rows_view<Q> q, int query_heads, int queries,
              rows_view<float> o, float* lse, attention_options const& options, std::span<float> work,
              Tracer&& tracer = Tracer{}) noexcept {
  if (status const s = check_attention(view, q, query_heads, queries, o, options); s != status::ok) return s;
  if (static_cast<std::int64_t>(work.size()) < attend_workspace(view, query_heads, queries)) {
    return status::buffer_too_small;
  }
  int const ratio = query_heads / view.kv_heads;
  detail::attention_pass<Scheme, Row, Q, std::remove_reference_t<Tracer>> pass{
      view, q, ratio, queries, options, work.data(), tracer};
  int const end = options.part.end_head < view.kv_heads ? options.part.end_head : view.kv_heads;
  for (int head = options.part.first_head; head < end; ++head)
    pass.run(head, o, lse);
  return status::ok;
}

}  // namespace kvcrumb::inline v0
