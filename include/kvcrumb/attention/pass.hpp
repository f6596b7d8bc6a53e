// SPDX-License-Identifier: Apache-2.0
//! @file The pass over the parts of one kv head: tiles, then exact rows, then the end of the softmax.
#pragma once

#include <type_traits>

#include "kvcrumb/attention/options.hpp"
#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/softmax_state.hpp"
#include "kvcrumb/trace/concept.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0 {

namespace detail {

//! Attention of the query heads of one kv head. Tiles accumulate in the value scheme's basis, exact rows in
//! the original one; two softmax states keep them apart until the end.
template <class Scheme, storage_float Row, row_element Q, class Tracer>
struct attention_pass {
  using key_type = typename Scheme::key_type;
  using value_type = typename Scheme::value_type;
  static constexpr bool key_hooks = hooked_key<key_type>, value_hooks = tile_hooks<value_type>;

  cache_view<Scheme, Row> const& view;
  rows_view<Q> q;
  int ratio;
  int queries;
  attention_options const& options;
  float* work;
  Tracer& tracer;

  std::int64_t width() const noexcept { return view.shape.head_dim; }
  int rows() const noexcept { return ratio * queries; }
  std::int64_t per_row() const noexcept {
    return 3 * width() + key_type::query_floats(view.shape.head_dim) + 4;
  }

  //! Memory of query row i (query head i / queries of this kv head, query token i % queries).
  float* query(int i) const noexcept { return work + i * per_row(); }
  float* tile_output(int i) const noexcept { return query(i) + width(); }
  float* exact_output(int i) const noexcept { return query(i) + 2 * width(); }
  float* states(int i) const noexcept {
    return query(i) + 3 * width();
  }  // tile max, tile sum, exact max, exact sum
  float* prepared(int i) const noexcept { return states(i) + 4; }
  float* scores() const noexcept { return work + rows() * per_row(); }
  float* tile_work() const noexcept { return scores() + view.shape.tile_tokens; }

  std::int64_t query_position(int i) const noexcept {
    std::int64_t const first = options.first_query >= 0 ? options.first_query : view.length() - queries;
    return first + i % queries;
  }
  bool visible(std::int64_t key, std::int64_t query_at) const noexcept {
    return (!options.causal || key <= query_at) && (options.window == 0 || key - query_at > -options.window);
  }
  //! No query of the call sees any of the tokens [begin, end); false also where their positions are not known
  //! to be neighbours.
  bool out_of_sight(std::int64_t begin, std::int64_t end) const noexcept {
    if (view.where.data != nullptr) return false;
    std::int64_t const oldest = query_position(0), newest = query_position(queries - 1);
    return (options.causal && begin > newest) || (options.window > 0 && end - 1 - oldest <= -options.window);
  }
  float logit(float score) const noexcept {
    float const scale =
        options.softmax_scale != 0.0f ? options.softmax_scale : 1.0f / ::sqrtf(static_cast<float>(width()));
    float s = score * scale;
    if (s > max_finite<float>) s = max_finite<float>;
    if (s < -max_finite<float>) s = -max_finite<float>;
    return options.soft_cap > 0.0f ? options.soft_cap * ::tanhf(s / options.soft_cap) : s;
  }

  void run(int head, rows_view<float> o, float* lse) const noexcept {
    if (queries == 0) return;
    for (int i = 0; i < rows(); ++i)
      prepare(head, i);
    std::int64_t const end = options.part.end_tile < view.tiles() ? options.part.end_tile : view.tiles();
    for (std::int64_t tile = options.part.first_tile; tile < end; ++tile)
      visit_tile(head, tile);
    if (options.part.exact_rows) {
      visit_rows(head, view.sinks.keys, view.sinks.values, view.sinks.count, nullptr, view.sinks.first);
      visit_isolated(head, view.pool);
      visit_isolated(head, view.aux);
      visit_rows(head, view.tail.keys, view.tail.values, view.tail.count, nullptr, view.tail.first);
    }
    for (int i = 0; i < rows(); ++i)
      finish(head, i, o, lse);
  }

  void prepare(int head, int i) const noexcept {
    Q* source = q.row(head * ratio + i / queries, i % queries);
    for (std::int64_t d = 0; d < width(); ++d) {
      query(i)[d] = to_float(source[d]);
      tile_output(i)[d] = exact_output(i)[d] = 0.0f;
    }
    states(i)[0] = states(i)[2] = negative_infinity;
    states(i)[1] = states(i)[3] = 0.0f;
    view.scheme.key.prepare_query(head, view.shape.head_dim, query(i), prepared(i));
  }

  //! Turns scores() of n keys at positions(t) into weights of query row i: logits, masks, running maximum.
  //! False if no key is visible. `state` is the pair (max, sum), `output` its row.
  template <class Position>
  bool weigh(int head, int i, int n, Position position, float* state, float* output) const noexcept {
    std::int64_t const at = query_position(i);
    softmax_state s{state[0], state[1]};
    float top = negative_infinity;
    for (int t = 0; t < n; ++t) {
      std::int64_t const key = position(t);
      if (key < 0 || !visible(key, at)) {
        scores()[t] = negative_infinity;
        continue;
      }
      scores()[t] = logit(scores()[t]);
      if constexpr (traces_scores<Tracer>) {
        tracer.on_score({head * ratio + i / queries, i % queries, key}, scores()[t]);
      }
      if (scores()[t] > top || scores()[t] != scores()[t]) top = scores()[t];
    }
    if (top == negative_infinity) return false;
    float const factor = s.raise(top);
    if (factor != 1.0f) {
      for (std::int64_t d = 0; d < width(); ++d)
        output[d] *= factor;
    }
    for (int t = 0; t < n; ++t) {
      scores()[t] = scores()[t] == negative_infinity ? 0.0f : ::expf(scores()[t] - s.max);
      s.sum += scores()[t];
    }
    state[0] = s.max;
    state[1] = s.sum;
    return true;
  }

  void visit_tile(int head, std::int64_t tile) const noexcept {
    int const tokens = view.shape.tile_tokens;
    std::int64_t const first = view.tile_first + tile * tokens;
    if (out_of_sight(first, first + tokens)) return;
    std::byte const* keys = view.keys.section(head, tile);
    std::byte const* values = view.values.section(head, tile);
    auto const position = [&](int t) {
      return view.valid(head, tile, t) ? view.where(head, first + t) : std::int64_t{-1};
    };
    float *key_work = tile_work(), *value_work = key_work;
    if constexpr (key_hooks) {
      value_work += view.scheme.key.tile_floats(side::key, view.shape);
      view.scheme.key.load_tile(side::key, view.shape, keys, key_work);
    }
    if constexpr (value_hooks) view.scheme.value.load_tile(side::value, view.shape, values, value_work);
    for (int i = 0; i < rows(); ++i) {
      if constexpr (key_hooks) {
        view.scheme.key.score_tile(view.shape, key_work, prepared(i), scores());
      } else {
        for (int t = 0; t < tokens; ++t) {
          std::int64_t const at = position(t);
          scores()[t] = 0.0f;
          if (at < 0) continue;
          if constexpr (positional_key<key_type>) {
            scores()[t] = view.scheme.key.score_at(view.shape, prepared(i), keys, t, at);
          } else {
            scores()[t] = view.scheme.key.score(view.shape, prepared(i), keys, t);
          }
        }
      }
      if (!weigh(head, i, tokens, position, states(i), tile_output(i))) continue;
      if constexpr (value_hooks) {
        view.scheme.value.accumulate_tile(view.shape, value_work, scores(), tile_output(i));
      } else {
        for (int t = 0; t < tokens; ++t) {
          if (scores()[t] != 0.0f) {
            view.scheme.value.accumulate(view.shape, scores()[t], values, t, tile_output(i));
          }
        }
      }
    }
  }

  void visit_isolated(int head, isolated_rows<Row> const& part) const noexcept {
    if (part.counts == nullptr) return;
    visit_rows(head, part.keys, part.values, part.counts[head], part.positions + head * part.stride_positions,
               0);
  }

  //! Exact rows in blocks of tile_tokens; row i is token tokens[i], or first + i when `tokens` is null.
  void visit_rows(int head, rows_view<Row const> keys, rows_view<Row const> values, std::int64_t count,
                  std::int64_t const* tokens, std::int64_t first) const noexcept {
    int const block = view.shape.tile_tokens;
    float* key_rows = tile_work();
    float* value_rows = key_rows + block * width();
    for (std::int64_t begin = 0; begin < count; begin += block) {
      int const n = static_cast<int>(count - begin < block ? count - begin : block);
      if (tokens == nullptr && out_of_sight(first + begin, first + begin + n)) continue;
      for (int t = 0; t < n; ++t) {
        for (std::int64_t d = 0; d < width(); ++d) {
          key_rows[t * width() + d] = to_float(keys.row(head, begin + t)[d]);
          value_rows[t * width() + d] = to_float(values.row(head, begin + t)[d]);
        }
      }
      auto const position = [&](int t) {
        return view.where(head, tokens == nullptr ? first + begin + t : tokens[begin + t]);
      };
      for (int i = 0; i < rows(); ++i) {
        for (int t = 0; t < n; ++t) {
          float* const row = key_rows + t * width();
          if constexpr (positional_key<key_type>) {
            scores()[t] = view.scheme.key.score_row_at(view.shape.head_dim, prepared(i), row, position(t));
          } else {
            scores()[t] = dot(query(i), row, width());
          }
        }
        if (!weigh(head, i, n, position, states(i) + 2, exact_output(i))) continue;
        for (int t = 0; t < n; ++t) {
          if (scores()[t] != 0.0f)
            add_scaled(scores()[t], value_rows + t * width(), width(), exact_output(i));
        }
      }
    }
  }

  void finish(int head, int i, rows_view<float> o, float* lse) const noexcept {
    int const query_head = head * ratio + i / queries;
    softmax_state tiles{states(i)[0], states(i)[1]};
    softmax_state const exact{states(i)[2], states(i)[3]};
    if (!tiles.empty()) view.scheme.value.finish(head, view.shape.head_dim, tile_output(i), tiles.sum);
    merge(tiles, tile_output(i), exact, exact_output(i), view.shape.head_dim);
    if (options.sink_logits != nullptr && options.part.exact_rows) {
      float const sink = options.sink_logits[query_head];
      if (sink > negative_infinity) {
        float const factor = tiles.raise(sink);
        for (std::int64_t d = 0; d < width(); ++d)
          tile_output(i)[d] *= factor;
        tiles.sum += ::expf(sink - tiles.max);
      }
    }
    float* row = o.row(query_head, i % queries);
    for (std::int64_t d = 0; d < width(); ++d)
      row[d] = tiles.empty() ? 0.0f : tile_output(i)[d] / tiles.sum;
    if (lse != nullptr)
      lse[static_cast<std::int64_t>(query_head) * queries + i % queries] = tiles.log_sum_exp();
  }
};

}  // namespace detail
}  // namespace kvcrumb::inline v0
