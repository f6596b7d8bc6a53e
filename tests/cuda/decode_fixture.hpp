// SPDX-License-Identifier: Apache-2.0
//! @file A batch of host caches as a batch_cache, and decode attention over it against the double reference.
#pragma once

#include <algorithm>
#include <memory>

#include "kvcrumb/device/decode.cuh"
#include "support/cache_fixture.hpp"

namespace kvcrumb::test {

//! Memory of exactly n elements on a multiple of 64 bytes, filled with one byte, so that overruns are seen.
template <class T>
class aligned_array {
 public:
  aligned_array() = default;
  explicit aligned_array(std::int64_t n, int fill = 0xFF)
      : bytes_(size(n) * sizeof(T)), store_(new std::byte[bytes_ + 64]) {
    std::memset(static_cast<void*>(data()), fill, bytes_);
  }
  T* data() const {
    return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(store_.get()) + 63) / 64 * 64);
  }
  T& operator[](std::int64_t i) const { return data()[i]; }
  std::int64_t count() const { return static_cast<std::int64_t>(bytes_ / sizeof(T)); }

 private:
  std::size_t bytes_ = 0;
  std::unique_ptr<std::byte[]> store_;
};

enum class paging { block_table, lists, contiguous };

struct batch_layout {
  paging pages = paging::block_table;
  bool separate = true;  //!< keys, values and masks in arrays of their own, with different strides
};

//! A batch of host caches of one scheme, copied into the form that kernels read. Pages are permuted, unused
//! ones hold 0xFF, strides are larger than necessary and differ between keys and values.
template <class Scheme>
class host_batch {
 public:
  host_batch(std::vector<kv_cache<Scheme>> caches, batch_layout layout = {}) : caches_{std::move(caches)} {
    kv_cache<Scheme> const& any = caches_.front();
    int const n = static_cast<int>(caches_.size()), heads = any.config().kv_heads;
    int const dim = any.config().shape.head_dim, tile = any.config().shape.tile_tokens;
    view_.shape = any.config().shape;
    view_.sequences = n;
    view_.kv_heads = heads;
    std::int64_t most = 1, tail = 1, sinks = 0, pages = 0;
    for (auto const& c : caches_) {
      most = std::max(most, c.tiles());
      tail = std::max(tail, c.tail_tokens());
      sinks = std::max(sinks, c.sink_tokens());
      pages += c.tiles();
    }
    bool const contiguous = layout.pages == paging::contiguous;
    std::int64_t const all = contiguous ? n * most : pages + 3;
    blob_layout const parts = any.blob_parts();
    std::int64_t const key_bytes = align_up(parts.value_offset, 16) + (layout.separate ? 32 : 0);
    std::int64_t const value_bytes = align_up(parts.mask_offset - parts.value_offset, 16) + 48;
    if (layout.separate) {
      keys_ = aligned_array<std::byte>(all * heads * key_bytes);
      values_ = aligned_array<std::byte>(all * heads * value_bytes);
      masks_ = aligned_array<std::byte>(all * heads * 16);
      view_.keys = {keys_.data(), heads * key_bytes, key_bytes};
      view_.values = {values_.data(), value_bytes, all * value_bytes};  // [head][page]
      view_.masks = {masks_.data(), heads * 16, 16};
    } else {
      std::int64_t const stride = align_up(parts.bytes, 64);
      keys_ = aligned_array<std::byte>(all * heads * stride);
      view_.keys = {keys_.data(), heads * stride, stride};
      view_.values = {keys_.data() + parts.value_offset, heads * stride, stride};
      view_.masks = {keys_.data() + parts.mask_offset, heads * stride, stride};
    }
    // Page numbers: a permutation with gaps.
    std::vector<std::int32_t> order(size(all));
    for (std::size_t i = 0; i < order.size(); ++i)
      order[i] = static_cast<std::int32_t>(i);
    std::mt19937 engine{5};
    std::shuffle(order.begin(), order.end(), engine);
    tokens_ = aligned_array<std::int32_t>(n);
    encoded_ = aligned_array<std::int32_t>(n);
    last_ = aligned_array<std::int32_t>(n);
    indptr_ = aligned_array<std::int32_t>(n + 1, 0);
    table_ = aligned_array<std::int32_t>(layout.pages == paging::lists ? std::max<std::int64_t>(pages, 1)
                                                                       : n * (most + 2));
    std::int64_t next = 0;
    for (int b = 0; b < n; ++b) {
      kv_cache<Scheme> const& c = caches_[size(b)];
      tokens_[b] = static_cast<std::int32_t>(c.size());
      encoded_[b] = static_cast<std::int32_t>(c.tile_slots());
      indptr_[b + 1] = static_cast<std::int32_t>(indptr_[b] + c.tiles());
      last_[b] = static_cast<std::int32_t>(c.tile_slots() - (c.tiles() - 1) * tile);
      for (std::int64_t t = 0; t < c.tiles(); ++t) {
        std::int32_t const page = contiguous ? static_cast<std::int32_t>(b * most + t) : order[size(next++)];
        if (layout.pages == paging::lists) {
          table_[indptr_[b] + t] = page;
        } else if (!contiguous) {
          table_[b * (most + 2) + t] = page;
        }
        for (int h = 0; h < heads; ++h) {
          std::byte const* blob = c.blob(t, h);
          std::memcpy(view_.keys.section(page, h), blob,
                      size(c.scheme().key.section_bytes(side::key, view_.shape)));
          std::memcpy(view_.values.section(page, h), blob + parts.value_offset,
                      size(c.scheme().value.section_bytes(side::value, view_.shape)));
          std::memcpy(view_.masks.section(page, h), blob + parts.mask_offset, size(tile / 8));
        }
      }
    }
    view_.tokens = tokens_.data();
    view_.encoded = encoded_.data();
    view_.pages.pages = all;
    if (layout.pages == paging::block_table) {
      view_.pages.table = table_.data();
      view_.pages.stride = most + 2;
    } else if (contiguous) {
      view_.pages.stride = most;
    } else {
      view_.pages.table = table_.data();
      view_.pages.indptr = indptr_.data();
      view_.pages.last_page_len = last_.data();
    }
    // Exact rows.
    tail_ = rows(n, heads, tail + 3, dim);
    view_.tail_capacity = static_cast<int>(tail + 3);
    view_.tail_keys = tail_.keys_view, view_.tail_values = tail_.values_view;
    sinks_ = rows(n, heads, std::max<std::int64_t>(sinks, 1), dim);
    view_.sink_capacity = static_cast<int>(sinks);
    view_.sink_keys = sinks_.keys_view, view_.sink_values = sinks_.values_view;
    for (int b = 0; b < n; ++b) {
      auto const v = caches_[size(b)].view();
      for (int h = 0; h < heads; ++h) {
        for (std::int64_t i = 0; i < v.tail.count; ++i)
          copy_row(tail_, b, h, (v.tail.first + i) % view_.tail_capacity, v.tail.keys.row(h, i),
                   v.tail.values.row(h, i), dim);
        for (std::int64_t i = 0; i < v.sinks.count; ++i)
          copy_row(sinks_, b, h, i, v.sinks.keys.row(h, i), v.sinks.values.row(h, i), dim);
      }
    }
    fill_pool(view_.pool, pool_, any.scheme().isolate.pool_capacity(), [](auto const& v) { return v.pool; });
    fill_pool(view_.aux, aux_, any.scheme().isolate.aux_capacity(), [](auto const& v) { return v.aux; });
  }

  batch_cache const& view() const { return view_; }
  batch_cache& view() { return view_; }
  kv_cache<Scheme> const& cache(int b) const { return caches_[size(b)]; }
  std::int32_t* tokens() { return tokens_.data(); }

 private:
  struct row_pair {
    aligned_array<float16> keys, values;
    batch_rows<float16> keys_view, values_view;
  };
  struct pool_memory {
    row_pair rows;
    aligned_array<std::int32_t> positions, counts;
  };
  static row_pair rows(int n, int heads, std::int64_t tokens, int dim) {
    row_pair r;
    std::int64_t const k = dim + 8, v = dim + 16;  // strides differ
    r.keys = aligned_array<float16>(n * heads * tokens * k);
    r.values = aligned_array<float16>(n * heads * tokens * v);
    r.keys_view = {r.keys.data(), heads * tokens * k, tokens * k, k};
    r.values_view = {r.values.data(), heads * tokens * v, tokens * v, v};
    return r;
  }
  static void copy_row(row_pair& to, int b, int h, std::int64_t i, float16 const* key, float16 const* value,
                       int dim) {
    std::copy(key, key + dim, to.keys_view.row(b, h, i));
    std::copy(value, value + dim, to.values_view.row(b, h, i));
  }
  template <class Part>
  void fill_pool(batch_isolated& out, pool_memory& m, int capacity, Part part) {
    if (capacity == 0) return;
    int const n = view_.sequences, heads = view_.kv_heads, dim = view_.shape.head_dim;
    m.rows = rows(n, heads, capacity, dim);
    m.positions = aligned_array<std::int32_t>(n * heads * capacity);
    m.counts = aligned_array<std::int32_t>(n * heads, 0);
    out.keys = m.rows.keys_view, out.values = m.rows.values_view;
    out.positions = m.positions.data(), out.counts = m.counts.data(), out.capacity = capacity;
    for (int b = 0; b < n; ++b) {
      auto const p = part(caches_[size(b)].view());
      if (p.counts == nullptr) continue;
      for (int h = 0; h < heads; ++h) {
        m.counts[b * heads + h] = p.counts[h];
        for (int i = 0; i < p.counts[h]; ++i) {
          m.positions[(b * heads + h) * capacity + i] =
              static_cast<std::int32_t>(p.positions[h * p.stride_positions + i]);
          copy_row(m.rows, b, h, i, p.keys.row(h, i), p.values.row(h, i), dim);
        }
      }
    }
  }

  std::vector<kv_cache<Scheme>> caches_;
  batch_cache view_;
  aligned_array<std::byte> keys_, values_, masks_;
  aligned_array<std::int32_t> tokens_, encoded_, last_, indptr_, table_;
  row_pair tail_, sinks_;
  pool_memory pool_, aux_;
};

//! What a launch is asked for, besides the cache.
struct decode_case {
  int query_heads = 4, queries = 1;
  attention_options options{};  //!< scale, cap, window
  int part = 0, blocks = 5;
  float query_size = 1.0f;
  float sink = 0.0f;  //!< sink logit of all heads, 0: none
};

struct decode_outcome {
  double output = 0.0;  //!< relative error of all outputs, root mean square
  double lse = 0.0;     //!< largest absolute error
  std::vector<float> o, l;
};

//! Runs decode attention under the emulator and compares with the double reference on the decoded cache.
//! Fills outputs with NaN before and checks canaries.
template <class Decoder, class Scheme, class Query = float16>
decode_outcome run_decode(host_batch<Scheme>& batch, decode_case const& k, unsigned seed = 1) {
  batch_cache const& c = batch.view();
  int const dim = c.shape.head_dim;
  std::int64_t const rows = static_cast<std::int64_t>(c.sequences) * k.query_heads * k.queries;
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<Query> q(size(rows * dim));
  for (Query& x : q)
    x = from_float<Query>(normal(engine) * k.query_size);
  decode_outcome r;
  std::vector<float> o(size(rows * dim) + 2, std::nanf("")), lse(size(rows) + 2, std::nanf(""));
  o.front() = o.back() = lse.front() = lse.back() = 12345.0f;
  std::vector<float> const sinks(size(k.query_heads), k.sink);
  std::int64_t const token = dim, head = k.queries * token, sequence = k.query_heads * head;
  typename Decoder::request_type request;
  request.cache = c;
  request.q = {q.data(), sequence, head, token};
  request.o = {o.data() + 1, sequence, head, token};
  request.lse = lse.data() + 1;
  request.query_heads = k.query_heads;
  request.queries = k.queries;
  request.options = {k.options.softmax_scale,
                     k.options.soft_cap,
                     static_cast<int>(k.options.window),
                     k.sink != 0.0f ? sinks.data() : nullptr,
                     k.part,
                     0,
                     k.blocks,
                     false};
  for (int b = 0; b < c.sequences; ++b)
    request.options.max_tokens = std::max(request.options.max_tokens, c.tokens[b]);
  if (request.options.max_tokens == 0) request.options.max_tokens = 1;
  Scheme const& scheme = batch.cache(0).scheme();
  REQUIRE(Decoder::check(scheme, request) == status::ok);
  std::int64_t bytes = 0;
  REQUIRE(Decoder::workspace(request, bytes) == cudaSuccess);
  aligned_array<std::byte> workspace(bytes);
  REQUIRE(Decoder::attend(scheme, request, workspace.data(), bytes) == cudaSuccess);
  CHECK((o.front() == 12345.0f && o.back() == 12345.0f && lse.front() == 12345.0f && lse.back() == 12345.0f));
  r.o.assign(o.begin() + 1, o.end() - 1);
  r.l.assign(lse.begin() + 1, lse.end() - 1);
  double error = 0.0, norm = 0.0;
  for (int b = 0; b < c.sequences; ++b) {
    std::vector<float> mine;
    for (std::int64_t i = b * sequence; i < (b + 1) * sequence; ++i)
      mine.push_back(to_float(q[size(i)]));
    attention_options options = k.options;
    options.sink_logits = k.sink != 0.0f ? sinks.data() : nullptr;
    if (batch.cache(b).size() < k.queries) options.first_query = 0;  // callers compare only what exists
    auto const expected = expected_attention(decode_all(batch.cache(b)), c.kv_heads, dim, mine, k.query_heads,
                                             k.queries, options);
    for (std::size_t i = 0; i < expected.output.size(); ++i) {
      double const got = static_cast<double>(r.o[size(b * sequence) + i]), d = got - expected.output[i];
      if (!std::isfinite(got)) error = std::numeric_limits<double>::infinity();
      error += d * d;
      norm += expected.output[i] * expected.output[i];
    }
    for (std::size_t i = 0; i < expected.log_sum_exp.size(); ++i) {
      double const got = static_cast<double>(r.l[size(b * k.query_heads * k.queries) + i]),
                   e = expected.log_sum_exp[i];
      double const d = got == e ? 0.0 : std::abs(got - e);  // both -inf
      r.lse = std::isnan(d) ? d : std::max(r.lse, d);
    }
  }
  r.output = norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error);
  return r;
}

//! Caches of the given lengths, filled with random rows.
template <class Scheme>
std::vector<kv_cache<Scheme>> caches_of(Scheme const& scheme, int heads, tile_shape shape,
                                        std::vector<int> const& lengths, int outlier_tokens = 5) {
  std::vector<kv_cache<Scheme>> all;
  for (int const n : lengths)
    all.push_back(filled(
        scheme, random_layer(static_cast<unsigned>(11 + n), heads, n, shape.head_dim, 4, outlier_tokens),
        shape.tile_tokens));
  return all;
}

}  // namespace kvcrumb::test
