// SPDX-License-Identifier: Apache-2.0
//! @file kv_cache: a small host owner of one layer of one sequence; sink rows, tiles, outlier pool and tail.
#pragma once

#include <span>
#include <vector>

#include "kvcrumb/cache/outlier_tokens.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0 {

//! What a cache is made for.
struct cache_config {
  int kv_heads = 1;
  tile_shape shape{};
  //! Alignment of blobs in bytes, a power of two in [16, 4096]; blobs are padded to a multiple of it.
  std::int64_t blob_alignment = default_blob_alignment;
};

//! Where a token is kept.
enum class token_place : std::uint8_t { sink, tile, pool, auxiliary, tail };

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

  //! Makes an empty cache; `out` is untouched when the scheme refuses the configuration.
  static status create(Scheme const& scheme, cache_config const& config, kv_cache& out) {
    if (status const s = scheme.supports(config.shape, config.kv_heads); s != status::ok) return s;
    std::int64_t const a = config.blob_alignment;
    if (a < 16 || a > detail::storage_alignment || (a & (a - 1)) != 0) return status::misaligned;
    kv_cache made;
    made.scheme_ = scheme;
    made.config_ = config;
    made.blob_ = scheme.blob(config.shape);
    made.blob_stride_ = align_up(made.blob_.bytes, a);
    made.outliers_.reset(scheme.isolate, config.kv_heads, config.shape.head_dim);
    made.sinks_.reset(config.kv_heads, config.shape.head_dim);
    made.tail_.reset(config.kv_heads, config.shape.head_dim);
    out = std::move(made);
    return status::ok;
  }

  //! Appends `count` tokens: keys and values [kv_heads][count][head_dim] through strided views. Values must
  //! be finite and, after rounding to Row, in its range. The tracer sees what is encoded during this call.
  template <storage_float T, class Tracer = null_tracer>
  status append(rows_view<T const> keys, rows_view<T const> values, std::int64_t count,
                Tracer&& tracer = Tracer{}) {
    if (status const s = check_input(keys, values, count); s != status::ok) return s;
    push(keys, values, count, tracer);
    return status::ok;
  }

  //! The first tokens of an empty cache. With a token pool, the outliers are the smallest scores of all
  //! tokens that will be encoded; the auxiliary pool stays empty. Otherwise the same as append.
  template <storage_float T, class Tracer = null_tracer>
  status prefill(rows_view<T const> keys, rows_view<T const> values, std::int64_t count,
                 Tracer&& tracer = Tracer{}) {
    if (size() != 0) return status::not_empty;
    if (status const s = check_input(keys, values, count); s != status::ok) return s;
    if constexpr (Scheme::isolation_type::how == selection::smallest) {
      std::int64_t const sinks = std::min<std::int64_t>(scheme_.isolate.sink_tokens(), count);
      outliers_.preselect(scheme_.isolate, keys, sinks, tokens_to_encode(count - sinks));
    }
    push(keys, values, count, tracer);
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
    if (tokens < encoded_end() && tile_slots_ > 0 && !Scheme::row_independent) return status::not_in_tail;
    if (tokens >= encoded_end()) {
      tail_.truncate(tokens - encoded_end());
      return status::ok;
    }
    tail_.truncate(0);
    if constexpr (Scheme::row_independent) drop_slots(std::max<std::int64_t>(tokens - sinks_.count, 0));
    if (tokens < sinks_.count) sinks_.truncate(tokens);
    return status::ok;
  }

  //! Forgets every token and gives the memory back.
  void clear() {
    kv_cache empty;
    if (create(scheme_, config_, empty) == status::ok) *this = std::move(empty);
  }

  //! Gives back one token of one kv head as floats in the original basis; exact where it is kept exact.
  status read(int head, std::int64_t position, float* key, float* value, token_place* place = nullptr) const
      requires(decodable<typename Scheme::key_type>&& decodable<typename Scheme::value_type>) {
    if (key == nullptr || value == nullptr) return status::null_pointer;
    if (head < 0 || head >= config_.kv_heads || position < 0 || position >= size())
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
      std::int64_t const slot = position - sinks_.count, t = slot / config_.shape.tile_tokens;
      int const at = static_cast<int>(slot % config_.shape.tile_tokens);
      std::byte const* b = blob(t, head);
      scheme_.key.decode_row(side::key, config_.shape, head, b + blob_.key_offset, at, key);
      scheme_.value.decode_row(side::value, config_.shape, head, b + blob_.value_offset, at, value);
    }
    if (place != nullptr) *place = where;
    return status::ok;
  }

  //! What attention reads; valid until the cache changes or dies.
  cache_view<Scheme, Row> view() const noexcept {
    cache_view<Scheme, Row> v;
    std::int64_t const tile_stride = blob_stride_ * config_.kv_heads;
    v.scheme = scheme_;
    v.shape = config_.shape;
    v.kv_heads = config_.kv_heads;
    v.tokens = size();
    v.sinks = sinks_.view(0);
    v.keys = {blobs_.data() + blob_.key_offset, blob_stride_, tile_stride};
    v.values = {blobs_.data() + blob_.value_offset, blob_stride_, tile_stride};
    v.masks = {blobs_.data() + blob_.mask_offset, blob_stride_, tile_stride};
    v.tile_first = sinks_.count;
    v.tile_tokens = tile_slots_;
    v.pool = outliers_.pool.view();
    v.aux = outliers_.aux.view();
    v.tail = tail_.view(encoded_end());
    return v;
  }

  Scheme const& scheme() const noexcept { return scheme_; }
  cache_config const& config() const noexcept { return config_; }
  std::int64_t size() const noexcept { return sinks_.count + tile_slots_ + tail_.count; }
  std::int64_t sink_tokens() const noexcept { return sinks_.count; }
  std::int64_t tail_tokens() const noexcept { return tail_.count; }
  //! Slots of tiles in use, isolated ones included.
  std::int64_t tile_slots() const noexcept { return tile_slots_; }
  std::int64_t tiles() const noexcept {
    return (tile_slots_ + config_.shape.tile_tokens - 1) / config_.shape.tile_tokens;
  }
  std::int64_t blob_stride() const noexcept { return blob_stride_; }
  blob_layout const& blob_parts() const noexcept { return blob_; }
  std::byte const* blob(std::int64_t tile, int head) const noexcept {
    return blobs_.data() + (tile * config_.kv_heads + head) * blob_stride_;
  }
  //! Isolated tokens of a kv head, in the order they were taken in.
  std::span<scored_token const> pool(int head) const noexcept { return outliers_.pool.tokens(head); }
  std::span<scored_token const> auxiliary(int head) const noexcept { return outliers_.aux.tokens(head); }

  //! Bytes that hold the tokens: whole blobs with their padding, masks, sinks, pools (rows, positions,
  //! scores) and tail. Everything, without exception.
  std::int64_t bytes_used() const noexcept {
    return tiles() * config_.kv_heads * blob_stride_ + sinks_.bytes() + tail_.bytes() +
           outliers_.pool.bytes() + outliers_.aux.bytes() +
           static_cast<std::int64_t>(outliers_.listed.size() * sizeof(std::int64_t));
  }
  //! Bytes allocated, capacity included.
  std::int64_t bytes_reserved() const noexcept {
    return static_cast<std::int64_t>(blobs_.capacity()) + sinks_.reserved() + tail_.reserved() +
           outliers_.pool.reserved() + outliers_.aux.reserved() +
           static_cast<std::int64_t>(outliers_.listed.capacity() * sizeof(std::int64_t));
  }
  //! Measured bits per cached value (keys and values); 0 for an empty cache.
  double bits_per_value() const noexcept {
    if (size() == 0) return 0.0;
    return 8.0 * static_cast<double>(bytes_used()) /
           (2.0 * static_cast<double>(size()) * config_.kv_heads * config_.shape.head_dim);
  }

 private:
  template <class S, storage_float R>
  friend class cache_file;

  std::int64_t encoded_end() const noexcept { return sinks_.count + tile_slots_; }
  std::byte* blob(std::int64_t tile, int head) noexcept {
    return blobs_.data() + (tile * config_.kv_heads + head) * blob_stride_;
  }

  template <class T>
  status check_input(rows_view<T const> const& keys, rows_view<T const> const& values,
                     std::int64_t count) const {
    if (config_.kv_heads < 1 || blob_stride_ == 0) return status::bad_shape;  // a default-constructed cache
    if (count < 0) return status::bad_shape;
    if (count > (std::int64_t{1} << 40) || size() > (std::int64_t{1} << 40)) return status::size_overflow;
    int const width = config_.shape.head_dim;
    if (status const s = check_rows(keys, config_.kv_heads, count, width); s != status::ok) return s;
    if (status const s = check_rows(values, config_.kv_heads, count, width); s != status::ok) return s;
    if (status const s = detail::check_row_values<Row>(keys, config_.kv_heads, count, width); s != status::ok)
      return s;
    return detail::check_row_values<Row>(values, config_.kv_heads, count, width);
  }

  template <class T, class Tracer>
  void push(rows_view<T const> const& keys, rows_view<T const> const& values, std::int64_t count,
            Tracer& tracer) {
    window const w = scheme_.flush;
    for (std::int64_t i = 0; i < count; ++i) {
      bool const sink = tile_slots_ == 0 && tail_.count == 0 && sinks_.count < scheme_.isolate.sink_tokens();
      (sink ? sinks_ : tail_).push(keys, values, i);
      if (w.block > 0 && tail_.count >= static_cast<std::int64_t>(w.recent) + w.block) {
        for (int done = 0; done < w.block; done += Scheme::append_tokens)
          encode_group(done, tracer);
        tail_.drop_front(w.block);
        tile_slots_ += w.block;
      }
    }
  }

  //! Encodes append_tokens rows of the tail, beginning at row `begin` of it.
  template <class Tracer>
  void encode_group(int begin, Tracer& tracer) {
    constexpr int n = Scheme::append_tokens;
    int const heads = config_.kv_heads, width = config_.shape.head_dim;
    std::int64_t const slot = tile_slots_ + begin, position = sinks_.count + slot;
    std::int64_t const tile = slot / config_.shape.tile_tokens;
    int const at = static_cast<int>(slot % config_.shape.tile_tokens);
    if (at == 0) blobs_.resize(static_cast<std::size_t>((tile + 1) * heads * blob_stride_), std::byte{0});

    std::vector<float> k(static_cast<std::size_t>(heads * n) * static_cast<std::size_t>(width)), v(k.size());
    for (int i = 0; i < heads * n; ++i) {
      std::int64_t const row = static_cast<std::int64_t>(i) * width;
      tail_.read(i / n, begin + i % n, k.data() + row, v.data() + row);
    }
    std::vector<std::uint8_t> isolated(static_cast<std::size_t>(heads * n), 0);
    outliers_.choose(scheme_.isolate, {position, begin, n, k.data(), isolated.data()}, tail_);

    std::vector<std::byte*> keys, values;
    for (int head = 0; head < heads; ++head) {
      std::byte* b = blob(tile, head);
      keys.push_back(b + blob_.key_offset);
      values.push_back(b + blob_.value_offset);
      for (int i = 0; i < n; ++i) {
        if (isolated[static_cast<std::size_t>(head * n + i)] != 0) continue;
        b[blob_.mask_offset + (at + i) / 8] |= std::byte{1} << ((at + i) % 8);
      }
    }
    encode_request const of_keys{k.data(), isolated.data(), keys.data(), heads, n, at, position};
    encode_request const of_values{v.data(), isolated.data(), values.data(), heads, n, at, position};
    scheme_.key.encode(side::key, config_.shape, of_keys, tracer);
    scheme_.value.encode(side::value, config_.shape, of_values, tracer);
  }

  //! How many of `count` tokens behind the sinks leave the tail when they are appended at once.
  std::int64_t tokens_to_encode(std::int64_t count) const noexcept {
    window const w = scheme_.flush;
    return w.block > 0 && count >= static_cast<std::int64_t>(w.recent) + w.block
               ? (count - w.recent) / w.block * w.block
               : 0;
  }

  //! Row-independent schemes: forgets slots [slots, tile_slots_) and the isolated tokens among them.
  void drop_slots(std::int64_t slots) {
    int const tokens = config_.shape.tile_tokens;
    for (std::int64_t slot = slots; slot < tile_slots_; ++slot) {
      int const at = static_cast<int>(slot % tokens);
      for (int head = 0; head < config_.kv_heads; ++head) {
        std::byte* b = blob(slot / tokens, head);
        scheme_.key.clear(side::key, config_.shape, at, 1, b + blob_.key_offset);
        scheme_.value.clear(side::value, config_.shape, at, 1, b + blob_.value_offset);
        b[blob_.mask_offset + at / 8] &= ~(std::byte{1} << (at % 8));
      }
    }
    tile_slots_ = slots;
    blobs_.resize(static_cast<std::size_t>(tiles() * config_.kv_heads * blob_stride_));
    outliers_.drop_from(sinks_.count + slots);
  }

  Scheme scheme_{};
  cache_config config_{};
  blob_layout blob_{};
  std::int64_t blob_stride_ = 0;
  detail::byte_buffer blobs_;  //!< [tile][head], blob_stride_ each
  std::int64_t tile_slots_ = 0;
  detail::row_store<Row> sinks_, tail_;
  detail::outlier_tokens<typename Scheme::isolation_type, Row> outliers_;
};

}  // namespace kvcrumb::inline v0
