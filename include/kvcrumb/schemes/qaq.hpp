// SPDX-License-Identifier: Apache-2.0
//! @file QAQ (arXiv 2403.04643): a bit width for every token, from its range and from the attention it gets.
#pragma once

#include <algorithm>
#include <vector>

#include "kvcrumb/attend.hpp"
#include "kvcrumb/cache/kv_cache.hpp"
#include "kvcrumb/schemes/qaq_width.hpp"

namespace kvcrumb::inline v0 {

//! Owner of one layer of one sequence whose tokens have their own widths.
//!
//! Each kv head keeps its tokens in classes, one row-independent kv_cache for each pair (key bits, value
//! bits) that occurs, and the positions of the tokens of a class. append() keeps rows exact; compress()
//! encodes all but the `recent` newest with the widths that the criterion gives for the attention seen so
//! far. A width is never changed afterwards. attend() joins the classes by their log-sum-exp. Functions that
//! return a status change nothing unless it is ok. Bytes come in whole tiles: each class of each head wastes
//! up to tile_tokens - 1 slots, so short sequences want tiles of 32 and few widths.
template <storage_float Row = float16>
class qaq_cache {
 public:
  using scheme_type = kv_scheme<mean_codes, mean_codes>;
  using cache_type = kv_cache<scheme_type, Row>;

  //! The tokens of one kv head that have the same widths.
  struct token_class {
    qaq_width width{};
    cache_type tokens{};
    std::vector<std::int64_t> positions{};  //!< [tokens.size()], ascending
  };

  qaq_cache() = default;
  qaq_cache(qaq_cache const&) = default;
  qaq_cache& operator=(qaq_cache const&) = default;
  //! A cache that was moved from is as if default-constructed.
  qaq_cache(qaq_cache&& other) : qaq_cache() { swap(other); }
  qaq_cache& operator=(qaq_cache&& other) {
    qaq_cache taken(static_cast<qaq_cache&&>(other));
    swap(taken);
    return *this;
  }
  ~qaq_cache() = default;
  void swap(qaq_cache& other) {
    std::swap(options_, other.options_);
    std::swap(config_, other.config_);
    std::swap(tail_, other.tail_);
    std::swap(classes_, other.classes_);
    std::swap(encoded_, other.encoded_);
  }

  //! Makes an empty cache. bad_bits and out_of_range for the options, else as kv_cache::create.
  static status create(qaq_options const& options, cache_config const& config, qaq_cache& out) {
    if (status const s = options.check(); s != status::ok) return s;
    if (config.kv_heads < 1 || config.kv_heads > 65536) return status::bad_shape;
    qaq_cache made;
    made.options_ = options;
    made.config_ = config;
    cache_type probe;
    if (status const s = made.make_class({options.most, options.most}, probe); s != status::ok) return s;
    made.tail_.reset(config.kv_heads, config.shape.head_dim);
    made.classes_.resize(static_cast<std::size_t>(config.kv_heads));
    out = static_cast<qaq_cache&&>(made);
    return status::ok;
  }

  //! Appends `count` exact tokens, keys and values [kv_heads][count][head_dim]. Errors as kv_cache::append.
  template <row_element K, row_element V>
  status append(rows_view<K> keys, rows_view<V> values, std::int64_t count) {
    if (classes_.empty()) return status::bad_shape;
    status const s =
        detail::check_new_rows<Row>(keys, values, config_.kv_heads, size(), count, config_.shape.head_dim);
    if (s != status::ok) return s;
    tail_.push(keys, values, count);
    return status::ok;
  }

  //! Encodes the exact tokens but the `recent` newest. `attention` is [kv_heads][size()]: the largest weight
  //! that a recent query gave to each position (largest_attention); not_finite or out_of_range outside
  //! [0, 1] (a rounding above 1 is allowed).
  status compress(std::span<float const> attention) {
    std::int64_t const heads = config_.kv_heads, all = size();
    if (classes_.empty()) return status::bad_shape;
    if (static_cast<std::int64_t>(attention.size()) < heads * all) return status::buffer_too_small;
    for (std::int64_t i = 0; i < heads * all; ++i) {
      float const a = attention[static_cast<std::size_t>(i)];
      if (!is_finite_bits(a)) return status::not_finite;
      if (a < 0.0f || a > 1.001f) return status::out_of_range;
    }
    std::int64_t const leaving = std::max<std::int64_t>(tail_.count - options_.recent, 0);
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t i = 0; i < leaving; ++i) {
        std::int64_t const at = encoded_ + i;
        qaq_width const w = width_of(head, i, attention[static_cast<std::size_t>(head * all + at)]);
        token_class& c = class_of(head, w);
        rows_view<Row const> const k{tail_.key(head, i), 0, 0}, v{tail_.value(head, i), 0, 0};
        if (status const s = c.tokens.append(k, v, 1); s != status::ok) return s;  // rows were checked
        c.positions.push_back(at);
      }
    }
    tail_.drop_front(leaving);
    encoded_ += leaving;
    return status::ok;
  }

  //! Floats of working memory that attend needs.
  std::int64_t workspace(int query_heads, int queries) const noexcept {
    std::int64_t const rows = static_cast<std::int64_t>(query_heads) * queries;
    return attend_workspace(tail_view(), query_heads, queries) + rows * (config_.shape.head_dim + 2);
  }

  //! kvcrumb::attend over all classes and the exact rows: the same arguments and errors; `options.part` must
  //! be the default (out_of_range). A tracer sees positions of the sequence.
  template <row_element Q, class Tracer = null_tracer>
  status attend(rows_view<Q> q, int query_heads, int queries, rows_view<float> o, float* lse,
                attention_options options, std::span<float> work, Tracer&& tracer = Tracer{}) const {
    if (classes_.empty()) return status::bad_shape;
    attention_part const all{};
    attention_part const& part = options.part;
    if (part.first_tile != 0 || part.end_tile < all.end_tile || !part.exact_rows || part.first_head != 0 ||
        part.end_head < all.end_head)
      return status::out_of_range;
    cache_view<scheme_type, Row> const exact = tail_view();
    if (status const s = check_attention(exact, q, query_heads, queries, o, options); s != status::ok)
      return s;
    if (static_cast<std::int64_t>(work.size()) < workspace(query_heads, queries))
      return status::buffer_too_small;
    int const ratio = query_heads / config_.kv_heads, width = config_.shape.head_dim;
    std::int64_t const rows = static_cast<std::int64_t>(query_heads) * queries;
    float* const total = work.data();
    float* const part_lse = total + rows;
    rows_view<float> const part_o = hnd_rows(part_lse + rows, queries, width);
    std::span<float> const rest = work.subspan(static_cast<std::size_t>(rows * (width + 2)));
    if (status const s = kvcrumb::attend(exact, q, query_heads, queries, o, total, options, rest, tracer);
        s != status::ok)
      return s;
    options.sink_logits = nullptr;  // counted once, with the exact rows
    for (int head = 0; head < config_.kv_heads; ++head) {
      rows_view<Q> const of_head = q.starting_at(head * ratio, 0);
      for (token_class const& c : classes_[static_cast<std::size_t>(head)]) {
        detail::shifted_heads<std::remove_reference_t<Tracer>> moved{tracer, head * ratio};
        if (status const s =
                kvcrumb::attend(view_of(c), of_head, ratio, queries, part_o, part_lse, options, rest, moved);
            s != status::ok)
          return s;
        for (int i = 0; i < ratio * queries; ++i)
          merge_outputs(o.row(head * ratio + i / queries, i % queries), total[head * ratio * queries + i],
                        part_o.row(i / queries, i % queries), part_lse[i], width);
      }
    }
    for (std::int64_t i = 0; lse != nullptr && i < rows; ++i)
      lse[i] = total[i];
    return status::ok;
  }

  //! One token of one kv head in the original basis, and its widths (0: exact).
  status read(int head, std::int64_t position, float* key, float* value, qaq_width* width = nullptr) const {
    if (key == nullptr || value == nullptr) return status::null_pointer;
    if (head < 0 || head >= config_.kv_heads || position < 0 || position >= size())
      return status::out_of_range;
    if (width != nullptr) *width = {0, 0};
    if (position >= encoded_) {
      tail_.read(head, position - encoded_, key, value);
      return status::ok;
    }
    for (token_class const& c : classes_[static_cast<std::size_t>(head)]) {
      auto const found = std::lower_bound(c.positions.begin(), c.positions.end(), position);
      if (found == c.positions.end() || *found != position) continue;
      if (width != nullptr) *width = c.width;
      return c.tokens.read(0, found - c.positions.begin(), key, value);
    }
    return status::out_of_range;
  }

  qaq_options const& options() const noexcept { return options_; }
  cache_config const& config() const noexcept { return config_; }
  std::int64_t size() const noexcept { return encoded_ + tail_.count; }
  std::int64_t tail_tokens() const noexcept { return tail_.count; }
  std::span<token_class const> classes(int head) const noexcept {
    return classes_[static_cast<std::size_t>(head)];
  }

  //! Whole tiles of all classes, their positions and the exact rows.
  std::int64_t bytes_used() const noexcept {
    std::int64_t n = tail_.bytes();
    for (auto const& of_head : classes_) {
      for (token_class const& c : of_head)
        n += c.tokens.bytes_used() + 8 * c.tokens.size();
    }
    return n;
  }
  //! Measured bits per cached value; 0 for an empty cache.
  double bits_per_value() const noexcept {
    if (size() == 0) return 0.0;
    return 8.0 * static_cast<double>(bytes_used()) /
           (2.0 * static_cast<double>(size()) * config_.kv_heads * config_.shape.head_dim);
  }

 private:
  status make_class(qaq_width w, cache_type& out) const {
    scheme_type scheme{.name = "qaq", .flush = {0, 1}};
    scheme.key = {w.key, options_.outliers};
    scheme.value = {w.value, options_.outliers};
    cache_config config = config_;
    config.kv_heads = 1;
    return cache_type::create(scheme, config, out);
  }
  token_class& class_of(int head, qaq_width w) {
    auto& of_head = classes_[static_cast<std::size_t>(head)];
    for (token_class& c : of_head) {
      if (c.width == w) return c;
    }
    token_class made{.width = w};
    [[maybe_unused]] status const s = make_class(w, made.tokens);
    KVCRUMB_ASSERT(s == status::ok);  // create() tried the widest
    of_head.push_back(static_cast<token_class&&>(made));
    return of_head.back();
  }
  //! The widths of row i of the tail.
  qaq_width width_of(int head, std::int64_t i, float attention) const noexcept {
    float k[256], v[256];
    tail_.read(head, i, k, v);
    mean_codes const rule{.outliers = options_.outliers};
    double const key = static_cast<double>(rule.range_of(k, config_.shape.head_dim)),
                 value = static_cast<double>(rule.range_of(v, config_.shape.head_dim));
    return {
        options_.bits(key, qaq_key_error(options_.query_norm, size(), options_.key_error)),
        options_.bits(value, qaq_value_error(static_cast<double>(attention), size(), options_.value_error))};
  }

  cache_view<scheme_type, Row> tail_view() const noexcept {
    cache_view<scheme_type, Row> v;
    v.shape = config_.shape;
    v.kv_heads = config_.kv_heads;
    v.tokens = v.sequence = size();
    v.tail = tail_.view(encoded_);
    return v;
  }
  cache_view<scheme_type, Row> view_of(token_class const& c) const noexcept {
    cache_view<scheme_type, Row> v = c.tokens.view();
    v.where = {c.positions.data(), c.tokens.size()};
    v.sequence = size();
    return v;
  }

  qaq_options options_{};
  cache_config config_{};
  detail::row_store<Row> tail_;                    //!< tokens [encoded_, size())
  std::vector<std::vector<token_class>> classes_;  //!< [kv_heads]
  std::int64_t encoded_ = 0;
};

}  // namespace kvcrumb::inline v0
