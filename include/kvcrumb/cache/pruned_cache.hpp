// SPDX-License-Identifier: Apache-2.0
//! @file pruned_cache: a kv_cache that holds only some tokens of a sequence, each kv head its own.
#pragma once

#include "kvcrumb/cache/kv_cache.hpp"
#include "kvcrumb/cache/token_set.hpp"

namespace kvcrumb::inline v0 {

//! Tokens of one layer of one sequence at explicit positions ("More Tokens, Lower Precision", arXiv
//! 2412.12706: drop tokens, then keep the others in few bits). Every kv head holds the same number of tokens
//! but its own set. attend works on view(): causality and windows go by true positions.
//!
//! prefill() selects from a whole prompt, with any scheme. append() fills up to the capacity; after that a
//! token must leave for each one that comes, which needs a scheme that is row-independent and chooses no
//! isolated tokens (not_in_tail otherwise): the new token is encoded into the slot of the one that leaves, in
//! each head its own slot. With a window (flush.recent > 0) the oldest exact row moves into that slot and the
//! new token takes its place. Where groups cross heads (NQKV), a slot that prefill filled shares its
//! parameters among the different tokens that the heads chose. Functions that return a status change nothing
//! unless it is ok.
template <class Scheme, storage_float Row = float16>
class pruned_cache {
 public:
  using cache_type = kv_cache<Scheme, Row>;
  static constexpr bool evicts = Scheme::row_independent && Scheme::isolation_type::how == selection::none;

  pruned_cache() = default;
  pruned_cache(pruned_cache const&) = default;
  pruned_cache& operator=(pruned_cache const&) = default;
  //! A cache that was moved from is as if default-constructed.
  pruned_cache(pruned_cache&& other) : pruned_cache() { swap(other); }
  pruned_cache& operator=(pruned_cache&& other) {
    pruned_cache taken(static_cast<pruned_cache&&>(other));
    swap(taken);
    return *this;
  }
  ~pruned_cache() = default;
  void swap(pruned_cache& other) {
    cache_.swap(other.cache_);
    std::swap(set_, other.set_);
  }

  //! Makes an empty cache. bad_window: sizes are negative, or sinks and recent tokens leave no room in the
  //! prompt or below the capacity; else as kv_cache::create. Tokens that the scheme keeps as sinks are sinks
  //! here too.
  static status create(Scheme const& scheme, cache_config const& config, pruning rule, pruned_cache& out) {
    if (rule.prompt == 0) rule.prompt = rule.capacity;
    if (!rule.is_valid()) return status::bad_window;
    rule.sinks = std::max<std::int64_t>(rule.sinks, scheme.isolate.sink_tokens());
    if (!rule.is_valid()) return status::bad_window;
    pruned_cache made;
    if (status const s = cache_type::create(scheme, config, made.cache_); s != status::ok) return s;
    made.set_.rule = rule;
    made.set_.heads = config.kv_heads;
    out = static_cast<pruned_cache&&>(made);
    return status::ok;
  }

  //! Puts together what was saved apart: the held tokens (save and restore of cache()), their positions
  //! [kv_heads][held] and the length of the sequence. Importances are unknown. bad_shape for wrong counts,
  //! out_of_range for positions that repeat or lie outside the sequence.
  static status adopt(cache_type cache, pruning const& rule, std::span<std::int64_t const> positions,
                      std::int64_t sequence, pruned_cache& out) {
    if (cache.blob_stride() == 0) return status::bad_shape;
    pruned_cache made;
    if (status const s = create(cache.scheme(), cache.config(), rule, made); s != status::ok) return s;
    std::int64_t const held = cache.size(), heads = cache.config().kv_heads;
    if (held > rule.capacity || static_cast<std::int64_t>(positions.size()) != heads * held)
      return status::bad_shape;
    std::vector<std::int64_t> sorted(positions.begin(), positions.end());
    for (std::int64_t head = 0; head < heads && held > 0; ++head) {
      auto const begin = sorted.begin() + head * held, end = begin + held;
      std::sort(begin, end);
      if (*begin < 0 || *(end - 1) >= sequence || std::adjacent_find(begin, end) != end)
        return status::out_of_range;
    }
    made.cache_ = static_cast<cache_type&&>(cache);
    made.set_.grow(held);
    for (std::int64_t i = 0; i < heads * held; ++i)
      made.set_.place(i / held, i % held, positions[index(i)], unknown_importance);
    made.set_.sequence = sequence;
    out = static_cast<pruned_cache&&>(made);
    return status::ok;
  }

  //! The first `count` tokens of a sequence, keys and values [kv_heads][count][head_dim]. Each head keeps the
  //! sinks, the recent ones and the most important others, in order of position, `prompt` in all.
  //! `importance` is [kv_heads][count], finite; null: the newest tokens are kept. Of equals the older stays.
  template <row_element K, row_element V>
  status prefill(rows_view<K> keys, rows_view<V> values, std::int64_t count, float const* importance) {
    if (set_.sequence != 0) return status::not_empty;
    if (status const s = check_input(keys, values, count, importance); s != status::ok) return s;
    std::int64_t const heads = config().kv_heads, kept = std::min(count, rule().prompt);
    std::int64_t const width = config().shape.head_dim;
    std::vector<std::int64_t> chosen;  // [heads][kept]
    for (std::int64_t head = 0; head < heads; ++head)
      detail::choose_tokens(rule(), count, kept, importance == nullptr ? nullptr : importance + head * count,
                            chosen);
    std::vector<std::remove_const_t<K>> k(index(heads * kept * width));
    std::vector<std::remove_const_t<V>> v(k.size());
    for (std::int64_t i = 0; i < heads * kept; ++i) {
      std::copy_n(keys.row(i / kept, chosen[index(i)]), width, k.begin() + i * width);
      std::copy_n(values.row(i / kept, chosen[index(i)]), width, v.begin() + i * width);
    }
    int const row = static_cast<int>(width);
    if (status const s = cache_.prefill(hnd_rows(k.data(), kept, row), hnd_rows(v.data(), kept, row), kept);
        s != status::ok)
      return s;
    set_.grow(kept);
    for (std::int64_t i = 0; i < heads * kept; ++i) {
      std::int64_t const head = i / kept, at = chosen[index(i)];
      set_.place(head, i % kept, at,
                 importance == nullptr ? unknown_importance : importance[head * count + at]);
    }
    set_.sequence = count;
    return status::ok;
  }

  //! The next `count` tokens of the sequence. `importance` is [kv_heads][count], null: unknown. Cost of a
  //! token that replaces another: one pass over the positions, and one encode of all heads for every
  //! different slot.
  template <row_element K, row_element V>
  status append(rows_view<K> keys, rows_view<V> values, std::int64_t count,
                float const* importance = nullptr) {
    if (status const s = check_input(keys, values, count, importance); s != status::ok) return s;
    std::int64_t const first = size(), fit = std::min(count, rule().capacity - first);
    if (fit < count && !evicts) return status::not_in_tail;
    if (status const s = cache_.append(keys, values, fit); s != status::ok) return s;
    set_.grow(first + fit);
    auto const score = [&](std::int64_t head, std::int64_t i) {
      return importance == nullptr ? unknown_importance : importance[head * count + i];
    };
    for (std::int64_t i = 0; i < fit; ++i, ++set_.sequence) {
      for (std::int64_t head = 0; head < config().kv_heads; ++head)
        set_.place(head, first + i, set_.sequence, score(head, i));
    }
    if constexpr (evicts) {
      for (std::int64_t i = fit; i < count; ++i, ++set_.sequence)
        replace(keys, values, i, score);
    }
    return status::ok;
  }

  //! New importances by sequence position, [kv_heads][tokens]; `add` adds to what is known (H2O's running
  //! sum). Held tokens at or beyond `tokens` keep theirs. out_of_range unless the policy uses them,
  //! not_finite as in prefill.
  status update_importance(float const* importance, std::int64_t tokens, bool add = false) {
    if (!set_.scored()) return status::out_of_range;
    if (tokens < 0) return status::bad_shape;
    if (importance == nullptr && tokens > 0) return status::null_pointer;
    if (status const s = check_importance(importance, tokens); s != status::ok) return s;
    for (int head = 0; head < config().kv_heads; ++head) {
      for (std::int64_t i = 0; i < size(); ++i) {
        std::int64_t const at = position(head, i);
        if (at >= tokens) continue;
        float const known = set_.score(head, i);
        set_.place(head, i, at,
                   importance[head * tokens + at] + (add && known != unknown_importance ? known : 0.0f));
      }
    }
    return status::ok;
  }

  //! What attention reads; valid until the cache changes or dies.
  cache_view<Scheme, Row> view() const noexcept {
    cache_view<Scheme, Row> v = cache_.view();
    v.where = {set_.positions.data(), set_.stride};
    v.sequence = set_.sequence;
    return v;
  }

  //! The held tokens, counted from 0 in each head: for read() and save().
  cache_type const& cache() const noexcept { return cache_; }
  cache_config const& config() const noexcept { return cache_.config(); }
  pruning const& rule() const noexcept { return set_.rule; }
  std::int64_t size() const noexcept { return set_.held; }          //!< tokens held per kv head
  std::int64_t sequence() const noexcept { return set_.sequence; }  //!< tokens seen
  //! Sequence position of a held token.
  std::int64_t position(int head, std::int64_t i) const noexcept { return set_.position(head, i); }
  //! The held token at a position; -1: not held. Cost: one pass.
  std::int64_t find(int head, std::int64_t at) const noexcept { return set_.find(head, at); }

  //! Bytes of the held tokens, of their positions and, where the policy keeps them, importances.
  std::int64_t bytes_used() const noexcept { return cache_.bytes_used() + set_.bytes(); }
  std::int64_t bytes_reserved() const noexcept { return cache_.bytes_reserved() + set_.reserved(); }
  //! Measured bits per value of the tokens held; 0 for an empty cache.
  double bits_per_value() const noexcept { return bits_over(size()); }
  //! The same bytes over all tokens of the sequence, held or not.
  double bits_per_sequence_value() const noexcept { return bits_over(sequence()); }

 private:
  static constexpr std::size_t index(std::int64_t i) noexcept { return static_cast<std::size_t>(i); }
  double bits_over(std::int64_t tokens) const noexcept {
    if (tokens == 0) return 0.0;
    return 8.0 * static_cast<double>(bytes_used()) /
           (2.0 * static_cast<double>(tokens) * config().kv_heads * config().shape.head_dim);
  }

  status check_importance(float const* importance, std::int64_t tokens) const {
    for (std::int64_t i = 0; importance != nullptr && i < config().kv_heads * tokens; ++i) {
      if (!is_finite_bits(importance[i])) return status::not_finite;
    }
    return status::ok;
  }
  template <class K, class V>
  status check_input(rows_view<K> const& keys, rows_view<V> const& values, std::int64_t count,
                     float const* importance) const {
    if (cache_.blob_stride() == 0) return status::bad_shape;
    status const s = detail::check_new_rows<Row>(keys, values, config().kv_heads, sequence(), count,
                                                 config().shape.head_dim);
    if (s != status::ok) return s;
    return check_importance(importance, count);
  }

  //! Token i of the input takes the place of one held token of each head.
  template <class K, class V, class Score>
  void replace(rows_view<K> const& keys, rows_view<V> const& values, std::int64_t i, Score score) {
    std::int64_t const heads = config().kv_heads, width = config().shape.head_dim;
    std::int64_t const sinks = cache_.sink_tokens(), tail = sinks + cache_.tile_slots();
    std::vector<Row> k(index(heads * width)), v(k.size());  // what is encoded, [head][dim]
    std::vector<std::int64_t> slots(index(heads), -1);      // and where, -1: nothing
    for (std::int64_t head = 0; head < heads; ++head) {
      std::int64_t const out = set_.victim(head);
      KVCRUMB_ASSERT(out >= sinks);
      std::int64_t to = out;
      Row *key = k.data() + head * width, *value = v.data() + head * width;
      if (out < tail) {
        slots[index(head)] = out - sinks;
        if (cache_.tail_tokens() > 0) {  // the window moves on by one
          to = set_.oldest_from(head, tail);
          std::copy_n(cache_.tail_.key(static_cast<int>(head), to - tail), width, key);
          std::copy_n(cache_.tail_.value(static_cast<int>(head), to - tail), width, value);
          set_.place(head, out, set_.position(head, to), set_.score(head, to));
        }
      }
      if (to >= tail) {
        key = cache_.tail_.key(static_cast<int>(head), to - tail);
        value = cache_.tail_.value(static_cast<int>(head), to - tail);
      }
      for (std::int64_t d = 0; d < width; ++d) {
        key[d] = convert<Row>(keys.row(head, i)[d]);
        value[d] = convert<Row>(values.row(head, i)[d]);
      }
      set_.place(head, to, set_.sequence, score(head, i));
    }
    for (std::int64_t head = 0; head < heads; ++head) {
      if (slots[index(head)] >= 0) encode(slots, slots[index(head)], k, v);
    }
  }

  //! Encodes the rows of all heads whose slot is `slot` and marks them done. The rows of the others, which a
  //! scheme may want because groups can cross heads, go to scratch memory.
  void encode(std::vector<std::int64_t>& slots, std::int64_t slot, std::vector<Row> const& k,
              std::vector<Row> const& v) {
    std::int64_t const stride = cache_.blob_stride(), tile = slot / config().shape.tile_tokens;
    detail::byte_buffer scratch(slots.size() * index(stride));
    std::vector<std::byte*> key_sections, value_sections;
    for (std::size_t head = 0; head < slots.size(); ++head) {
      std::byte* blob = scratch.data() + head * index(stride);
      if (slots[head] == slot) {
        blob = cache_.tiles_.blob(tile, static_cast<int>(head));
        slots[head] = -1;
      }
      key_sections.push_back(blob + cache_.blob_parts().key_offset);
      value_sections.push_back(blob + cache_.blob_parts().value_offset);
    }
    std::vector<float> keys(k.size()), values(v.size());
    std::transform(k.begin(), k.end(), keys.begin(), [](Row x) { return to_float(x); });
    std::transform(v.begin(), v.end(), values.begin(), [](Row x) { return to_float(x); });
    int const at = static_cast<int>(slot % config().shape.tile_tokens);
    null_tracer t;
    Scheme const& s = cache_.scheme();
    s.key.encode(side::key, config().shape,
                 {keys.data(), nullptr, key_sections.data(), config().kv_heads, 1, at, sequence()}, t);
    s.value.encode(side::value, config().shape,
                   {values.data(), nullptr, value_sections.data(), config().kv_heads, 1, at, sequence()}, t);
  }

  cache_type cache_;
  detail::token_set set_;
};

}  // namespace kvcrumb::inline v0
