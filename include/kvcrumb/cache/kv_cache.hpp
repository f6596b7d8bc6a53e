// SPDX-License-Identifier: Apache-2.0
//! @file kv_cache: a small host owner of one layer of one sequence; sink rows, tiles, outlier pool and tail.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "kvcrumb/cache/outlier_tokens.hpp"
#include "kvcrumb/cache/tile_store.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0 {

//! Owner of the bytes of one layer of one sequence. Full-precision rows (sinks, pools, tail) are kept as Row.
//!
//! append() follows the streaming rule of the scheme: any chunking of the same rows gives the same bytes.
//! prefill() selects outliers once over the whole prompt. Every token is at any time in exactly one place.
//! Functions that return a status change nothing unless it is ok. Not thread-safe; memory from operator new
//! (the only allocations).
template <class Scheme, storage_float Row = float16>
class kv_cache {
 public:
  using scheme_type = Scheme;
  using row_type = Row;

  kv_cache() = default;
  kv_cache(kv_cache const&) = default;
  kv_cache& operator=(kv_cache const&) = default;
  //! A cache that was moved from is as if default-constructed.
  kv_cache(kv_cache&& other) : kv_cache() { swap(other); }
  kv_cache& operator=(kv_cache&& other) {
    kv_cache taken(static_cast<kv_cache&&>(other));
    swap(taken);
    return *this;
  }
  ~kv_cache() = default;
  void swap(kv_cache& other) {
    std::swap(scheme_, other.scheme_);
    std::swap(tiles_, other.tiles_);
    std::swap(sinks_, other.sinks_);
    std::swap(tail_, other.tail_);
    std::swap(outliers_, other.outliers_);
  }

  //! Makes an empty cache; `out` is untouched when the scheme refuses the configuration.
  static status create(Scheme const& scheme, cache_config const& config, kv_cache& out) {
    if (status const s = scheme.supports(config.shape, config.kv_heads); s != status::ok) return s;
    kv_cache made;
    if (status const s = detail::tile_store<Scheme>::make(scheme, config, made.tiles_); s != status::ok)
      return s;
    made.scheme_ = scheme;
    made.outliers_.reset(scheme.isolate, config.kv_heads, config.shape.head_dim);
    made.sinks_.reset(config.kv_heads, config.shape.head_dim);
    made.tail_.reset(config.kv_heads, config.shape.head_dim);
    out = static_cast<kv_cache&&>(made);
    return status::ok;
  }

  //! Appends `count` tokens: keys and values [kv_heads][count][head_dim] through strided views. Values must
  //! be finite and, after rounding to Row, in its range. `with` is a tracer, which sees what is encoded
  //! during this call, or a row_encoder, which does the work: host::vector_encoder has vector instructions.
  template <row_element K, row_element V, class With = null_tracer>
  status append(rows_view<K> keys, rows_view<V> values, std::int64_t count, With&& with = With{}) {
    if (status const s = check_input(keys, values, count); s != status::ok) return s;
    auto&& encoder = detail::encoder_with(with);
    if (status const s = encoder.template prepare<Row>(scheme_, config()); s != status::ok) return s;
    push(keys, values, count, encoder);
    return status::ok;
  }

  //! The first tokens of an empty cache. With a token pool, the outliers are the smallest scores of all
  //! tokens that will be encoded; the auxiliary pool stays empty. Otherwise the same as append.
  template <row_element K, row_element V, class With = null_tracer>
  status prefill(rows_view<K> keys, rows_view<V> values, std::int64_t count, With&& with = With{}) {
    if (size() != 0) return status::not_empty;
    if (status const s = check_input(keys, values, count); s != status::ok) return s;
    auto&& encoder = detail::encoder_with(with);
    if (status const s = encoder.template prepare<Row>(scheme_, config()); s != status::ok) return s;
    if constexpr (Scheme::isolation_type::how == selection::smallest) {
      std::int64_t const capacity = scheme_.isolate.sink_tokens(),
                         sinks = capacity < count ? capacity : count;
      outliers_.preselect(scheme_.isolate, keys, sinks, scheme_.flush.to_encode(count - sinks), encoder);
    }
    push(keys, values, count, encoder);
    outliers_.preselected.clear();
    return status::ok;
  }

  //! Announces positions that shall be kept exact (external isolation), before those tokens are encoded.
  status isolate(std::span<std::int64_t const> positions) requires(Scheme::isolation_type::how ==
                                                                   selection::listed) {
    return outliers_.announce(positions, encoded_end());
  }

  //! Drops the newest tokens so that `tokens` remain. Group-tiled schemes can drop tokens of the tail only
  //! (not_in_tail otherwise); row-independent ones any. Tokens that an outlier pushed out of the pool stay in
  //! the auxiliary pool.
  status truncate(std::int64_t tokens) {
    if (tokens < 0 || tokens > size()) return status::out_of_range;
    if (tokens >= encoded_end()) {
      tail_.truncate(tokens - encoded_end());
      return status::ok;
    }
    if (tiles_.slots > 0 && !Scheme::row_independent) return status::not_in_tail;
    tail_.truncate(0);
    if constexpr (Scheme::row_independent) {
      std::int64_t const slots = tokens > sinks_.count ? tokens - sinks_.count : 0;
      tiles_.truncate(scheme_, slots);
      outliers_.drop_from(sinks_.count + slots);
    }
    sinks_.truncate(tokens);
    return status::ok;
  }

  //! Replaces one token: keys and values [kv_heads][1][head_dim]. Row-independent schemes can do so anywhere
  //! but in a pool (not_in_tail there).
  template <row_element K, row_element V>
  status rewrite(std::int64_t position, rows_view<K> keys,
                 rows_view<V> values) requires(Scheme::row_independent) {
    if (position < 0 || position >= size()) return status::out_of_range;
    if (status const s = check_input(keys, values, 1); s != status::ok) return s;
    std::int64_t const slot = position - sinks_.count;
    if (slot < 0) {
      sinks_.put(position, keys, values, 1);
    } else if (slot >= tiles_.slots) {
      tail_.put(slot - tiles_.slots, keys, values, 1);
    } else {
      for (int head = 0; head < config().kv_heads; ++head) {
        if (outliers_.holds(head, position)) return status::not_in_tail;
      }
      detail::row_store<Row> row;
      row.reset(config().kv_heads, config().shape.head_dim);
      row.push(keys, values, 1);
      null_tracer none;
      scheme_encoder<null_tracer> encoder(none);
      tiles_.encode(scheme_, slot, row.view(position), {}, encoder);
    }
    return status::ok;
  }

  //! Forgets every token and gives the memory back.
  void clear() {
    if (tiles_.stride == 0) return;  // a default-constructed cache
    kv_cache empty;
    if (create(scheme_, config(), empty) == status::ok) *this = static_cast<kv_cache&&>(empty);
  }

  //! Gives back one token of one kv head as floats in the original basis; exact where it is kept exact.
  status read(int head, std::int64_t position, float* key, float* value, token_place* place = nullptr) const
      requires(decodable<typename Scheme::key_type>&& decodable<typename Scheme::value_type>) {
    if (key == nullptr || value == nullptr) return status::null_pointer;
    if (head < 0 || head >= config().kv_heads || position < 0 || position >= size())
      return status::out_of_range;
    token_place where = token_place::tile;
    if (position < sinks_.count) {
      where = token_place::sink;
      sinks_.read(head, position, key, value);
    } else if (position >= encoded_end()) {
      where = token_place::tail;
      tail_.read(head, position - encoded_end(), key, value);
    } else if (outliers_.pool.read(head, position, key, value)) {
      where = token_place::pool;
    } else if (outliers_.aux.read(head, position, key, value)) {
      where = token_place::auxiliary;
    } else {
      tiles_.decode(scheme_, head, position - sinks_.count, key, value);
    }
    if (place != nullptr) *place = where;
    return status::ok;
  }

  //! What attention reads; valid until the cache changes or dies.
  cache_view<Scheme, Row> view() const noexcept {
    cache_view<Scheme, Row> v;
    v.scheme = scheme_;
    v.shape = config().shape;
    v.kv_heads = config().kv_heads;
    v.tokens = size();
    v.sinks = sinks_.view(0);
    v.keys = tiles_.view(tiles_.parts.key_offset);
    v.values = tiles_.view(tiles_.parts.value_offset);
    v.masks = tiles_.view(tiles_.parts.mask_offset);
    v.tile_first = sinks_.count;
    v.tile_tokens = tiles_.slots;
    v.pool = outliers_.pool.view();
    v.aux = outliers_.aux.view();
    v.tail = tail_.view(encoded_end());
    return v;
  }

  Scheme const& scheme() const noexcept { return scheme_; }
  cache_config const& config() const noexcept { return tiles_.config; }
  std::int64_t size() const noexcept { return encoded_end() + tail_.count; }
  std::int64_t sink_tokens() const noexcept { return sinks_.count; }
  std::int64_t tail_tokens() const noexcept { return tail_.count; }
  //! Slots of tiles in use, isolated ones included.
  std::int64_t tile_slots() const noexcept { return tiles_.slots; }
  std::int64_t tiles() const noexcept { return tiles_.tiles(); }
  std::int64_t blob_stride() const noexcept { return tiles_.stride; }
  blob_layout const& blob_parts() const noexcept { return tiles_.parts; }
  std::byte const* blob(std::int64_t tile, int head) const noexcept { return tiles_.blob(tile, head); }
  //! Isolated tokens of a kv head, in the order they were taken in.
  std::span<scored_token const> pool(int head) const noexcept { return outliers_.pool.tokens(head); }
  std::span<scored_token const> auxiliary(int head) const noexcept { return outliers_.aux.tokens(head); }

  //! Bytes that hold the tokens: whole blobs with their padding, masks, sinks, pools (rows, positions,
  //! scores) and tail. Everything, without exception.
  std::int64_t bytes_used() const noexcept {
    return tiles() * config().kv_heads * tiles_.stride + sinks_.bytes() + tail_.bytes() + outliers_.bytes();
  }
  //! Bytes allocated, capacity included.
  std::int64_t bytes_reserved() const noexcept {
    return static_cast<std::int64_t>(tiles_.bytes.capacity()) + sinks_.reserved() + tail_.reserved() +
           outliers_.reserved();
  }
  //! Measured bits per cached value (keys and values); 0 for an empty cache.
  double bits_per_value() const noexcept {
    if (size() == 0) return 0.0;
    return 8.0 * static_cast<double>(bytes_used()) /
           (2.0 * static_cast<double>(size()) * config().kv_heads * config().shape.head_dim);
  }

 private:
  template <class S, storage_float R>
  friend class cache_file;
  template <class S, storage_float R>
  friend class pruned_cache;  // writes a token of one head where another one was

  std::int64_t encoded_end() const noexcept { return sinks_.count + tiles_.slots; }

  template <class K, class V>
  status check_input(rows_view<K> const& keys, rows_view<V> const& values, std::int64_t count) const {
    if (tiles_.stride == 0) return status::bad_shape;  // never created
    return detail::check_new_rows<Row>(keys, values, config().kv_heads, size(), count,
                                       config().shape.head_dim);
  }

  template <class K, class V, class Encoder>
  void push(rows_view<K> const& keys, rows_view<V> const& values, std::int64_t count, Encoder& encoder) {
    std::int64_t i = 0;  // tokens of the input that have their place
    auto const rest = [&](auto const& rows) { return rows.starting_at(0, i); };
    if (tiles_.slots == 0 && tail_.count == 0) {
      i = std::min(scheme_.isolate.sink_tokens() - sinks_.count, count);
      sinks_.push(keys, values, i, encoder);
    }
    std::int64_t leaving = scheme_.flush.to_encode(tail_.count + count - i);
    if (leaving > 0) tiles_.reserve(tiles_.slots + leaving);
    if (leaving > tail_.count) {
      // Of the tail all leave, with rows that complete its last block; then rows that were never in it.
      std::int64_t n =
          tail_.count > 0 ? align_up(tail_.count, std::int64_t{scheme_.flush.block}) - tail_.count : 0;
      tail_.push(rest(keys), rest(values), n, encoder);
      i += n;
      leaving -= tail_.count;
      encode_tail(tail_.count, encoder);
      for (; leaving > 0; leaving -= n, i += n) {
        if constexpr (std::is_same_v<K const, Row const> && std::is_same_v<V const, Row const>) {
          n = leaving;
          encode({rest(keys).read_only(), rest(values).read_only(), encoded_end(), n}, encoder);
        } else {
          n = std::min(leaving, tiles_.room());
          tail_.push(rest(keys), rest(values), n, encoder);
          encode_tail(n, encoder);
        }
      }
    }
    tail_.push(rest(keys), rest(values), count - i, encoder);
    if (leaving > 0) encode_tail(leaving, encoder);
  }

  //! Encodes the first n rows of the tail and drops them.
  template <class Encoder>
  void encode_tail(std::int64_t n, Encoder& encoder) {
    encode(tail_.view(encoded_end()).part(0, n), encoder);
    tail_.drop_front(n);
  }

  //! Encodes rows that follow those of the tiles, for which there is room; whole append units.
  template <class Encoder>
  void encode(exact_rows<Row> const& rows, Encoder& encoder) {
    constexpr std::int64_t unit = Scheme::append_tokens;
    std::vector<std::uint8_t> isolated;
    for (std::int64_t begin = 0, n = 0; begin < rows.count; begin += n, tiles_.slots += n) {
      n = Encoder::whole_tiles ? std::min(rows.count - begin, tiles_.room()) : unit;
      isolated.assign(static_cast<std::size_t>(config().kv_heads * n), 0);
      for (std::int64_t i = 0; i < n; i += unit)
        outliers_.choose(scheme_.isolate, {rows.part(begin + i, unit), isolated.data() + i, n}, encoder);
      tiles_.encode(scheme_, tiles_.slots, rows.part(begin, n), isolated, encoder);
    }
  }

  Scheme scheme_{};
  detail::tile_store<Scheme> tiles_;
  detail::row_store<Row> sinks_, tail_;
  detail::outlier_tokens<typename Scheme::isolation_type, Row> outliers_;
};

}  // namespace kvcrumb::inline v0
