// SPDX-License-Identifier: Apache-2.0
//! @file A second stage for inner products: a sign sketch of what the codes leave over.
#pragma once

#include "kvcrumb/numeric/square_root.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/scheme/stored_row.hpp"
#include "kvcrumb/transform/sketch_projection.hpp"

namespace kvcrumb::inline v0 {

//! Base plus, per row, the signs of S r and |r| in fp16, where r = x - x_hat of Base and S has head_dim rows
//! (TurboQuant's product variant, arXiv 2504.19874, algorithm 2). x_hat + unit / D |r| S^T sign(S r) has mean
//! x over projections, and so scores have mean <q, x>. Base is a composed scheme with per_row groups; r and S
//! are in its basis.
//!
//! Section: that of Base, then signs [T][ceil(D / 8)], then |r| fp16 [T]; 1 + 16 / D bits more than Base (D a
//! multiple of 8). |r| is NaN where Base's parameters are, 0 for isolated tokens. Cost of encode and of each
//! query: D^2 products a row; scores in tiles cost 2 D, weighted sums in tiles D^2 a tile.
template <class Base>
struct residual_sketch {
  static_assert(has_row_groups<Base>, "kvcrumb::residual_sketch: Base must have per_row groups");
  static constexpr int append_tokens = 1;

  Base base{};
  sketch_projection projection{};

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (status const s = base.supports(which, shape, heads); s != status::ok) return s;
    return projection.fits(shape.head_dim, shape.head_dim);
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return sign_offset(which, shape) + static_cast<std::int64_t>(shape.tile_tokens) * (sign_bytes(shape) + 2);
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    return base.state_id(heads, head_dim) * 0x100000001B3u ^ projection.id();
  }
  static constexpr void describe(description& d) noexcept {
    Base::describe(d);
    d << " residual_signs(f16)";
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    rows_only<Tracer> rows{tracer};
    base.encode(which, shape, r, rows);
    float rest[max_head_dim];
    for (int i = 0; i < r.heads * r.count; ++i) {
      int const head = i / r.count, slot = r.slot + i % r.count;
      std::byte* section = r.sections[head];
      if (r.isolated != nullptr && r.isolated[i] != 0) {
        clear_signs(which, shape, slot, section);
        continue;
      }
      float const* row = r.rows + static_cast<std::int64_t>(i) * shape.head_dim;  // in the basis of Base now
      load_stored_row(base, which, shape, section, slot, rest);
      for (int d = 0; d < shape.head_dim; ++d)
        rest[d] = sub_rn(row[d], rest[d]);
      write_signs(which, shape, rest, slot, section);
      if constexpr (traces_elements<Tracer>) {
        float x_hat[max_head_dim];
        load_row(which, shape, section, slot, x_hat);
        for (int d = 0; d < shape.head_dim; ++d)
          tracer.on_element({which, head, r.position + i % r.count, d}, row[d], x_hat[d]);
      }
    }
  }
  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    base.clear(which, shape, slot, count, section);
    for (int t = slot; t < slot + count; ++t)
      clear_signs(which, shape, t, section);
  }

  //! Prepared query: that of Base, whose first head_dim floats are the query in its basis, then S q.
  static constexpr std::int64_t query_floats(int head_dim) noexcept {
    return Base::query_floats(head_dim) + head_dim;
  }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    base.prepare_query(head, head_dim, q, prepared);
    projection.project(prepared, head_dim, prepared + Base::query_floats(head_dim));
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float signs[max_head_dim];
    load_signs(side::key, shape, section, slot, signs);
    return base.score(shape, prepared, section, slot) +
           dot(signs, prepared + Base::query_floats(shape.head_dim), shape.head_dim);
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    float row[max_head_dim];
    load_row(side::value, shape, section, slot, row);
    add_scaled(w, row, shape.head_dim, o);
  }
  void finish(int head, int head_dim, float* o, float sum) const noexcept {
    base.finish(head, head_dim, o, sum);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    load_row(which, shape, section, slot, row);
    base.transform.inverse(head, shape.head_dim, row, 1.0f);
  }

  //! What Base loads, then signs times their gain [tile_tokens][head_dim] and one row of scratch.
  std::int64_t tile_floats(side which, tile_shape shape) const noexcept {
    return base.tile_floats(which, shape) + static_cast<std::int64_t>(shape.tile_tokens + 1) * shape.head_dim;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    base.load_tile(which, shape, section, work);
    float* signs = work + base.tile_floats(which, shape);
    for (int t = 0; t < shape.tile_tokens; ++t)
      load_signs(which, shape, section, t, signs + static_cast<std::int64_t>(t) * shape.head_dim);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    base.score_tile(shape, work, prepared, scores);
    float const* signs = work + base.tile_floats(side::key, shape);
    float const* projected = prepared + Base::query_floats(shape.head_dim);
    for (int t = 0; t < shape.tile_tokens; ++t)
      scores[t] += dot(signs + static_cast<std::int64_t>(t) * shape.head_dim, projected, shape.head_dim);
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    base.accumulate_tile(shape, work, weights, o);
    int const width = shape.head_dim;
    float const* signs = work + base.tile_floats(side::value, shape);
    float* sum = work + tile_floats(side::value, shape) - width;
    for (int d = 0; d < width; ++d)
      sum[d] = 0.0f;
    for (int t = 0; t < shape.tile_tokens; ++t) {
      if (weights[t] != 0.0f)
        add_scaled(weights[t], signs + static_cast<std::int64_t>(t) * width, width, sum);
    }
    for (int j = 0; j < width; ++j)
      add_scaled(sum[j], projection.row(j), width, o);
  }

 private:
  static constexpr std::int64_t sign_bytes(tile_shape shape) noexcept { return (shape.head_dim + 7) / 8; }
  constexpr std::int64_t sign_offset(side which, tile_shape shape) const noexcept {
    return base.section_bytes(which, shape);
  }
  constexpr std::int64_t sign_bit(side which, tile_shape shape, int slot) const noexcept {
    return (sign_offset(which, shape) + slot * sign_bytes(shape)) * 8;
  }
  constexpr std::int64_t norm_bit(side which, tile_shape shape, int slot) const noexcept {
    return (sign_offset(which, shape) + shape.tile_tokens * sign_bytes(shape) + 2 * slot) * 8;
  }

  void write_signs(side which, tile_shape shape, float const* rest, int slot,
                   std::byte* section) const noexcept {
    bool finite = true;  // a poisoned scale makes every difference NaN
    for (int d = 0; d < shape.head_dim; ++d)
      finite = finite && is_finite_bits(rest[d]);
    for (int j = 0; j < shape.head_dim; ++j)
      store_bits(section, sign_bit(which, shape, slot) + j, 1, projection.sign(j, rest));
    auto const square = [&](int d) { return mul_rn(rest[d], rest[d]); };
    float const norm =
        finite ? sqrt_rn(tree_fold(shape.head_dim, square, add_rn)) : float_from_bits(0x7FC00000u);
    store_bits(section, norm_bit(which, shape, slot), 16, from_float_saturate<float16>(norm).bits);
  }
  void clear_signs(side which, tile_shape shape, int slot, std::byte* section) const noexcept {
    for (int j = 0; j < shape.head_dim; ++j)
      store_bits(section, sign_bit(which, shape, slot) + j, 1, 0u);
    store_bits(section, norm_bit(which, shape, slot), 16, 0u);
  }
  //! signs[j] = +-unit / D |r|.
  void load_signs(side which, tile_shape shape, std::byte const* section, int slot,
                  float* signs) const noexcept {
    unsigned const stored = load_bits(section, norm_bit(which, shape, slot), 16);
    float const gain = to_float(float16{static_cast<std::uint16_t>(stored)}) * projection.unit() /
                       static_cast<float>(shape.head_dim);
    for (int j = 0; j < shape.head_dim; ++j)
      signs[j] = load_bits(section, sign_bit(which, shape, slot) + j, 1) != 0u ? gain : -gain;
  }
  //! A whole row in the basis of Base. Cost: D^2 products.
  void load_row(side which, tile_shape shape, std::byte const* section, int slot, float* row) const noexcept {
    float signs[max_head_dim];
    load_stored_row(base, which, shape, section, slot, row);
    load_signs(which, shape, section, slot, signs);
    for (int j = 0; j < shape.head_dim; ++j)
      add_scaled(signs[j], projection.row(j), shape.head_dim, row);
  }
};

}  // namespace kvcrumb::inline v0
