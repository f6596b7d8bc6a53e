// SPDX-License-Identifier: Apache-2.0
//! @file What attention computes, the memory that it needs, and the checks of its arguments.
#pragma once

#include "kvcrumb/softmax_state.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0 {

//! Which part of the work a call does, for splitting it among threads: kv heads [first_head, end_head), and
//! of them tiles [first_tile, end_tile) and, if asked, all exact rows. Parts of the tiles that cover a head
//! once give, joined by merge_outputs, the attention over the whole.
struct attention_part {
  std::int64_t first_tile = 0;
  std::int64_t end_tile = std::int64_t{1} << 60;
  bool exact_rows = true;
  int first_head = 0;  //!< kv heads [first_head, end_head): output rows of other heads are not touched
  int end_head = 1 << 30;
};

//! What is computed.
struct attention_options {
  float softmax_scale = 0.0f;  //!< factor of <q, k>; 0 means 1 / sqrt(head_dim)
  float soft_cap = 0.0f;       //!< c > 0: logit = c tanh(s / c) after scaling (Gemma 2)
  std::int64_t window = 0;     //!< w > 0: a query at position p sees keys at positions > p - w
  bool causal = true;          //!< a query sees keys at positions <= its own
  //! Position of query token 0 of the call; negative: the last `queries` positions of the sequence, so that
  //! the newest query is the newest token.
  std::int64_t first_query = -1;
  //! Learned sink logits, [query_heads] or null: exp(sink) joins the denominator only (gpt-oss).
  float const* sink_logits = nullptr;
  attention_part part{};
};

namespace detail {

//! Whether attention scores whole tiles of a key scheme at once.
template <class Key>
inline constexpr bool hooked_key = tile_hooks<Key> && !positional_key<Key>;

}  // namespace detail

//! Floats of working memory that attend needs.
template <class Scheme, storage_float Row>
std::int64_t attend_workspace(cache_view<Scheme, Row> const& view, int query_heads, int queries) noexcept {
  std::int64_t const width = view.shape.head_dim, tokens = view.shape.tile_tokens;
  std::int64_t const rows =
      view.kv_heads > 0 ? static_cast<std::int64_t>(query_heads) / view.kv_heads * queries : 0;
  std::int64_t tile = 2 * tokens * width;  // exact rows, keys and values
  std::int64_t hooked = 0;
  if constexpr (detail::hooked_key<typename Scheme::key_type>)
    hooked += view.scheme.key.tile_floats(side::key, view.shape);
  if constexpr (tile_hooks<typename Scheme::value_type>)
    hooked += view.scheme.value.tile_floats(side::value, view.shape);
  if (hooked > tile) tile = hooked;
  // per query: the query, its prepared form, two output rows, two states
  return tile + tokens + rows * (3 * width + Scheme::key_type::query_floats(view.shape.head_dim) + 4);
}

//! The checks of attend. Also ok for zero queries.
template <class Scheme, storage_float Row, row_element Q>
status check_attention(cache_view<Scheme, Row> const& view, rows_view<Q> q, int query_heads, int queries,
                       rows_view<float> o, attention_options const& options) noexcept {
  if (view.kv_heads < 1 || query_heads < 1 || query_heads % view.kv_heads != 0 || queries < 0) {
    return status::bad_shape;
  }
  if (!is_finite_bits(options.softmax_scale) || !is_finite_bits(options.soft_cap) ||
      options.soft_cap < 0.0f) {
    return status::out_of_range;
  }
  if (options.window < 0) return status::bad_window;
  if (options.first_query > std::int64_t{1} << 60) return status::out_of_range;
  if (options.part.first_tile < 0 || options.part.end_tile < options.part.first_tile)
    return status::out_of_range;
  if (options.sink_logits != nullptr) {
    for (int head = 0; head < query_heads; ++head) {
      float const sink = options.sink_logits[head];
      if (is_nan_bits(sink) || sink > max_finite<float>) return status::not_finite;
    }
  }
  if (options.part.first_head < 0 || options.part.end_head < options.part.first_head)
    return status::out_of_range;
  if (status const s = check_rows(q, query_heads, queries, view.shape.head_dim); s != status::ok) return s;
  for (std::int64_t row = 0; row < std::int64_t{query_heads} * queries; ++row) {
    Q* values = q.row(row / queries, row % queries);
    for (int d = 0; d < view.shape.head_dim; ++d) {
      if (!is_finite(values[d])) return status::not_finite;
      if (absolute(to_float(values[d])) > max_query_magnitude) return status::out_of_range;
    }
  }
  return check_rows(o, query_heads, queries, view.shape.head_dim);
}

}  // namespace kvcrumb::inline v0
