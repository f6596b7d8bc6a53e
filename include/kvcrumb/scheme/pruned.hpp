// SPDX-License-Identifier: Apache-2.0
//! @file pruned<Base>: a key scheme that stores only some channels of each kv head.
#pragma once

#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! Which channels of each kv head are kept: channels[head][i], i < kept, strictly ascending within a head.
//! The list is the caller's, must outlive every scheme that points to it and must not change: bytes depend on
//! it.
struct channel_list {
  std::uint16_t const* channels = nullptr;  //!< [kv_heads][kept], host memory
  int kv_heads = 0;
  int kept = 0;

  constexpr std::uint16_t const* of(int head) const noexcept {
    return channels + static_cast<std::int64_t>(head) * kept;
  }
  //! Ok, or why this is no list for rows of head_dim channels.
  constexpr status check(int heads, int head_dim) const noexcept {
    if (channels == nullptr) return status::null_pointer;
    if (heads != kv_heads || kept < 1) return status::bad_shape;
    if (kept > head_dim) return status::bad_head_dim;
    for (int head = 0; head < heads; ++head) {
      for (int i = 0; i < kept; ++i) {
        bool const ascends = i == 0 || of(head)[i - 1] < of(head)[i];
        if (!ascends || of(head)[i] >= head_dim) return status::out_of_range;
      }
    }
    return status::ok;
  }
  //! FNV-1a over the list.
  constexpr std::uint64_t id() const noexcept {
    std::uint64_t hash = (0xCBF29CE484222325u ^ static_cast<std::uint64_t>(kept)) * 0x100000001B3u;
    for (std::int64_t i = 0; channels != nullptr && i < static_cast<std::int64_t>(kv_heads) * kept; ++i)
      hash = (hash ^ channels[i]) * 0x100000001B3u;
    return hash;
  }
};

//! Keys without some of their channels (ThinK, arXiv 2407.21018, section 3): rows are compacted to the kept
//! channels and Base encodes them as rows of head_dim = kept, so a pruned channel costs no bytes. A score is
//! the sum over the kept channels; decode_row gives 0 for the others. Everything the cache keeps exact (tail,
//! sinks, pools) is not pruned. Base: any key scheme that supports that width; its query_floats must not
//! decrease with head_dim. Cost: one gather a row and a query.
template <key_scheme Base>
  requires(!positional_key<Base>)
struct pruned {
  using base_type = Base;
  static constexpr int append_tokens = Base::append_tokens;

  channel_list keep{};
  Base base{};

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::key || heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if (status const s = keep.check(heads, shape.head_dim); s != status::ok) return s;
    return base.supports(which, narrowed(shape), heads);
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return base.section_bytes(which, narrowed(shape));
  }
  std::uint64_t state_id(int heads, int /*head_dim*/) const noexcept {
    return (keep.id() ^ base.state_id(heads, keep.kept)) * 0x100000001B3u;
  }
  //! For example "pruned80 affine2(...) ...".
  constexpr void describe(description& d) const noexcept {
    d << "pruned" << keep.kept << " ";
    base.describe(d);
  }

  //! Tracers see whole rows, and elements under their own channel numbers; a pruned channel decodes to 0.
  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int i = 0; i < r.heads * r.count; ++i) {
      int const head = i / r.count;
      float const* row = r.rows + static_cast<std::int64_t>(i) * shape.head_dim;
      float* compact =
          r.rows + static_cast<std::int64_t>(i) * keep.kept;  // never behind what is still unread
      std::int64_t const position = r.position + i % r.count;
      if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, position, row, shape.head_dim);
      if constexpr (traces_elements<Tracer>) {
        if (r.isolated == nullptr || r.isolated[i] == 0) trace_pruned(head, position, row, shape, tracer);
      }
      for (int j = 0; j < keep.kept; ++j)
        compact[j] = row[keep.of(head)[j]];
    }
    renumbered<Tracer> inner{keep, tracer};
    base.encode(which, narrowed(shape), r, inner);
  }
  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept
      requires(append_tokens == 1) {
    base.clear(which, narrowed(shape), slot, count, section);
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return Base::query_floats(head_dim); }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    float gathered[max_head_dim];
    for (int j = 0; j < keep.kept && j < head_dim; ++j)
      gathered[j] = q[keep.of(head)[j]];
    base.prepare_query(head, keep.kept, gathered, prepared);
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    return base.score(narrowed(shape), prepared, section, slot);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept requires decodable<Base> {
    float compact[max_head_dim];
    base.decode_row(which, narrowed(shape), head, section, slot, compact);
    for (int d = 0; d < shape.head_dim; ++d)
      row[d] = 0.0f;
    for (int j = 0; j < keep.kept; ++j)
      row[keep.of(head)[j]] = compact[j];
  }

  std::int64_t tile_floats(side which, tile_shape shape) const noexcept requires tile_hooks<Base> {
    return base.tile_floats(which, narrowed(shape));
  }
  void load_tile(side which, tile_shape shape, std::byte const* section,
                 float* work) const noexcept requires tile_hooks<Base> {
    base.load_tile(which, narrowed(shape), section, work);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared,
                  float* scores) const noexcept requires tile_hooks<Base> {
    base.score_tile(narrowed(shape), work, prepared, scores);
  }
  //! Asked for by the concept tile_hooks; keys do not accumulate.
  void accumulate_tile(tile_shape, float*, float const*, float*) const noexcept requires tile_hooks<Base> {}

 private:
  //! Gives Base's elements back their channel numbers.
  template <class Tracer>
  struct renumbered {
    channel_list const& keep;
    Tracer& tracer;
    void on_element(element_coordinate c, float x, float x_hat) requires traces_elements<Tracer> {
      c.dim = keep.of(c.head)[c.dim];
      tracer.on_element(c, x, x_hat);
    }
  };

  constexpr tile_shape narrowed(tile_shape shape) const noexcept { return {keep.kept, shape.tile_tokens}; }

  template <class Tracer>
  void trace_pruned(int head, std::int64_t position, float const* row, tile_shape shape,
                    Tracer& tracer) const noexcept {
    int next = 0;
    for (int d = 0; d < shape.head_dim; ++d) {
      if (next < keep.kept && keep.of(head)[next] == d) {
        ++next;
      } else {
        tracer.on_element({side::key, head, position, d}, row[d], 0.0f);
      }
    }
  }
};

}  // namespace kvcrumb::inline v0
