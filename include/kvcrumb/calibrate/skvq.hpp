// SPDX-License-Identifier: Apache-2.0
//! @file Offline calibration of SKVQ: a permutation, groups and clip factors from recorded rows.
#pragma once

#include <cmath>
#include <vector>

#include "kvcrumb/calibrate/clip_search.hpp"
#include "kvcrumb/calibrate/plane_clusters.hpp"
#include "kvcrumb/scheme/clipped_groups.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! What calibrate_skvq fills; the caller keeps it alive as long as a scheme uses its plan.
struct skvq_parameters {
  int kv_heads = 0;
  int head_dim = 0;
  int groups = 0;
  std::vector<std::uint16_t> order, ends;
  std::vector<float> clip;

  channel_plan plan() const noexcept {
    return {kv_heads, head_dim, groups, order.data(), ends.data(), clip.data()};
  }
};

//! How to calibrate.
struct skvq_settings {
  int groups = 4;       //!< per kv head, 1 ... head_dim
  bool reorder = true;  //!< false: neighbouring channels, groups of equal length
  clip_grid clips{};
  int restarts = 10;       //!< of k-means, 1 ... 1000
  std::int64_t sinks = 5;  //!< first tokens, which stay exact and take no part
};

//! Recorded rows of one layer. Without queries (count 0) clip factors minimize the squared error of the rows;
//! with queries [query_heads][queries][head_dim], the last of which stands at the last token, that of the
//! causal attention output.
struct skvq_recording {
  rows_view<float const> keys, values;
  int kv_heads = 0;
  std::int64_t tokens = 0;
  int head_dim = 0;
  rows_view<float const> q{};
  int query_heads = 0;
  std::int64_t queries = 0;
};

//! Fills the plans of both sides of a layer: features (min, max) of every channel, k-means with
//! `settings.groups` clusters for each kv head, then a clip factor for each group.
//!
//! Scheme is a skvq_type. Errors: bad_shape, bad_group, out_of_range (settings), not_finite, and those of
//! check_rows; the outputs are then unchanged. Allocates (about 8 tokens (query rows + D) bytes several
//! times). Cost: clips.steps tokens D operations; with queries times query rows, and times groups for keys.
//! Summed in double in a fixed order, but not to the bit on every machine: keep the plan with the cache.
template <class Scheme>
status calibrate_skvq(skvq_recording const& in, skvq_settings const& settings, skvq_parameters& keys,
                      skvq_parameters& values) {
  int const width = in.head_dim, heads = in.kv_heads, groups = settings.groups;
  if (heads < 1 || width < 1 || width > max_head_dim || settings.sinks < 0 || in.tokens <= settings.sinks)
    return status::bad_shape;
  if (groups < 1 || groups > width) return status::bad_group;
  if (status const s = settings.clips.check(); s != status::ok) return s;
  if (settings.restarts < 1 || settings.restarts > 1000) return status::out_of_range;
  if (in.queries < 0 || in.queries > in.tokens) return status::bad_shape;
  if (in.queries > 0 && (in.query_heads < 1 || in.query_heads % heads != 0)) return status::bad_shape;
  int const ratio = in.queries > 0 ? in.query_heads / heads : 0;
  auto const finite = [&](rows_view<float const> const& v, int n, std::int64_t tokens) {
    status const s = check_rows(v, n, tokens, width);
    if (s != status::ok) return s;
    for (int h = 0; h < n; ++h)
      for (std::int64_t t = 0; t < tokens; ++t)
        for (int d = 0; d < width; ++d)
          if (!is_finite_bits(v.row(h, t)[d])) return status::not_finite;
    return status::ok;
  };
  if (status const s = finite(in.keys, heads, in.tokens); s != status::ok) return s;
  if (status const s = finite(in.values, heads, in.tokens); s != status::ok) return s;
  if (in.queries > 0) {
    if (status const s = finite(in.q, in.query_heads, in.queries); s != status::ok) return s;
  }

  auto const n = static_cast<std::size_t>(heads);
  skvq_parameters made[2];
  for (skvq_parameters& m : made) {
    m = {heads, width, groups, {}, {}, {}};
    m.order.resize(n * static_cast<std::size_t>(width));
    m.ends.resize(n * static_cast<std::size_t>(groups));
    m.clip.resize(n * static_cast<std::size_t>(groups));
  }
  // The permutation and the groups of one side of one head, and its rows in that order.
  auto const arrange = [&](auto& side_, skvq_parameters& m, rows_view<float const> const& rows, int head) {
    std::uint16_t* order = m.order.data() + std::ptrdiff_t{head} * width;
    std::uint16_t* ends = m.ends.data() + std::ptrdiff_t{head} * groups;
    std::vector<double> low(static_cast<std::size_t>(width)), high(low.size());
    for (std::size_t d = 0; d < low.size(); ++d) {
      low[d] = high[d] = static_cast<double>(rows.row(head, settings.sinks)[d]);
      for (std::int64_t t = settings.sinks; t < in.tokens; ++t) {
        double const x = static_cast<double>(rows.row(head, t)[d]);
        low[d] = x < low[d] ? x : low[d];
        high[d] = x > high[d] ? x : high[d];
      }
    }
    std::vector<int> labels(low.size());
    if (settings.reorder) {
      labels = detail::plane_clusters(low, high, groups).best(settings.restarts);
    } else {
      for (int d = 0; d < width; ++d)
        labels[static_cast<std::size_t>(d)] = d * groups / width;
    }
    for (int g = 0, place = 0; g < groups; ++g) {
      for (int d = 0; d < width; ++d)
        if (labels[static_cast<std::size_t>(d)] == g) order[place++] = static_cast<std::uint16_t>(d);
      ends[g] = static_cast<std::uint16_t>(place);
    }
    side_.width = width;
    side_.tokens = in.tokens;
    side_.sinks = settings.sinks;
    side_.groups = groups;
    side_.ends = ends;
    side_.clip = m.clip.data() + std::ptrdiff_t{head} * groups;
    for (std::int64_t t = 0; t < in.tokens; ++t)
      for (int place = 0; place < width; ++place)
        side_.x.push_back(rows.row(head, t)[order[place]]);
    side_.choose_by_rows(settings.clips);
  };
  for (int head = 0; head < heads; ++head) {
    detail::calibrated_side<typename Scheme::key_type::codec_type> k;
    detail::calibrated_side<typename Scheme::value_type::codec_type> v;
    arrange(k, made[0], in.keys, head);
    arrange(v, made[1], in.values, head);
    if (in.queries == 0) continue;
    detail::calibration_attention a{in.tokens, width, {}, {}, {}, {}};
    for (int r = 0; r < ratio * static_cast<int>(in.queries); ++r) {
      std::int64_t const query = r % in.queries;
      float const* q = in.q.row(head * ratio + r / in.queries, query);
      a.q.insert(a.q.end(), q, q + width);
      a.seen.push_back(in.tokens - in.queries + query + 1);
      for (std::int64_t t = 0; t < in.tokens; ++t) {
        double sum = 0.0;
        for (int d = 0; d < width; ++d)
          sum += static_cast<double>(q[d]) * static_cast<double>(in.keys.row(head, t)[d]);
        a.logits.push_back(sum / std::sqrt(static_cast<double>(width)));
      }
    }
    a.weights.resize(a.logits.size());
    for (std::size_t r = 0; r < a.rows(); ++r)
      a.softmax(r, a.logits.data() + r * static_cast<std::size_t>(in.tokens),
                a.weights.data() + r * static_cast<std::size_t>(in.tokens));
    detail::choose_value_clips(v, a, settings.clips);
    std::uint16_t const* order = made[0].order.data() + std::ptrdiff_t{head} * width;
    detail::choose_key_clips(k, order, v.x, a, settings.clips);
  }
  keys = static_cast<skvq_parameters&&>(made[0]);
  values = static_cast<skvq_parameters&&>(made[1]);
  return status::ok;
}

}  // namespace kvcrumb::inline v0
