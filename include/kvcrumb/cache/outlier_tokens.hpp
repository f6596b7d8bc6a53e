// SPDX-License-Identifier: Apache-2.0
//! @file The isolated tokens of a cache: who is chosen when a group is encoded, and where they are kept.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvcrumb/cache/storage.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"
#include "kvcrumb/outlier/admission.hpp"
#include "kvcrumb/outlier/isolation.hpp"

namespace kvcrumb::inline v0::detail {

//! One group about to be encoded, and the flags to fill, isolated[head * stride + i].
template <storage_float Row>
struct group_in_hand {
  exact_rows<Row> rows;
  std::uint8_t* isolated;
  std::int64_t stride;

  std::int64_t position(std::int64_t i) const noexcept { return rows.first + i; }
};

//! Pool and auxiliary pool of every kv head, the external list, and the marks of a one-shot selection.
template <isolation Isolation, storage_float Row>
struct outlier_tokens {
  isolated_store<Row> pool, aux;
  std::vector<std::int64_t> listed;       //!< external positions, ascending
  std::vector<std::uint8_t> preselected;  //!< [heads][tokens to encode], during prefill only
  std::int64_t preselected_first = 0;     //!< position of the first mark

  void reset(Isolation const& isolate, int heads, int head_dim) {
    *this = outlier_tokens{};
    pool.reset(heads, isolate.pool_capacity(), head_dim);
    aux.reset(heads, isolate.aux_capacity(), head_dim);
  }

  //! Adds positions to the external list; none may lie before `encoded_end`.
  status announce(std::span<std::int64_t const> positions, std::int64_t encoded_end) {
    std::vector<std::int64_t> all = listed;
    for (std::int64_t const p : positions) {
      if (p < encoded_end) return status::out_of_range;
      all.push_back(p);
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    if (static_cast<std::int64_t>(all.size()) > pool.capacity) return status::bad_window;
    listed = std::move(all);
    return status::ok;
  }

  //! Decides which tokens of the group are isolated, sets their flags and copies their rows to the pool.
  template <class Encoder>
  void choose(Isolation const& isolate, group_in_hand<Row> const& g, Encoder& encoder) {
    std::int64_t const count = g.rows.count;
    if constexpr (Isolation::how == selection::listed) {
      for (std::int64_t i = 0; i < count; ++i) {
        if (!std::binary_search(listed.begin(), listed.end(), g.position(i))) continue;
        take_in(0, pool.heads, {0.0f, g.position(i)}, g);
      }
    } else if constexpr (Isolation::how == selection::smallest) {
      if (pool.capacity == 0 || (!preselected.empty() && !has_preselected(g))) return;
      std::vector<float> const all = scores(isolate, g.rows.keys, count, encoder);
      for (int head = 0; head < pool.heads; head = end_of(isolate, head)) {
        std::vector<scored_token> order;
        for (std::int64_t i = 0; i < count; ++i)
          order.push_back({joint_score(isolate, head, all, count, i), g.position(i)});
        if (preselected.empty()) {
          compete(head, end_of(isolate, head), order, g);
          continue;
        }
        for (scored_token const& t : order) {
          if (is_preselected(head, t.position)) take_in(head, end_of(isolate, head), t, g);
        }
      }
    }
  }

  //! One-shot selection: marks the smallest scores among `count` tokens of a prompt, the first at position
  //! `first`.
  template <class T, class Encoder>
  void preselect(Isolation const& isolate, rows_view<T> const& keys, std::int64_t first, std::int64_t count,
                 Encoder& encoder) {
    if (count <= 0 || pool.capacity == 0) return;
    preselected.assign(static_cast<std::size_t>(pool.heads * count), 0);
    preselected_first = first;
    std::vector<float> const all = scores(isolate, keys.read_only().starting_at(0, first), count, encoder);
    std::vector<scored_token> tokens(static_cast<std::size_t>(count));
    for (int head = 0; head < pool.heads; head = end_of(isolate, head)) {
      for (std::int64_t i = 0; i < count; ++i)
        tokens[static_cast<std::size_t>(i)] = {joint_score(isolate, head, all, count, i), first + i};
      select_smallest(tokens.data(), count, pool.capacity, preselected.data() + head * count);
    }
  }

  //! Whether a token is isolated in a kv head.
  bool holds(int head, std::int64_t position) const noexcept {
    return pool.find(head, position) >= 0 || aux.find(head, position) >= 0;
  }

  std::int64_t bytes() const noexcept {
    return pool.bytes() + aux.bytes() + static_cast<std::int64_t>(listed.size() * sizeof(std::int64_t));
  }
  std::int64_t reserved() const noexcept {
    return pool.reserved() + aux.reserved() +
           static_cast<std::int64_t>(listed.capacity() * sizeof(std::int64_t));
  }

  //! Forgets the isolated tokens at or beyond a position.
  void drop_from(std::int64_t position) {
    pool.drop_from(position);
    aux.drop_from(position);
  }

 private:
  //! One past the last head that decides together with `head`.
  int end_of(Isolation const& isolate, int head) const noexcept {
    return isolate.scope() == pool_scope::per_layer ? pool.heads : head + 1;
  }

  //! Score of token i of `count`, summed over the heads that decide together with `head`.
  float joint_score(Isolation const& isolate, int head, std::vector<float> const& all, std::int64_t count,
                    std::int64_t i) const {
    return tree_fold(
        end_of(isolate, head) - head,
        [&](int h) { return all[static_cast<std::size_t>((head + h) * count + i)]; },
        [](float a, float b) { return add_rn(a, b); });
  }

  //! Scores [heads][count] of keys rounded to Row.
  template <class T, class Encoder>
  std::vector<float> scores(Isolation const& isolate, rows_view<T const> const& keys, std::int64_t count,
                            Encoder& encoder) const {
    std::vector<float> all(static_cast<std::size_t>(pool.heads * count));
    if constexpr (std::is_same_v<std::remove_const_t<T>, Row>) {
      encoder.score(isolate, keys, pool.heads, count, pool.head_dim, all.data());
    } else {
      constexpr std::int64_t at_once = 64;
      std::vector<Row> rounded(static_cast<std::size_t>(at_once * pool.head_dim));
      for (int head = 0; head < pool.heads; ++head) {
        for (std::int64_t i = 0; i < count; i += at_once) {
          std::int64_t const n = count - i < at_once ? count - i : at_once;
          rows_view<Row> const rows = hnd_rows(rounded.data(), n, pool.head_dim);
          encoder.round(keys.starting_at(head, i), 1, n, pool.head_dim, rows);
          encoder.score(isolate, rows.read_only(), 1, n, pool.head_dim, all.data() + head * count + i);
        }
      }
    }
    return all;
  }

  //! The streaming rule: candidates in ascending order are offered to the pool of heads [head, end).
  void compete(int head, int end, std::vector<scored_token>& order, group_in_hand<Row> const& g) {
    std::sort(order.begin(), order.end(), precedes);
    for (scored_token const& candidate : order) {
      std::span<scored_token const> const held = pool.tokens(head);
      int const free_slots = aux.capacity - static_cast<int>(aux.tokens(head).size());
      admission_result const r =
          offer(candidate, held.data(), static_cast<int>(held.size()), pool.capacity, free_slots);
      if (r.what == admission::refused) return;  // candidates ascend: the rest is refused too
      if (r.what == admission::replaced) {
        for (int h = head; h < end; ++h)
          aux.move_from(pool, h, r.victim);
      }
      take_in(head, end, candidate, g);
    }
  }

  void take_in(int head, int end, scored_token token, group_in_hand<Row> const& g) {
    std::int64_t const i = token.position - g.rows.first;
    for (int h = head; h < end; ++h) {
      pool.put(h, token, g.rows.keys.row(h, i), g.rows.values.row(h, i));
      g.isolated[h * g.stride + i] = 1;
    }
  }

  bool has_preselected(group_in_hand<Row> const& g) const noexcept {
    for (int head = 0; head < pool.heads; ++head) {
      for (std::int64_t i = 0; i < g.rows.count; ++i) {
        if (is_preselected(head, g.position(i))) return true;
      }
    }
    return false;
  }

  bool is_preselected(int head, std::int64_t position) const noexcept {
    std::int64_t const per_head = static_cast<std::int64_t>(preselected.size()) / pool.heads;
    return preselected[static_cast<std::size_t>(head * per_head + position - preselected_first)] != 0;
  }
};

}  // namespace kvcrumb::inline v0::detail
