// SPDX-License-Identifier: Apache-2.0
//! @file The memory behind a batch_cache: pages anywhere, padded strides, canaries; filled from and compared
//! with host caches.
#pragma once

#include <numeric>

#include "kvcrumb/view/batch_cache.hpp"
#include "support/cache_fixture.hpp"
#include "support/device_memory.hpp"

namespace kvcrumb::test {

enum class page_form { paged, listed, contiguous };

struct device_options {
  page_form pages = page_form::paged;
  bool separate = true;   //!< three buffers with strides of their own; false: blobs as the host has them
  int room = 0;           //!< tokens that a sequence may grow by
  int tail_capacity = 0;  //!< 0: what the window and eight new tokens need
  bool encoded = true;  //!< false: no `encoded` array and no tail; row-independent schemes with window {0, 1}
  std::byte poison{0xFF};
};

//! Bytes of which some belong to the cache and the others must never change.
class guarded_bytes {
 public:
  void reset(std::int64_t bytes, std::byte poison) {
    poison_ = poison;
    bytes_.assign(size(bytes), poison);
    owned_.assign(size(bytes), 0);
  }
  void own(std::int64_t begin, std::int64_t bytes) {
    KVCRUMB_ASSERT(begin >= 0 && begin + bytes <= static_cast<std::int64_t>(bytes_.size()));
    for (std::int64_t i = begin; i < begin + bytes; ++i)
      owned_[size(i)] = 1;
  }
  std::byte* data() { return bytes_.data(); }
  bool intact() const {
    synchronize();
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      if (owned_[i] == 0 && bytes_[i] != poison_) return false;
    }
    return true;
  }

 private:
  std::byte poison_{};
  device_vector<std::byte> bytes_;
  std::vector<std::uint8_t> owned_;
};

//! Rows [sequence][head][token] with padding behind each of them.
template <class T>
class guarded_rows {
 public:
  //! `padding`: elements behind a row; `token_major`: [sequence][token][head] instead.
  void reset(int sequences, int heads, int tokens, int dim, int padding, bool token_major, std::byte poison) {
    std::int64_t const stride = dim + padding;
    rows.stride_head = token_major ? stride : stride * tokens + 8;
    rows.stride_token = token_major ? stride * heads + 8 : stride;
    rows.stride_sequence = stride * heads * tokens + 8 * (heads + tokens) + 16;
    std::int64_t const element = sizeof(T);
    memory_.reset((sequences * rows.stride_sequence + 8) * element, poison);
    for (int s = 0; s < sequences; ++s) {
      for (int h = 0; h < heads; ++h) {
        for (int t = 0; t < tokens; ++t)
          memory_.own((s * rows.stride_sequence + h * rows.stride_head + t * rows.stride_token) * element,
                      dim * element);
      }
    }
    rows.data = reinterpret_cast<T*>(memory_.data());
  }
  bool intact() const { return memory_.intact(); }
  batch_rows<T> rows{};

 private:
  guarded_bytes memory_;
};

//! Keys or values of a batch of layers as device input rows; row i of a sequence is its token begin + i.
template <class T>
struct device_input {
  guarded_rows<T> keys, values;

  //! `begin[s]` and `count` rows of each layer; rows beyond a layer's end stay poisoned.
  device_input(std::vector<layer_rows> const& layers, std::vector<int> const& begin, int count) {
    int const heads = layers.at(0).heads, dim = layers.at(0).dim;
    int const sequences = static_cast<int>(layers.size());
    keys.reset(sequences, heads, count, dim, 8, true, std::byte{0xFF});
    values.reset(sequences, heads, count, dim, 16, false, std::byte{0xFF});
    for (int s = 0; s < sequences; ++s) {
      layer_rows const& layer = layers[size(s)];
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < count && begin[size(s)] + i < layer.tokens; ++i) {
          float const *k = layer.key(h, begin[size(s)] + i), *v = layer.value(h, begin[size(s)] + i);
          for (int d = 0; d < dim; ++d) {
            keys.rows.row(s, h, i)[d] = convert<T>(k[d]);
            values.rows.row(s, h, i)[d] = convert<T>(v[d]);
          }
        }
      }
    }
  }
  batch_rows<T const> key_rows() const { return read_only(keys.rows); }
  batch_rows<T const> value_rows() const { return read_only(values.rows); }
  static batch_rows<T const> read_only(batch_rows<T> const& r) {
    return {r.data, r.stride_sequence, r.stride_head, r.stride_token};
  }
};

//! Owns the memory of a batch_cache. Everything starts out poisoned but lengths, counts and `encoded` (zero).
template <class Scheme>
class device_cache {
 public:
  //! Empty caches with room for lengths[s] + options.room tokens of each sequence.
  static device_cache make(Scheme const& scheme, tile_shape shape, int kv_heads,
                           std::vector<int> const& lengths, device_options const& options = {}) {
    return device_cache(scheme, shape, kv_heads, lengths, options);
  }
  device_cache(device_cache&&) = default;
  device_cache& operator=(device_cache&&) = default;
  device_cache(device_cache const&) = delete;
  device_cache& operator=(device_cache const&) = delete;

  batch_cache const& view() const { return view_; }
  Scheme const& scheme() const { return scheme_; }
  void set_length(int sequence, int tokens) {
    synchronize();
    tokens_[size(sequence)] = tokens;
  }
  int length(int sequence) const { return tokens_[size(sequence)]; }
  int encoded(int sequence) const {
    synchronize();
    return encoded_.empty() ? -1 : encoded_[size(sequence)];
  }
  std::int32_t* counts_of_pool() { return pool_.counts.data(); }
  std::int32_t* encoded_data() { return encoded_.data(); }

  //! Copies everything that a host cache holds; with pages.last_page_len also that.
  void load_from_host(int s, kv_cache<Scheme> const& host) {
    cache_view<Scheme, float16> const v = host.view();
    tokens_[size(s)] = static_cast<std::int32_t>(v.tokens);
    if (!encoded_.empty()) encoded_[size(s)] = static_cast<std::int32_t>(v.tile_tokens);
    std::size_t const width = size(view_.shape.head_dim) * sizeof(float16);
    auto const copy = [&](batch_rows<float16> const& k, batch_rows<float16> const& vals, int h,
                          std::int64_t to, float16 const* key, float16 const* value) {
      std::memcpy(k.row(s, h, to), key, width);
      std::memcpy(vals.row(s, h, to), value, width);
    };
    for (int h = 0; h < view_.kv_heads; ++h) {
      for (std::int64_t i = 0; i < v.sinks.count; ++i)
        copy(view_.sink_keys, view_.sink_values, h, i, v.sinks.keys.row(h, i), v.sinks.values.row(h, i));
      for (std::int64_t i = 0; i < v.tail.count; ++i)
        copy(view_.tail_keys, view_.tail_values, h, (v.tail.first + i) % view_.tail_capacity,
             v.tail.keys.row(h, i), v.tail.values.row(h, i));
      for (std::int64_t t = 0; t < v.tiles(); ++t) {
        std::int64_t const page = view_.pages.page(s, t);
        std::memcpy(view_.keys.section(page, h), v.keys.section(h, t), size(key_bytes_));
        std::memcpy(view_.values.section(page, h), v.values.section(h, t), size(value_bytes_));
        std::memcpy(view_.masks.section(page, h), v.masks.section(h, t), size(mask_bytes_));
      }
      load_isolated(view_.pool, v.pool, s, h, width);
      load_isolated(view_.aux, v.aux, s, h, width);
    }
    if (!last_page_len_.empty() && v.tile_tokens > 0)
      last_page_len_[size(s)] = static_cast<std::int32_t>((v.tile_tokens - 1) % view_.shape.tile_tokens + 1);
  }

  //! Where a sequence differs from a host cache, bytes, counts, positions and scores; empty: nowhere. Tiles
  //! in [tiles of the host, all_tiles) must be zero where the host gave them back (truncate).
  std::string difference(int s, kv_cache<Scheme> const& host) const {
    synchronize();
    cache_view<Scheme, float16> const v = host.view();
    auto const says = [&](char const* what, std::int64_t head, std::int64_t at, std::int64_t byte = -1) {
      return std::string(what) + " of sequence " + std::to_string(s) + ", head " + std::to_string(head) +
             ", index " + std::to_string(at) + ", byte " + std::to_string(byte);
    };
    batch_cache::parts const parts = view_.split(s);
    if (parts.sinks != v.sinks.count || parts.slots != v.tile_tokens || parts.tail != v.tail.count)
      return says("parts", parts.sinks, parts.slots, parts.tail);
    std::int64_t const width = view_.shape.head_dim * static_cast<std::int64_t>(sizeof(float16));
    for (int h = 0; h < view_.kv_heads; ++h) {
      for (std::int64_t t = 0; t < v.tiles(); ++t) {
        std::int64_t const page = view_.pages.page(s, t);
        if (auto const b = first_difference(view_.masks.section(page, h), v.masks.section(h, t), mask_bytes_);
            b >= 0)
          return says("mask", h, t, b);
        if (auto const b = first_difference(view_.keys.section(page, h), v.keys.section(h, t), key_bytes_);
            b >= 0)
          return says("key section", h, t, b);
        if (auto const b =
                first_difference(view_.values.section(page, h), v.values.section(h, t), value_bytes_);
            b >= 0)
          return says("value section", h, t, b);
      }
      for (std::int64_t i = 0; i < v.sinks.count; ++i) {
        if (first_difference(view_.sink_keys.row(s, h, i), v.sinks.keys.row(h, i), width) >= 0 ||
            first_difference(view_.sink_values.row(s, h, i), v.sinks.values.row(h, i), width) >= 0)
          return says("sink", h, i);
      }
      for (std::int64_t i = 0; i < v.tail.count; ++i) {
        std::int64_t const at = (v.tail.first + i) % view_.tail_capacity;
        if (first_difference(view_.tail_keys.row(s, h, at), v.tail.keys.row(h, i), width) >= 0 ||
            first_difference(view_.tail_values.row(s, h, at), v.tail.values.row(h, i), width) >= 0)
          return says("tail", h, i);
      }
      if (int const i = isolated_difference(view_.pool, v.pool, s, h, width); i != -1)
        return says("pool", h, i);
      if (int const i = isolated_difference(view_.aux, v.aux, s, h, width); i != -1) return says("aux", h, i);
    }
    return {};
  }

  //! Nothing beside what belongs to the cache was written.
  bool intact() const {
    return keys_.intact() && values_.intact() && masks_.intact() && sink_keys_.intact() &&
           sink_values_.intact() && tail_keys_.intact() && tail_values_.intact() && pool_.keys.intact() &&
           pool_.values.intact() && aux_.keys.intact() && aux_.values.intact();
  }

 private:
  struct isolated {
    guarded_rows<float16> keys, values;
    device_vector<std::int32_t> positions, counts;
    device_vector<float> scores;
  };

  device_cache(Scheme const& scheme, tile_shape shape, int kv_heads, std::vector<int> const& lengths,
               device_options const& o)
      : scheme_{scheme} {
    int const sequences = static_cast<int>(lengths.size());
    view_.shape = shape;
    view_.sequences = sequences;
    view_.kv_heads = kv_heads;
    key_bytes_ = scheme.key.section_bytes(side::key, shape);
    value_bytes_ = scheme.value.section_bytes(side::value, shape);
    mask_bytes_ = shape.tile_tokens / 8;
    make_pages(lengths, o);
    make_sections(o);
    tokens_.assign(size(sequences) + 1, 0);
    view_.tokens = tokens_.data();
    if (o.encoded) {
      encoded_.assign(size(sequences) + 1, 0);
      view_.encoded = encoded_.data();
      window const w = scheme.flush;
      int const longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
      view_.tail_capacity = o.tail_capacity > 0 ? o.tail_capacity
                            : w.block == 0      ? longest + o.room + 8
                                                : w.recent + w.block + 7;
    }
    view_.sink_capacity = scheme.isolate.sink_tokens();
    int const dim = shape.head_dim;
    make_rows(sink_keys_, view_.sink_keys, view_.sink_capacity, dim, 8, false, o);
    make_rows(sink_values_, view_.sink_values, view_.sink_capacity, dim, 16, true, o);
    make_rows(tail_keys_, view_.tail_keys, view_.tail_capacity, dim, 16, false, o);
    make_rows(tail_values_, view_.tail_values, view_.tail_capacity, dim, 8, true, o);
    make_isolated(pool_, view_.pool, scheme.isolate.pool_capacity(), o);
    make_isolated(aux_, view_.aux, scheme.isolate.aux_capacity(), o);
  }

  void make_pages(std::vector<int> const& lengths, device_options const& o) {
    int const tile = view_.shape.tile_tokens, sequences = view_.sequences;
    std::vector<int> tiles;
    for (int const n : lengths)
      tiles.push_back((n + o.room + tile - 1) / tile);
    int const most = tiles.empty() ? 0 : *std::max_element(tiles.begin(), tiles.end());
    int const used = std::accumulate(tiles.begin(), tiles.end(), 0);
    pages_ = o.pages == page_form::contiguous ? sequences * most : used + 2;
    view_.pages.pages = pages_;
    if (o.pages == page_form::contiguous) {
      view_.pages.stride = most;
      return;
    }
    std::vector<std::int32_t> order(size(pages_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937{7});
    if (o.pages == page_form::listed) {
      table_.assign(order.begin(), order.begin() + used);
      table_.push_back(-1);
      indptr_.push_back(0);
      for (int const n : tiles)
        indptr_.push_back(indptr_.back() + n);
      last_page_len_.assign(size(sequences) + 1, tile);
      view_.pages.indptr = indptr_.data();
      view_.pages.last_page_len = last_page_len_.data();
    } else {
      view_.pages.stride = most + 3;
      table_.assign(size(sequences) * size(most + 3) + 1, -1);
      std::size_t next = 0;
      for (int s = 0; s < sequences; ++s) {
        for (int i = 0; i < tiles[size(s)]; ++i)
          table_[size(s) * size(most + 3) + size(i)] = order[next++];
      }
    }
    view_.pages.table = table_.data();
  }

  void make_sections(device_options const& o) {
    int const heads = view_.kv_heads;
    std::int64_t const key = align_up(key_bytes_, 16), value = align_up(value_bytes_, 16);
    auto const own = [&](guarded_bytes& b, batch_sections const& s, std::int64_t bytes) {
      for (int page = 0; page < pages_; ++page) {
        for (int h = 0; h < heads; ++h)
          b.own(s.section(page, h) - b.data(), bytes);
      }
    };
    if (!o.separate) {
      blob_layout const parts = scheme_.blob(view_.shape);
      std::int64_t const stride = align_up(parts.bytes, default_blob_alignment);
      keys_.reset(stride * heads * pages_ + 16, o.poison);
      view_.keys = {keys_.data() + parts.key_offset, stride * heads, stride};
      view_.values = {keys_.data() + parts.value_offset, stride * heads, stride};
      view_.masks = {keys_.data() + parts.mask_offset, stride * heads, stride};
      own(keys_, view_.keys, key_bytes_);
      own(keys_, view_.values, value_bytes_);
      own(keys_, view_.masks, mask_bytes_);
      return;
    }
    view_.keys.stride_head = key + 32;
    view_.keys.stride_page = heads * (key + 32) + 16;
    keys_.reset(pages_ * view_.keys.stride_page + 16, o.poison);
    view_.keys.data = keys_.data() + 16;
    own(keys_, view_.keys, key_bytes_);
    view_.values.stride_page = value + 16;  // [head][page]
    view_.values.stride_head = pages_ * (value + 16) + 48;
    values_.reset(heads * view_.values.stride_head + 16, o.poison);
    view_.values.data = values_.data();
    own(values_, view_.values, value_bytes_);
    view_.masks.stride_head = 32;
    view_.masks.stride_page = heads * 32 + 16;
    masks_.reset(pages_ * view_.masks.stride_page + 16, o.poison);
    view_.masks.data = masks_.data();
    own(masks_, view_.masks, mask_bytes_);
  }

  void make_rows(guarded_rows<float16>& memory, batch_rows<float16>& rows, int capacity, int dim, int padding,
                 bool token_major, device_options const& o) {
    if (capacity == 0) return;
    memory.reset(view_.sequences, view_.kv_heads, capacity, dim, padding, token_major, o.poison);
    rows = memory.rows;
  }
  void make_isolated(isolated& memory, batch_isolated& p, int capacity, device_options const& o) {
    if (capacity == 0) return;
    make_rows(memory.keys, p.keys, capacity, view_.shape.head_dim, 8, true, o);
    make_rows(memory.values, p.values, capacity, view_.shape.head_dim, 24, false, o);
    std::size_t const heads = size(view_.sequences) * size(view_.kv_heads);
    memory.positions.assign(heads * size(capacity) + 1, -7);
    memory.scores.assign(heads * size(capacity) + 1, std::nanf(""));
    memory.counts.assign(heads + 1, 0);
    p.positions = memory.positions.data();
    p.scores = memory.scores.data();
    p.counts = memory.counts.data();
    p.capacity = capacity;
  }

  static std::int64_t first_difference(void const* a, void const* b, std::int64_t bytes) {
    auto const *x = static_cast<std::byte const*>(a), *y = static_cast<std::byte const*>(b);
    for (std::int64_t i = 0; i < bytes; ++i) {
      if (x[i] != y[i]) return i;
    }
    return -1;
  }
  //! The score that decided about an isolated token.
  float score(isolated_rows<float16> const& from, int head, int i) const {
    std::vector<float> row(size(view_.shape.head_dim));
    auto const of = [&](int h) {
      for (std::size_t d = 0; d < row.size(); ++d)
        row[d] = to_float(from.keys.row(h, i)[d]);
      return scheme_.isolate.score(row.data(), view_.shape.head_dim);
    };
    if (scheme_.isolate.scope() == pool_scope::per_head) return of(head);
    return tree_fold(view_.kv_heads, of, [](float a, float b) { return add_rn(a, b); });
  }
  void load_isolated(batch_isolated const& to, isolated_rows<float16> const& from, int s, int h,
                     std::size_t width) {
    if (to.capacity == 0) return;
    std::int64_t const at = static_cast<std::int64_t>(s) * view_.kv_heads + h;
    to.counts[at] = from.counts[h];
    for (int i = 0; i < from.counts[h]; ++i) {
      std::memcpy(to.keys.row(s, h, i), from.keys.row(h, i), width);
      std::memcpy(to.values.row(s, h, i), from.values.row(h, i), width);
      to.positions[at * to.capacity + i] =
          static_cast<std::int32_t>(from.positions[h * from.stride_positions + i]);
      to.scores[at * to.capacity + i] = score(from, h, i);
    }
  }
  //! The entry that differs; -2: the counts do, -1: nothing does.
  int isolated_difference(batch_isolated const& p, isolated_rows<float16> const& host, int s, int h,
                          std::int64_t width) const {
    if (p.capacity == 0) return -1;
    std::int64_t const at = static_cast<std::int64_t>(s) * view_.kv_heads + h;
    if (p.counts[at] != host.counts[h]) return -2;
    for (int i = 0; i < host.counts[h]; ++i) {
      float const expected = score(host, h, i);
      if (p.positions[at * p.capacity + i] != host.positions[h * host.stride_positions + i] ||
          first_difference(&p.scores[at * p.capacity + i], &expected, 4) >= 0 ||
          first_difference(p.keys.row(s, h, i), host.keys.row(h, i), width) >= 0 ||
          first_difference(p.values.row(s, h, i), host.values.row(h, i), width) >= 0)
        return i;
    }
    return -1;
  }

  Scheme scheme_;
  batch_cache view_{};
  int pages_ = 0;
  std::int64_t key_bytes_ = 0, value_bytes_ = 0, mask_bytes_ = 0;
  device_vector<std::int32_t> table_, indptr_, last_page_len_, tokens_, encoded_;
  guarded_bytes keys_, values_, masks_;
  guarded_rows<float16> sink_keys_, sink_values_, tail_keys_, tail_values_;
  isolated pool_, aux_;
};

}  // namespace kvcrumb::test
