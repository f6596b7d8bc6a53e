// SPDX-License-Identifier: Apache-2.0
//! @file Device caches that kernels fill: memory full of 0xFF, and the comparison with host caches.
#pragma once

#include "cuda/decode_fixture.hpp"

namespace kvcrumb::test {

//! Room for `sequences` caches of up to `most` tokens. Everything holds 0xFF: recycled pages.
template <class Scheme>
class empty_batch {
 public:
  empty_batch(Scheme const& scheme, int heads, tile_shape shape, int sequences, int most, int new_tokens = 1)
      : scheme_{scheme} {
    int const tiles = most / shape.tile_tokens + 1, pages = sequences * tiles + 2, dim = shape.head_dim;
    parts_ = scheme.blob(shape);
    std::int64_t const key_bytes = align_up(parts_.value_offset, 16) + 32,
                       value_bytes = align_up(parts_.mask_offset - parts_.value_offset, 16) + 16;
    keys_ = aligned_array<std::byte>(pages * heads * key_bytes);
    values_ = aligned_array<std::byte>(pages * heads * value_bytes);
    masks_ = aligned_array<std::byte>(pages * heads * 16);
    table_ = aligned_array<std::int32_t>(sequences * tiles);
    tokens_ = aligned_array<std::int32_t>(sequences, 0);
    encoded_ = aligned_array<std::int32_t>(sequences, 0);
    tickets_ = aligned_array<std::uint32_t>(sequences, 0);
    for (int i = 0; i < sequences * tiles; ++i)
      table_[i] = pages - 1 - i;
    view_.shape = shape;
    view_.sequences = sequences;
    view_.kv_heads = heads;
    view_.keys = {keys_.data(), heads * key_bytes, key_bytes};
    view_.values = {values_.data(), value_bytes, pages * value_bytes};
    view_.masks = {masks_.data(), heads * 16, 16};
    view_.pages.table = table_.data();
    view_.pages.stride = tiles;
    view_.pages.pages = pages;
    view_.tokens = tokens_.data();
    view_.encoded = encoded_.data();
    window const w = scheme.flush;
    view_.tail_capacity = w.block == 0 ? most + 1 : w.recent + w.block + new_tokens + 1;
    std::int64_t const k = dim + 8, v = dim + 16;
    auto const rows = [&](aligned_array<float16>& memory, std::int64_t count, std::int64_t stride) {
      memory = aligned_array<float16>(sequences * heads * std::max<std::int64_t>(count, 1) * stride);
      return batch_rows<float16>{memory.data(), heads * count * stride, count * stride, stride};
    };
    view_.tail_keys = rows(memory_[0], view_.tail_capacity, k);
    view_.tail_values = rows(memory_[1], view_.tail_capacity, v);
    view_.sink_capacity = scheme.isolate.sink_tokens();
    view_.sink_keys = rows(memory_[2], view_.sink_capacity, k);
    view_.sink_values = rows(memory_[3], view_.sink_capacity, v);
    int n = 4;
    for (auto* pool : {&view_.pool, &view_.aux}) {
      bool const aux = pool == &view_.aux;
      pool->capacity = aux ? scheme.isolate.aux_capacity() : scheme.isolate.pool_capacity();
      pool->keys = rows(memory_[n++], pool->capacity, k);
      pool->values = rows(memory_[n++], pool->capacity, v);
      positions_[aux] = aligned_array<std::int32_t>(sequences * heads * pool->capacity + 1);
      scores_[aux] = aligned_array<float>(sequences * heads * pool->capacity + 1);
      counts_[aux] = aligned_array<std::int32_t>(sequences * heads, 0);
      pool->positions = positions_[aux].data();
      pool->scores = scores_[aux].data();
      pool->counts = counts_[aux].data();
    }
  }

  batch_cache const& view() const { return view_; }
  std::int32_t& tokens(int b) { return tokens_[b]; }
  void* tickets() { return tickets_.data(); }
  std::int64_t ticket_bytes() const { return 4 * tickets_.count(); }

  //! Compares everything of one sequence with a host cache. Pools in any order of entries when `ordered` is
  //! false.
  void check_equal(int b, kv_cache<Scheme> const& host) const {
    tile_shape const shape = view_.shape;
    int const dim = shape.head_dim;
    auto const v = host.view();
    REQUIRE(encoded_[b] == host.tile_slots());
    REQUIRE(tickets_[b] == 0);
    for (int h = 0; h < view_.kv_heads; ++h) {
      for (std::int64_t t = 0; t < host.tiles(); ++t) {
        INFO("sequence " << b << " head " << h << " tile " << t);
        std::int64_t const page = view_.pages.page(b, t);
        std::byte const* blob = host.blob(t, h);
        REQUIRE(first_difference(view_.keys.section(page, h), blob,
                                 scheme_.key.section_bytes(side::key, shape)) == -1);
        REQUIRE(first_difference(view_.values.section(page, h), blob + parts_.value_offset,
                                 scheme_.value.section_bytes(side::value, shape)) == -1);
        REQUIRE(first_difference(view_.masks.section(page, h), blob + parts_.mask_offset,
                                 shape.tile_tokens / 8) == -1);
      }
      for (std::int64_t i = 0; i < v.tail.count; ++i) {
        std::int64_t const at = (v.tail.first + i) % view_.tail_capacity;
        REQUIRE(
            std::equal(v.tail.keys.row(h, i), v.tail.keys.row(h, i) + dim, view_.tail_keys.row(b, h, at)));
        REQUIRE(std::equal(v.tail.values.row(h, i), v.tail.values.row(h, i) + dim,
                           view_.tail_values.row(b, h, at)));
      }
      for (std::int64_t i = 0; i < v.sinks.count; ++i) {
        REQUIRE(
            std::equal(v.sinks.keys.row(h, i), v.sinks.keys.row(h, i) + dim, view_.sink_keys.row(b, h, i)));
        REQUIRE(std::equal(v.sinks.values.row(h, i), v.sinks.values.row(h, i) + dim,
                           view_.sink_values.row(b, h, i)));
      }
      check_pool(view_.pool, v.pool, host.pool(h), b, h, dim);
      check_pool(view_.aux, v.aux, host.auxiliary(h), b, h, dim);
    }
  }

 private:
  static std::int64_t first_difference(std::byte const* a, std::byte const* b, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (a[i] != b[i]) return i;
    }
    return -1;
  }
  template <class Part>
  void check_pool(batch_isolated const& mine, Part const& theirs, std::span<scored_token const> tokens, int b,
                  int h, int dim) const {
    if (mine.capacity == 0) return;
    std::int64_t const at = static_cast<std::int64_t>(b) * view_.kv_heads + h;
    REQUIRE(mine.counts[at] == static_cast<int>(tokens.size()));
    for (int i = 0; i < mine.counts[at]; ++i) {
      INFO("entry " << i);
      REQUIRE(mine.positions[at * mine.capacity + i] == tokens[size(i)].position);
      REQUIRE(mine.scores[at * mine.capacity + i] == tokens[size(i)].score);
      REQUIRE(std::equal(theirs.keys.row(h, i), theirs.keys.row(h, i) + dim, mine.keys.row(b, h, i)));
      REQUIRE(std::equal(theirs.values.row(h, i), theirs.values.row(h, i) + dim, mine.values.row(b, h, i)));
    }
  }

  Scheme scheme_;
  blob_layout parts_;
  batch_cache view_;
  aligned_array<std::byte> keys_, values_, masks_;
  aligned_array<std::int32_t> table_, tokens_, encoded_;
  aligned_array<std::uint32_t> tickets_;
  aligned_array<float16> memory_[8];
  aligned_array<std::int32_t> positions_[2], counts_[2];
  aligned_array<float> scores_[2];
};

//! Input rows [sequence][head][token][dim] of some layers, padded to the longest.
template <class Input>
struct input_rows {
  aligned_array<Input> keys, values;
  batch_rows<Input const> key_view, value_view;

  input_rows(std::vector<layer_rows> const& layers, int heads, int dim, std::int64_t most) {
    std::int64_t const n = static_cast<std::int64_t>(layers.size()), token = dim + 8;
    keys = aligned_array<Input>(n * heads * most * token);
    values = aligned_array<Input>(n * heads * most * token);
    key_view = {keys.data(), heads * most * token, most * token, token};
    value_view = key_view;
    value_view.data = values.data();
    for (std::int64_t b = 0; b < n; ++b) {
      layer_rows const& l = layers[size(b)];
      for (int h = 0; h < heads; ++h) {
        for (std::int64_t t = 0; t < l.tokens; ++t) {
          for (int d = 0; d < dim; ++d) {
            std::int64_t const at = ((b * heads + h) * most + t) * token + d;
            keys[at] = from_float<Input>(l.key(h, t)[d]);
            values[at] = from_float<Input>(l.value(h, t)[d]);
          }
        }
      }
    }
  }
};

}  // namespace kvcrumb::test
