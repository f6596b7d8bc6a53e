// SPDX-License-Identifier: Apache-2.0
//! @file ThinK (arXiv 2407.21018): key channels chosen by the queries, and the presets that prune them.
#pragma once

#include <span>

#include "kvcrumb/scheme/pruned.hpp"
#include "kvcrumb/schemes.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

namespace detail {

//! Mean over the rows of the square of one channel, in double. Products of floats are exact there and the sum
//! has one order, so the value is the same everywhere.
template <row_element T>
double mean_square(rows_view<T> const& rows, std::int64_t head, std::int64_t first, std::int64_t end,
                   int channel) noexcept {
  double sum = 0.0;
  for (std::int64_t t = first; t < end; ++t) {
    double const x = static_cast<double>(to_float(rows.row(head, t)[channel]));
    sum = hidden_step(sum + x * x);
  }
  return hidden_step(sum / hidden_step(static_cast<double>(end - first)));
}

}  // namespace detail

//! Query tokens that ThinK scores channels with: the last ones of the prompt.
inline constexpr int think_queries = 32;

//! Scores of all channels, [kv_heads][head_dim]: mean_t(q^2) of the last `think_queries` query tokens (all,
//! if there are fewer), averaged over the query heads of the kv head, times mean_t(k^2). Up to constants this
//! is the square of the Frobenius norm of Q[:,j] K[:,j]^T (ThinK, section 3.2). `queries` and `tokens` count
//! the rows of a head. Errors: bad_shape for sizes below 1 or query heads that are no multiple of kv heads,
//! buffer_too_small, not_finite, and those of check_rows. Cost: one pass over the rows.
template <row_element Q, row_element K>
status think_scores(rows_view<Q> q, int query_heads, std::int64_t queries, rows_view<K> k, int kv_heads,
                    std::int64_t tokens, int head_dim, std::span<double> scores) noexcept {
  if (kv_heads < 1 || query_heads < 1 || query_heads % kv_heads != 0) return status::bad_shape;
  if (queries < 1 || tokens < 1) return status::bad_shape;
  if (head_dim < 1 || head_dim > max_head_dim) return status::bad_head_dim;
  if (static_cast<std::int64_t>(scores.size()) < std::int64_t{kv_heads} * head_dim)
    return status::buffer_too_small;
  if (status const s = check_rows(q, query_heads, queries, head_dim); s != status::ok) return s;
  if (status const s = check_rows(k, kv_heads, tokens, head_dim); s != status::ok) return s;
  int const ratio = query_heads / kv_heads;
  std::int64_t const first = queries > think_queries ? queries - think_queries : 0;
  for (int pass = 0; pass < 2; ++pass) {  // checks everything before it writes anything
    for (int head = 0; head < kv_heads; ++head) {
      for (int d = 0; d < head_dim; ++d) {
        double of_queries = 0.0;
        for (int i = 0; i < ratio; ++i) {
          double const one = detail::mean_square(q, head * ratio + i, first, queries, d);
          of_queries = detail::hidden_step(of_queries + one);
        }
        of_queries = detail::hidden_step(of_queries / detail::hidden_step(static_cast<double>(ratio)));
        double const of_keys = detail::mean_square(k, head, 0, tokens, d);
        double const score = detail::hidden_step(of_queries * of_keys);
        if ((__builtin_bit_cast(std::uint64_t, score) >> 52 & 0x7FFu) == 0x7FFu) return status::not_finite;
        if (pass == 1) scores[static_cast<std::size_t>(head * head_dim + d)] = score;
      }
    }
  }
  return status::ok;
}

//! Channels that stay when `ratio` of them shall go: head_dim - floor(head_dim * ratio) as published, rounded
//! up to a multiple of `multiple` (layouts pack whole words), at most head_dim. ratio in [0, 1): 0 for any
//! other.
constexpr int think_kept(int head_dim, double ratio, int multiple = 8) noexcept {
  if (!(ratio >= 0.0) || !(ratio < 1.0) || head_dim < 1 || multiple < 1) return 0;
  int const least = head_dim - static_cast<int>(head_dim * ratio);
  int const rounded = (least + multiple - 1) / multiple * multiple;
  return rounded < head_dim ? rounded : head_dim;
}

//! The `kept` channels of largest score of each head, ascending, into channels [kv_heads][kept]; of equal
//! scores the lower channel stays. `scores` [kv_heads][head_dim]. Cost: kv_heads * head_dim^2.
inline status think_channels(std::span<double const> scores, int kv_heads, int head_dim, int kept,
                             std::span<std::uint16_t> channels) noexcept {
  if (kv_heads < 1) return status::bad_shape;
  if (head_dim < 1 || head_dim > max_head_dim) return status::bad_head_dim;
  if (kept < 1 || kept > head_dim) return status::out_of_range;
  if (static_cast<std::int64_t>(scores.size()) < std::int64_t{kv_heads} * head_dim ||
      static_cast<std::int64_t>(channels.size()) < std::int64_t{kv_heads} * kept)
    return status::buffer_too_small;
  for (int head = 0; head < kv_heads; ++head) {
    double const* s = scores.data() + static_cast<std::int64_t>(head) * head_dim;
    std::int64_t n = static_cast<std::int64_t>(head) * kept;
    for (int d = 0; d < head_dim; ++d) {
      int better = 0;
      for (int e = 0; e < head_dim; ++e)
        better += s[e] > s[d] || (s[e] == s[d] && e < d) ? 1 : 0;
      if (better < kept) channels[static_cast<std::size_t>(n++)] = static_cast<std::uint16_t>(d);
    }
  }
  return status::ok;
}

namespace schemes {

//! ThinK alone: fp16 keys of the kept channels, fp16 values; the 32 newest tokens are not pruned. 8 + 8 *
//! kept / head_dim bits.
using think_type = kv_scheme<pruned<composed<raw<float16>, per_row, identity, linear>>,
                             composed<raw<float16>, per_row, identity, linear>>;
constexpr think_type think(channel_list keep) noexcept {
  return {.name = "think", .flush = {32, 1}, .key = {.keep = keep}};
}

//! ThinK on KIVI (section 4.3 of the paper): prune first, then KIVI on the kept channels, in the linear
//! layout, which holds any number of channels. Keys (Bits + 32 / Group) * kept / head_dim, values Bits + 32 /
//! Group.
template <int Bits, int Group = 32, layout Layout = linear>
using think_kivi_type = kv_scheme<pruned<typename kivi_type<Bits, Group, Layout>::key_type>,
                                  typename kivi_type<Bits, Group, Layout>::value_type>;
template <int Bits, int Group = 32, layout Layout = linear>
constexpr think_kivi_type<Bits, Group, Layout> think_kivi(channel_list keep) noexcept {
  return {.name = Bits == 2   ? "think_kivi2"
                  : Bits == 4 ? "think_kivi4"
                              : "think_kivi",
          .flush = {0, 128},
          .key = {.keep = keep}};
}

//! ThinK on OTT: outlier tokens are chosen by their whole keys and stay whole.
template <int Bits = 2, int Group = 128, layout Layout = linear>
using think_ott_type = kv_scheme<pruned<typename ott_type<Bits, Group, Layout>::key_type>,
                                 typename ott_type<Bits, Group, Layout>::value_type, token_pool<l1_score>>;
template <int Bits = 2, int Group = 128, layout Layout = linear>
constexpr think_ott_type<Bits, Group, Layout> think_ott(channel_list keep, int pool = 3) noexcept {
  return {.name = "think_ott", .flush = {32, Group}, .isolate = {.capacity = pool}, .key = {.keep = keep}};
}

}  // namespace schemes

}  // namespace kvcrumb::inline v0
