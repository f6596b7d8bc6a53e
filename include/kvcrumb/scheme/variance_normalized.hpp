// SPDX-License-Identifier: Apache-2.0
//! @file KVarN's keys and values: rotated tiles with factors of tokens and channels, then affine codes.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/scheme/balanced_scales.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/scheme/slot_scaled.hpp"
#include "kvcrumb/transform/hadamard.hpp"

namespace kvcrumb::inline v0 {

//! KVarN's rounding to nearest, with the minimum kept as a float.
inline constexpr affine_options kvarn_convention{.params = param_rounding::nearest};

//! The factor of a token is what evens out the standard deviations of a head's rotated rows over `Group`
//! tokens (balanced_scales, tokens first), rounded to fp16.
template <int Group, transform Rotation, int Iterations>
struct balanced_tokens {
  static_assert(Iterations >= 0, "kvcrumb::balanced_tokens: Iterations must not be negative");
  Rotation rotation{};

  static void describe(description& d) noexcept {
    d << "variance_norm" << Iterations << "(f16) ";
    describe_as<Rotation>(d);
  }
  template <class Put>
  void scales(tile_shape shape, encode_request const& r, Put put) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      for (int first = 0; first < r.count; first += Group) {
        std::int64_t const at = static_cast<std::int64_t>(head) * r.count + first;
        balanced_scales const s(r.rows + at * shape.head_dim,
                                r.isolated == nullptr ? nullptr : r.isolated + at, Group, shape.head_dim,
                                true, Iterations);
        for (int i = 0; i < Group; ++i)
          put(head, first + i, to_float(from_float_saturate<float16>(s.token[i])));
      }
    }
  }
};

//! Keys of KVarN: rows of a head are rotated, divided by the factors s of their tokens, and encoded with one
//! scale and minimum per channel and `Group` tokens. Affine parameters of a channel follow any factor of that
//! channel, so those of x / s are c times those of x / (s c): the factors c of channels need no place of
//! their own (the published code stores the products as well). Bits + 32 / Group + 16 / head_dim bits per
//! value. Groups of tokens are appended together. `Rotation`: orthonormal and without a shift, hadamard or
//! identity.
template <int Bits, int Group = 128, transform Rotation = hadamard<>, layout Layout = fragment,
          int Iterations = 16>
using variance_normalized_keys =
    slot_scaled<composed<affine<Bits, float16, kvarn_convention>, per_channel<Group>, identity, Layout>,
                balanced_tokens<Group, Rotation, Iterations>>;

//! Values of KVarN: as the keys with the axes exchanged. Channels come first in balanced_scales, x / c is
//! encoded with one scale and minimum a token, and c is fp16, one a channel and group: Bits + 32 / head_dim +
//! 16 / Group bits per value. A section is that of the per-token codes, then c [group][channel].
template <int Bits, int Group = 128, transform Rotation = hadamard<>, layout Layout = fragment,
          int Iterations = 16>
struct variance_normalized_values {
  static_assert(Iterations >= 0, "kvcrumb::variance_normalized_values: Iterations must not be negative");
  using base_type = composed<affine<Bits, float16, kvarn_convention>, per_row, identity, Layout>;
  static constexpr int append_tokens = per_channel<Group>::append_tokens;

  base_type base{};
  Rotation rotation{};

  //! Values only.
  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::value) return status::bad_shape;
    if (status const s = base.supports(which, shape, heads); s != status::ok) return s;
    return shape.tile_tokens % Group == 0 ? status::ok : status::bad_group;
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return scale_offset(which, shape) + 2 * std::int64_t{groups(shape)} * shape.head_dim;
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept { return rotation.id(heads, head_dim); }
  void describe(description& d) const noexcept {
    d << "variance_norm" << Iterations << "(f16)x" << Group << " ";
    describe_as<Rotation>(d);
    d << " ";
    base.describe(d);
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        float* row = r.rows + (static_cast<std::int64_t>(head) * r.count + i) * shape.head_dim;
        if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, r.position + i, row, shape.head_dim);
        rotation.forward(head, shape.head_dim, row);
      }
      for (int first = 0; first < r.count; first += Group) {
        std::int64_t const at = static_cast<std::int64_t>(head) * r.count + first;
        float* const rows = r.rows + at * shape.head_dim;
        balanced_scales const scales(rows, r.isolated == nullptr ? nullptr : r.isolated + at, Group,
                                     shape.head_dim, false, Iterations);
        for (int d = 0; d < shape.head_dim; ++d) {
          float16 const c = from_float_saturate<float16>(scales.channel[d]);
          store_bits(r.sections[head] + scale_offset(which, shape),
                     scale_bit(shape, (r.slot + first) / Group, d), 16, c.bits);
          for (int i = 0; i < Group; ++i) {
            float& x = rows[static_cast<std::int64_t>(i) * shape.head_dim + d];
            x = div_rn(x, to_float(c));
          }
        }
      }
    }
    rescaled_elements inner{tracer, [&](element_coordinate c) {
                              int const slot = r.slot + static_cast<int>(c.token - r.position);
                              return scale(shape, r.sections[c.head], slot / Group, c.dim);
                            }};
    base.encode(which, shape, r, inner);
  }

  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    float row[max_head_dim];
    scaled_row(side::value, shape, section, slot, row);
    for (int d = 0; d < shape.head_dim; ++d)
      o[d] += w * row[d];
  }
  void finish(int head, int head_dim, float* o, float sum) const noexcept {
    rotation.inverse(head, head_dim, o, sum);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    scaled_row(which, shape, section, slot, row);
    rotation.inverse(head, shape.head_dim, row, 1.0f);
  }

  //! The tile of the codes, c, and a row and the weights of one group.
  std::int64_t tile_floats(side which, tile_shape shape) const noexcept {
    return base.tile_floats(which, shape) + (groups(shape) + 1) * std::int64_t{shape.head_dim} +
           shape.tile_tokens;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    base.load_tile(which, shape, section, work);
    float* const scales = work + base.tile_floats(which, shape);
    for (int group = 0; group < groups(shape); ++group) {
      for (int d = 0; d < shape.head_dim; ++d)
        scales[group * shape.head_dim + d] = scale(shape, section, group, d);
    }
  }
  //! Never called: `tile_hooks` asks for it, but values have no score.
  void score_tile(tile_shape, float*, float const*, float*) const noexcept {}
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    float const* const scales = work + base.tile_floats(side::value, shape);
    float* const sum = work + base.tile_floats(side::value, shape) + groups(shape) * shape.head_dim;
    float* const own = sum + shape.head_dim;
    for (int group = 0; group < groups(shape); ++group) {
      bool weighted = false;
      for (int t = 0; t < shape.tile_tokens; ++t) {
        own[t] = t / Group == group ? weights[t] : 0.0f;
        weighted = weighted || own[t] != 0.0f;
      }
      if (!weighted) continue;  // whatever its factors are
      for (int d = 0; d < shape.head_dim; ++d)
        sum[d] = 0.0f;
      base.accumulate_tile(shape, work, own, sum);
      for (int d = 0; d < shape.head_dim; ++d)
        o[d] += scales[group * shape.head_dim + d] * sum[d];
    }
  }

  //! c of a group of tokens and a channel.
  float scale(tile_shape shape, std::byte const* section, int group, int dim) const noexcept {
    unsigned const bits =
        load_bits(section + scale_offset(side::value, shape), scale_bit(shape, group, dim), 16);
    return to_float(float16{static_cast<std::uint16_t>(bits)});
  }

 private:
  static constexpr int groups(tile_shape shape) noexcept { return shape.tile_tokens / Group; }
  constexpr std::int64_t scale_offset(side which, tile_shape shape) const noexcept {
    return align_up(base.section_bytes(which, shape), 2);
  }
  static constexpr std::int64_t scale_bit(tile_shape shape, int group, int dim) noexcept {
    return 16 * (static_cast<std::int64_t>(group) * shape.head_dim + dim);
  }
  void scaled_row(side which, tile_shape shape, std::byte const* section, int slot,
                  float* row) const noexcept {
    base.decode_row(which, shape, 0, section, slot, row);
    for (int d = 0; d < shape.head_dim; ++d)
      row[d] *= scale(shape, section, slot / Group, d);
  }
};

}  // namespace kvcrumb::inline v0
