// SPDX-License-Identifier: Apache-2.0
//! @file Saving and restoring a kv_cache as one block of bytes.
#pragma once

#include <functional>

#include "kvcrumb/cache/kv_cache.hpp"
#include "kvcrumb/cache/scheme_header.hpp"

namespace kvcrumb::inline v0 {

//! Saved form: the header, then per kv head the counts of pool and auxiliary entries, the isolated entries
//! (positions, scores, key rows, value rows), the external list, sink rows, tail rows and the blobs without
//! padding.
template <class Scheme, storage_float Row>
class cache_file {
 public:
  using cache_type = kv_cache<Scheme, Row>;

  //! Bytes that save() writes; 0 for a cache that was never created.
  static std::int64_t size(cache_type const& c) noexcept {
    if (c.tiles_.stride == 0) return 0;
    counter n;
    visit(c, n);
    return static_cast<std::int64_t>(sizeof(file_header)) + n.bytes;
  }

  //! Writes the cache to the beginning of `file`. buffer_too_small if it does not hold size(cache) bytes;
  //! bad_shape for a cache that was never created, size_overflow if the scheme's description is too long.
  static status save(cache_type const& c, std::span<std::byte> file) {
    if (c.tiles_.stride == 0) return status::bad_shape;
    if (!descriptions_fit(c.scheme_)) return status::size_overflow;
    std::int64_t const total = size(c);
    if (static_cast<std::int64_t>(file.size()) < total) return status::buffer_too_small;
    writer w{file.data() + sizeof(file_header)};
    visit(c, w);
    file_header h = header_of(c);
    h.total_bytes = static_cast<std::uint64_t>(total);
    h.payload_crc = crc32(file.subspan(sizeof h, static_cast<std::size_t>(total) - sizeof h));
    h.header_crc = header_checksum(h);
    std::memcpy(file.data(), &h, sizeof h);
    return status::ok;
  }

  //! Reads a cache back. `scheme` must be the one it was saved with, state and capacities included
  //! (scheme_mismatch otherwise); blob_alignment is the reader's choice. A file that is foreign, cut, damaged
  //! or contradicts itself gives a reason and leaves `out` untouched. Allocates what an empty cache of that
  //! shape takes (with at most one head per eight bytes of the file) and the file's size times a small
  //! constant.
  static status restore(std::span<std::byte const> file, Scheme const& scheme, cache_type& out,
                        std::int64_t blob_alignment = default_blob_alignment) {
    file_header h;
    if (status const s = read_header(file, h); s != status::ok) return s;
    if (file.size() < h.total_bytes) return status::truncated;
    std::span<std::byte const> const payload =
        file.subspan(sizeof h, static_cast<std::size_t>(h.total_bytes) - sizeof h);
    if (crc32(payload) != h.payload_crc) return status::bad_checksum;

    cache_config const config{h.kv_heads, {h.head_dim, h.tile_tokens}, blob_alignment};
    if (status const s = scheme.supports(config.shape, config.kv_heads); s != status::ok) return s;
    // Capacities decide allocations: compare them before anything is made.
    isolation auto const& i = scheme.isolate;
    if (h.sink_capacity != i.sink_tokens() || h.pool_capacity != i.pool_capacity() ||
        h.aux_capacity != i.aux_capacity() || h.scope != static_cast<std::int32_t>(i.scope()) ||
        h.recent != scheme.flush.recent || h.block != scheme.flush.block) {
      return status::scheme_mismatch;
    }
    if (h.kv_heads > static_cast<std::int64_t>(payload.size()) / 8)
      return status::bad_header;  // two counts each
    cache_type made;
    if (status const s = cache_type::create(scheme, config, made); s != status::ok) return s;
    file_header const expected = header_of(made);
    if (std::memcmp(h.scheme_name, expected.scheme_name, sizeof h.scheme_name) != 0 ||
        std::memcmp(h.key_text, expected.key_text, sizeof h.key_text) != 0 ||
        std::memcmp(h.value_text, expected.value_text, sizeof h.value_text) != 0 ||
        std::memcmp(h.isolation_text, expected.isolation_text, sizeof h.isolation_text) != 0 ||
        std::memcmp(h.row_type, expected.row_type, sizeof h.row_type) != 0 ||
        h.row_bytes != expected.row_bytes || h.isolation_state != expected.isolation_state ||
        h.key_state != expected.key_state || h.value_state != expected.value_state) {
      return status::scheme_mismatch;
    }
    if (h.blob_bytes != expected.blob_bytes) return status::bad_header;
    if (status const s = size_parts(h, static_cast<std::int64_t>(payload.size()), made); s != status::ok)
      return s;
    reader r{payload.data(), payload.data() + payload.size()};
    if (status const s = read_counts(r, made); s != status::ok) return s;
    counter needed;
    visit(made, needed);
    if (needed.bytes != static_cast<std::int64_t>(payload.size())) return status::bad_header;
    r.at = payload.data();
    visit(made, r);
    if (status const s = check_entries(made); s != status::ok) return s;
    out = std::move(made);
    return status::ok;
  }

 private:
  struct counter {
    std::int64_t bytes = 0;
    template <class T>
    void operator()(T const*, std::int64_t n) noexcept {
      bytes += n * static_cast<std::int64_t>(sizeof(T));
    }
  };
  struct writer {
    std::byte* at;
    template <class T>
    void operator()(T const* data, std::int64_t n) noexcept {
      if (n > 0) std::memcpy(at, data, static_cast<std::size_t>(n) * sizeof(T));
      at += static_cast<std::size_t>(n) * sizeof(T);
    }
  };
  struct reader {
    std::byte const* at;
    std::byte const* end;
    template <class T>
    void operator()(T const* data, std::int64_t n) noexcept {
      if (n > 0) std::memcpy(const_cast<T*>(data), at, static_cast<std::size_t>(n) * sizeof(T));
      at += static_cast<std::size_t>(n) * sizeof(T);
    }
  };

  //! The payload in order. The three visitors share it, so that sizes, writing and reading cannot disagree.
  template <class Visitor>
  static void visit(cache_type const& c, Visitor& f) noexcept {
    for (auto const* store : {&c.outliers_.pool, &c.outliers_.aux})
      f(store->counts.data(), c.config().kv_heads);
    for (auto const* store : {&c.outliers_.pool, &c.outliers_.aux}) {
      for (int head = 0; head < c.config().kv_heads; ++head) {
        std::int64_t const n = store->counts[static_cast<std::size_t>(head)];
        if (n == 0) continue;
        std::size_t const first = store->index(head, 0), width = static_cast<std::size_t>(store->head_dim);
        for (std::size_t j = first; j < first + static_cast<std::size_t>(n); ++j) {
          f(&store->scored[j].position, 1);
          f(&store->scored[j].score, 1);
        }
        f(store->keys.data() + first * width, n * store->head_dim);
        f(store->values.data() + first * width, n * store->head_dim);
      }
    }
    f(c.outliers_.listed.data(), static_cast<std::int64_t>(c.outliers_.listed.size()));
    for (auto const* rows : {&c.sinks_, &c.tail_}) {
      if (rows->count == 0) continue;
      for (int head = 0; head < rows->heads; ++head) {
        f(rows->key(head, 0), rows->count * rows->head_dim);
        f(rows->value(head, 0), rows->count * rows->head_dim);
      }
    }
    for (std::int64_t tile = 0; tile < c.tiles(); ++tile) {
      for (int head = 0; head < c.config().kv_heads; ++head)
        f(c.blob(tile, head), c.tiles_.parts.bytes);
    }
  }

  static file_header header_of(cache_type const& c) noexcept {
    file_header h = scheme_header(c.scheme_, c.config());
    copy_text(h.row_type, storage_name<Row>());
    h.row_bytes = sizeof(Row);
    h.blob_bytes = c.tiles_.parts.bytes;
    h.sink_count = c.sinks_.count;
    h.tile_slots = c.tiles_.slots;
    h.tail_count = c.tail_.count;
    h.listed_count = static_cast<std::int64_t>(c.outliers_.listed.size());
    return h;
  }

  //! Allocates the parts of `c` for the counts of a header that may say anything.
  static status size_parts(file_header const& h, std::int64_t payload, cache_type& c) {
    std::int64_t const row = static_cast<std::int64_t>(h.kv_heads) * h.head_dim * h.row_bytes * 2;
    for (std::int64_t const n : {h.sink_count, h.tile_slots, h.tail_count, h.listed_count}) {
      if (n < 0 || n > payload) return status::bad_header;  // a token takes at least one byte
    }
    if (h.sink_count > payload / row || h.tail_count > payload / row || h.sink_count > h.sink_capacity ||
        h.listed_count > payload / 8 || h.listed_count > h.pool_capacity ||
        (Scheme::isolation_type::how != selection::listed && h.listed_count != 0)) {
      return status::bad_header;
    }
    // Blocks leave the tail whole; only row-independent schemes can drop part of one again.
    std::int64_t const unit = Scheme::row_independent ? 1 : h.block > 0 ? h.block : h.tile_slots + 1;
    std::int64_t const per_tile = h.blob_bytes * h.kv_heads;
    std::int64_t const tiles = (h.tile_slots + h.tile_tokens - 1) / h.tile_tokens;
    if (tiles > payload / per_tile || h.tile_slots % unit != 0) return status::bad_header;
    if (h.block > 0 && h.tail_count >= static_cast<std::int64_t>(h.recent) + h.block)
      return status::bad_header;
    if (h.tile_slots + h.tail_count > 0 && h.sink_count != h.sink_capacity) return status::bad_header;
    c.sinks_.reserve(h.sink_count);
    c.sinks_.count = h.sink_count;
    c.tail_.reserve(h.tail_count);
    c.tail_.count = h.tail_count;
    c.outliers_.listed.resize(static_cast<std::size_t>(h.listed_count));
    c.tiles_.slots = h.tile_slots;
    c.tiles_.reserve(h.tile_slots);
    return status::ok;
  }

  static status read_counts(reader& r, cache_type& c) noexcept {
    if (r.end - r.at < static_cast<std::ptrdiff_t>(8) * c.config().kv_heads) return status::bad_header;
    for (auto* store : {&c.outliers_.pool, &c.outliers_.aux}) {
      r(store->counts.data(), c.config().kv_heads);
      for (std::int32_t const n : store->counts) {
        if (n < 0 || n > store->capacity) return status::bad_header;
      }
    }
    return status::ok;
  }

  //! Isolated positions lie among the encoded ones, once each, and exactly their slots are masked. Heads that
  //! decide together hold the same tokens and a caller's list has all of them, so that no pool overflows
  //! later.
  static status check_entries(cache_type& c) {
    auto const& listed = c.outliers_.listed;
    if (std::adjacent_find(listed.begin(), listed.end(), std::greater_equal<>{}) != listed.end())
      return status::bad_header;
    auto const same = [](scored_token a, scored_token b) {
      return a.position == b.position && a.score == b.score;
    };
    bool const together = c.scheme_.isolate.scope() == pool_scope::per_layer;
    std::int64_t const first = c.sinks_.count, end = first + c.tiles_.slots;
    int const tokens = c.config().shape.tile_tokens;
    for (int head = 0; head < c.config().kv_heads; ++head) {
      std::vector<std::int64_t> out;
      for (auto* store : {&c.outliers_.pool, &c.outliers_.aux}) {
        if (together && !std::ranges::equal(store->tokens(head), store->tokens(0), same))
          return status::bad_header;
        for (scored_token const& t : store->tokens(head)) {
          if (t.position < first || t.position >= end || is_nan_bits(t.score)) return status::bad_header;
          if (Scheme::isolation_type::how == selection::listed &&
              !std::binary_search(listed.begin(), listed.end(), t.position)) {
            return status::bad_header;
          }
          store->positions[store->index(head, static_cast<int>(&t - store->tokens(head).data()))] =
              t.position;
          out.push_back(t.position);
        }
      }
      std::sort(out.begin(), out.end());
      if (std::adjacent_find(out.begin(), out.end()) != out.end()) return status::bad_header;
      for (std::int64_t slot = 0; slot < c.tiles() * tokens; ++slot) {
        bool const expected =
            slot < c.tiles_.slots && !std::binary_search(out.begin(), out.end(), first + slot);
        std::byte const* mask = c.blob(slot / tokens, head) + c.tiles_.parts.mask_offset;
        int const at = static_cast<int>(slot % tokens);
        if ((((std::to_integer<unsigned>(mask[at / 8]) >> (at % 8)) & 1u) != 0) != expected)
          return status::bad_header;
      }
    }
    return status::ok;
  }
};

//! Bytes of the saved form of a cache.
template <class Scheme, storage_float Row>
std::int64_t saved_bytes(kv_cache<Scheme, Row> const& cache) noexcept {
  return cache_file<Scheme, Row>::size(cache);
}
//! See cache_file::save.
template <class Scheme, storage_float Row>
status save(kv_cache<Scheme, Row> const& cache, std::span<std::byte> file) {
  return cache_file<Scheme, Row>::save(cache, file);
}
//! See cache_file::restore.
template <class Scheme, storage_float Row>
status restore(std::span<std::byte const> file, Scheme const& scheme, kv_cache<Scheme, Row>& out,
               std::int64_t blob_alignment = default_blob_alignment) {
  return cache_file<Scheme, Row>::restore(file, scheme, out, blob_alignment);
}

}  // namespace kvcrumb::inline v0
