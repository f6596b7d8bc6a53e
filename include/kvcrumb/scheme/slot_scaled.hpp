// SPDX-License-Identifier: Apache-2.0
//! @file slot_scaled<Base>: a key scheme with one stored factor a token in front of it.
#pragma once

#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! A tracer for a scheme inside another one: elements are passed on multiplied by scale(coordinate), so that
//! they are in the basis of the outer scheme; rows are not passed on, the outer scheme has shown them.
template <class Tracer, class Scale>
struct rescaled_elements {
  Tracer& tracer;
  Scale scale;
  void on_element(element_coordinate c, float x, float x_hat) requires traces_elements<Tracer> {
    float const s = scale(c);
    tracer.on_element(c, s * x, s * x_hat);
  }
};
template <class Tracer, class Scale>
rescaled_elements(Tracer&, Scale) -> rescaled_elements<Tracer, Scale>;

//! How slot_scaled finds the factors of tokens: `rotation` (orthonormal, without a shift) is applied to rows
//! first; then scales(shape, request, put) calls put(head, row of the request, s) once for every head and
//! row, with s a value of float16 and 0 for isolated rows.
template <class S>
concept slot_scaler = requires(S const s, encode_request const& r, void (*put)(int, int, float),
                               description d) {
  s.rotation.forward(0, 128, r.rows);
  s.scales(tile_shape{}, r, put);
  s.describe(d);
};

//! A key scheme behind a division of each token by a factor s that is found when it is encoded and kept. A
//! section is that of Base, then s as one fp16 a slot: 16 / head_dim bits per value more. Score = s * (score
//! of Base), decoded row = s * (row of Base); whole tiles where Base has them. Isolated and cleared slots
//! have s = 0. Each value is divided once, rounding once. Cost of encode: that of the scaler and of Base, one
//! pass.
template <key_scheme Base, slot_scaler Scaler>
struct slot_scaled {
  static_assert(!positional_key<Base>, "kvcrumb::slot_scaled: Base must not need positions");
  using base_type = Base;
  using scaler_type = Scaler;
  static constexpr int append_tokens = Base::append_tokens;

  Base base{};
  Scaler scaler{};

  //! Keys only.
  status supports(side which, tile_shape shape, int heads) const noexcept {
    return which == side::key ? base.supports(which, shape, heads) : status::bad_shape;
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return scale_offset(which, shape) + 2 * std::int64_t{shape.tile_tokens};
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    return base.state_id(heads, head_dim) * 0x100000001B3u ^ scaler.rotation.id(heads, head_dim);
  }
  void describe(description& d) const noexcept {
    scaler.describe(d);
    d << " ";
    base.describe(d);
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    int const width = shape.head_dim;
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        float* row = r.rows + (static_cast<std::int64_t>(head) * r.count + i) * width;
        if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, r.position + i, row, width);
        scaler.rotation.forward(head, width, row);
      }
    }
    scaler.scales(shape, r,
                  [&](int head, int i, float s) { store_scale(shape, r.sections[head], r.slot + i, s); });
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        float* row = r.rows + (static_cast<std::int64_t>(head) * r.count + i) * width;
        float const s = scale(shape, r.sections[head], r.slot + i);
        for (int d = 0; d < width && s > 0.0f; ++d)
          row[d] = div_rn(row[d], s);
      }
    }
    rescaled_elements inner{tracer, [&](element_coordinate c) {
                              int const slot = r.slot + static_cast<int>(c.token - r.position);
                              return scale(shape, r.sections[c.head], slot);
                            }};
    base.encode(which, shape, r, inner);
  }
  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept
      requires(append_tokens == 1) {
    base.clear(which, shape, slot, count, section);
    for (int i = slot; i < slot + count; ++i)
      store_scale(shape, section, i, 0.0f);
  }

  //! s of a slot.
  float scale(tile_shape shape, std::byte const* section, int slot) const noexcept {
    unsigned const bits = load_bits(section + scale_offset(side::key, shape), 16 * std::int64_t{slot}, 16);
    return to_float(float16{static_cast<std::uint16_t>(bits)});
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return Base::query_floats(head_dim); }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    base.prepare_query(head, head_dim, q, prepared);
    scaler.rotation.query(head, head_dim, prepared);
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    return scale(shape, section, slot) * base.score(shape, prepared, section, slot);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept requires decodable<Base> {
    base.decode_row(which, shape, head, section, slot, row);
    float const s = scale(shape, section, slot);
    for (int d = 0; d < shape.head_dim; ++d)
      row[d] *= s;
    scaler.rotation.inverse(head, shape.head_dim, row, 1.0f);
  }

  std::int64_t tile_floats(side which, tile_shape shape) const noexcept requires tile_hooks<Base> {
    return base.tile_floats(which, shape) + shape.tile_tokens;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section,
                 float* work) const noexcept requires tile_hooks<Base> {
    base.load_tile(which, shape, section, work);
    float* const scales = work + base.tile_floats(which, shape);
    for (int slot = 0; slot < shape.tile_tokens; ++slot)
      scales[slot] = scale(shape, section, slot);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared,
                  float* scores) const noexcept requires tile_hooks<Base> {
    base.score_tile(shape, work, prepared, scores);
    float const* const scales = work + base.tile_floats(side::key, shape);
    for (int slot = 0; slot < shape.tile_tokens; ++slot)
      scores[slot] *= scales[slot];
  }
  //! Never called: `tile_hooks` asks for it, but keys are not accumulated.
  void accumulate_tile(tile_shape, float*, float const*, float*) const noexcept requires tile_hooks<Base> {}

 private:
  void store_scale(tile_shape shape, std::byte* section, int slot, float s) const noexcept {
    store_bits(section + scale_offset(side::key, shape), 16 * std::int64_t{slot}, 16,
               from_float<float16>(s).bits);
  }

  constexpr std::int64_t scale_offset(side which, tile_shape shape) const noexcept {
    return align_up(base.section_bytes(which, shape), 2);
  }
};

}  // namespace kvcrumb::inline v0
