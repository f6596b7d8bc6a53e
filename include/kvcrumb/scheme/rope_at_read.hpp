// SPDX-License-Identifier: Apache-2.0
//! @file Keys that are kept before their rotary embedding and rotated when they are read.
#pragma once

#include <cmath>
#include <initializer_list>

#include "kvcrumb/numeric/float_bits.hpp"
#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! Which two channels a rotation turns: i and i + n/2 (Llama, NeoX, Qwen), or 2i and 2i + 1 (GPT-J).
enum class rope_pairing : std::uint8_t { half_split, interleaved };

//! A rotary embedding (RoFormer, arXiv 2104.09864, equation 15): pair i of n channels is turned by the angle
//! position * position_scale * theta^(-2i/n), i in [0, n/2). Channels from n on are left alone.
struct rotary {
  float theta = 10000.0f;
  int dims = 0;  //!< n, even; 0: all of head_dim
  rope_pairing pairing = rope_pairing::half_split;
  float position_scale = 1.0f;  //!< 1/s for positions interpolated by s

  constexpr int used(int head_dim) const noexcept { return dims == 0 ? head_dim : dims; }
  status supports(int head_dim) const noexcept {
    if (used(head_dim) < 2 || used(head_dim) > head_dim || used(head_dim) % 2 != 0)
      return status::bad_head_dim;
    bool const ok = is_positive_bits(theta) && is_finite_bits(theta) && is_finite_bits(position_scale) &&
                    (pairing == rope_pairing::half_split || pairing == rope_pairing::interleaved);
    return ok ? status::ok : status::out_of_range;
  }
  //! Radians per position of every pair, each as two floats (rounded, rest), n floats in all.
  void frequencies(int head_dim, float* out) const noexcept {
    int const n = used(head_dim);
    for (int i = 0; i < n / 2; ++i) {
      double const f =
          static_cast<double>(position_scale) * std::pow(static_cast<double>(theta), -2.0 * i / n);
      out[2 * i] = static_cast<float>(f);
      out[2 * i + 1] = static_cast<float>(f - static_cast<double>(out[2 * i]));
    }
  }
  //! Turns a row in place. Angles are reduced in double, sine and cosine taken in float: error about 2^-23 of
  //! the pair's length up to position 2^40.
  void rotate(int head_dim, float const* frequency, std::int64_t position, float* row) const noexcept {
    constexpr double turn = 6.283185307179586476925;
    int const half = used(head_dim) / 2;
    bool const split = pairing == rope_pairing::half_split;
    for (int i = 0; i < half; ++i) {
      double angle = static_cast<double>(position) *
                     (static_cast<double>(frequency[2 * i]) + static_cast<double>(frequency[2 * i + 1]));
      angle -= turn * std::floor(angle / turn + 0.5);
      float const c = std::cos(static_cast<float>(angle)), s = std::sin(static_cast<float>(angle));
      float& a = row[split ? i : 2 * i];
      float& b = row[split ? i + half : 2 * i + 1];
      float const x = a, y = b;
      a = x * c - y * s;
      b = x * s + y * c;
    }
  }
  std::uint64_t id() const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (std::uint32_t const x : {float_bits(theta), static_cast<std::uint32_t>(dims),
                                  static_cast<std::uint32_t>(pairing), float_bits(position_scale)})
      hash = (hash ^ x) * 0x100000001B3u;
    return hash;
  }
};

//! A positional key scheme: the cache is given keys *before* the rotary embedding and codes them with Base,
//! where channels still have their own means and ranges (KVQuant, arXiv 2401.18079, section 3.2). The score
//! of a token is <q, R(position) k_hat>; queries come rotated by their own positions, as always. Exact rows
//! (tail, sinks, pools) are kept before the rotation too and rotated the same way. read() gives back keys
//! before the rotation. The rotation changes no byte, but its parameters are part of state_id: a saved cache
//! read with another theta would be wrong.
//! Cost of a score: decoding one row and n/2 sines and cosines. Base must decode; it may have any append
//! unit.
template <decodable Base>
struct rope_at_read {
  using base_type = Base;
  static constexpr int append_tokens = Base::append_tokens;

  Base base{};
  rotary rope{};

  //! Ok, or what is wrong with Base or with the rotation; values are refused with bad_shape.
  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::key) return status::bad_shape;
    if (status const s = base.supports(which, shape, heads); s != status::ok) return s;
    return rope.supports(shape.head_dim);
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return base.section_bytes(which, shape);
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    return (base.state_id(heads, head_dim) ^ rope.id()) * 0x100000001B3u;
  }
  void describe(description& d) const noexcept {
    d << "rope_at_read ";
    base.describe(d);
  }
  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    base.encode(which, shape, r, tracer);
  }
  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept
      requires(append_tokens == 1) {
    base.clear(which, shape, slot, count, section);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    base.decode_row(which, shape, head, section, slot, row);
  }

  //! Prepared query: the query, the kv head (exact as a float) and the frequencies.
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return 2 * head_dim + 1; }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    for (int i = 0; i < head_dim; ++i)
      prepared[i] = q[i];
    prepared[head_dim] = static_cast<float>(head);
    rope.frequencies(head_dim, prepared + head_dim + 1);
  }
  float score_at(tile_shape shape, float const* prepared, std::byte const* section, int slot,
                 std::int64_t position) const noexcept {
    float row[max_head_dim];
    base.decode_row(side::key, shape, static_cast<int>(prepared[shape.head_dim]), section, slot, row);
    rope.rotate(shape.head_dim, prepared + shape.head_dim + 1, position, row);
    return dot(prepared, row, shape.head_dim);
  }
  float score_row_at(int head_dim, float const* prepared, float const* exact,
                     std::int64_t position) const noexcept {
    float row[max_head_dim];
    for (int i = 0; i < head_dim; ++i)
      row[i] = exact[i];
    rope.rotate(head_dim, prepared + head_dim + 1, position, row);
    return dot(prepared, row, head_dim);
  }
};

}  // namespace kvcrumb::inline v0
