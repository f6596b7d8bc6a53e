// SPDX-License-Identifier: Apache-2.0
//! @file Dense and sparse: a few exact values per token beside the codes of another scheme.
#pragma once

#include <algorithm>

#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/scheme/composed.hpp"

namespace kvcrumb::inline v0 {

//! What the deviation of a value is measured from, and what Base codes in its place.
enum class sparse_centre : std::uint8_t {
  zero,        //!< 0: rows are normalised, |x| > 1 lies outside of the range (KVQuant's keys)
  row_median,  //!< the lower median of the token's row, so that the rest decides the range (its values)
};

//! Keeps the `Slots` values of each token and head that lie farthest from the centre as fp16 beside Base; the
//! first channel of equals wins. Base codes the centre in their place. The slots are always filled: an empty
//! one would cost the same bytes. Transform comes first, and the values are kept in its basis: exact for fp16
//! input without a transform, else to a rounding of fp16; they saturate at 65504. A row with a NaN or an
//! infinity gets NaN in all slots, in such channels first, and is handed to Base as it is.
//!
//! Section: Base's, then per token `Slots` values of 2 bytes and `Slots` channels of 1 byte (2 if
//! head_dim > 256). Bits per value: Base's + 24 Slots / head_dim (32).
//! Cost: encode Slots passes over a row and one selection of the median; attention decodes each row of a tile
//! once. Source: arXiv 2401.18079, section 3.4; fixed budgets as in its deployed kernels.
template <class Base, int Slots, sparse_centre Centre, transform Transform = identity>
struct sparse_values {
  static_assert(Slots >= 1 && Slots <= 64, "kvcrumb::sparse_values: Slots must be in [1, 64]");
  static_assert(Base::append_tokens == 1 && !Base::grouping_type::channelwise,
                "kvcrumb::sparse_values: Base must be row-independent");
  static_assert(std::same_as<typename Base::transform_type, identity>,
                "kvcrumb::sparse_values: give the transform to sparse_values, not to Base");
  using base_type = Base;
  using transform_type = Transform;
  static constexpr int append_tokens = 1;
  static constexpr int slots = Slots;

  Base base{};
  Transform transform{};

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (status const s = base.supports(which, shape, heads); s != status::ok) return s;
    if (shape.head_dim < Slots) return status::bad_head_dim;
    if (Base::grouping_type::head_span(shape.head_dim) != 1) return status::bad_group;
    if constexpr (requires { transform.fits(heads, shape.head_dim); }) {
      if (!transform.fits(heads, shape.head_dim)) return status::bad_shape;
    }
    return status::ok;
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return slot_offset(which, shape, shape.tile_tokens);
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    return (base.state_id(heads, head_dim) ^ transform.id(heads, head_dim)) * 0x100000001B3u;
  }
  //! For example "sparse2(zero) channel_scale+identity | nuq3 per_row0 identity linear".
  static constexpr void describe(description& d) noexcept {
    d << "sparse" << Slots << (Centre == sparse_centre::zero ? "(zero) " : "(median) ");
    describe_as<Transform>(d);
    d << " | ";
    Base::describe(d);
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    int const width = shape.head_dim;
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        std::int64_t const at = static_cast<std::int64_t>(head) * r.count + i;
        float* row = r.rows + at * width;
        if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, r.position + i, row, width);
        transform.forward(head, width, row);
        bool const out = r.isolated != nullptr && r.isolated[at] != 0;
        float original[traces_elements<Tracer> ? max_head_dim : 1];
        if constexpr (traces_elements<Tracer>) std::copy(row, row + width, original);
        std::byte* const section = r.sections[head];
        std::byte* const kept = section + slot_offset(which, shape, r.slot + i);
        if (out) {
          std::fill(kept, kept + slot_bytes(shape), std::byte{0});
        } else {
          take_out(width, row, kept);
        }
        std::uint8_t const flag = out ? 1 : 0;
        null_tracer nothing;
        base.encode(which, shape, {row, &flag, &section, 1, 1, r.slot + i, r.position + i}, nothing);
        if constexpr (traces_elements<Tracer>) {
          if (out) continue;
          load_row(which, shape, section, r.slot + i, row);
          for (int d = 0; d < width; ++d)
            tracer.on_element({which, head, r.position + i, d}, original[d], row[d]);
        }
      }
    }
  }
  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    base.clear(which, shape, slot, count, section);
    std::fill(section + slot_offset(which, shape, slot), section + slot_offset(which, shape, slot + count),
              std::byte{0});
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    load_row(which, shape, section, slot, row);
    transform.inverse(head, shape.head_dim, row, 1.0f);
  }

  //! Prepared query: the transformed row and the constant that the transform adds to every score.
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim + 1; }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    for (int i = 0; i < head_dim; ++i)
      prepared[i] = q[i];
    prepared[head_dim] = transform.query(head, head_dim, prepared);
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float row[max_head_dim];
    load_row(side::key, shape, section, slot, row);
    return dot(prepared, row, shape.head_dim) + prepared[shape.head_dim];
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    float row[max_head_dim];
    load_row(side::value, shape, section, slot, row);
    add_scaled(w, row, shape.head_dim, o);
  }
  void finish(int head, int head_dim, float* o, float sum) const noexcept {
    transform.inverse(head, head_dim, o, sum);
  }

  std::int64_t tile_floats(side, tile_shape shape) const noexcept {
    return static_cast<std::int64_t>(shape.tile_tokens) * shape.head_dim;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t)
      load_row(which, shape, section, t, work + static_cast<std::int64_t>(t) * shape.head_dim);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t) {
      scores[t] = dot(prepared, work + static_cast<std::int64_t>(t) * shape.head_dim, shape.head_dim) +
                  prepared[shape.head_dim];
    }
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t) {
      if (weights[t] == 0.0f) continue;  // whatever the slot holds
      add_scaled(weights[t], work + static_cast<std::int64_t>(t) * shape.head_dim, shape.head_dim, o);
    }
  }

 private:
  static constexpr int index_bytes(tile_shape shape) noexcept { return shape.head_dim > 256 ? 2 : 1; }
  static constexpr int slot_bytes(tile_shape shape) noexcept { return Slots * (2 + index_bytes(shape)); }
  constexpr std::int64_t slot_offset(side which, tile_shape shape, int slot) const noexcept {
    return base.section_bytes(which, shape) + static_cast<std::int64_t>(slot) * slot_bytes(shape);
  }

  //! The row in the transform's basis.
  void load_row(side which, tile_shape shape, std::byte const* section, int slot, float* row) const noexcept {
    base.decode_row(which, shape, 0, section, slot, row);
    std::byte const* kept = section + slot_offset(which, shape, slot);
    int const bits = 8 * index_bytes(shape);
    for (int i = 0; i < Slots; ++i) {
      auto const channel = static_cast<int>(load_bits(kept, 16 * Slots + i * bits, bits));
      if (channel >= shape.head_dim) continue;  // damaged bytes
      row[channel] = to_float(float16{static_cast<std::uint16_t>(load_bits(kept, 16 * i, 16))});
    }
  }

  //! Stores the values farthest from the centre and replaces them in the row.
  void take_out(int width, float* row, std::byte* kept) const noexcept {
    bool finite = true;
    for (int d = 0; d < width; ++d)
      finite = finite && is_finite_bits(row[d]);
    float const centre = finite && Centre == sparse_centre::row_median ? median(row, width) : 0.0f;
    int const bits = width > 256 ? 16 : 8;
    bool taken[max_head_dim] = {};
    for (int i = 0; i < Slots; ++i) {
      int best = -1;
      float most = 0.0f;
      for (int d = 0; d < width; ++d) {
        if (taken[d]) continue;
        float const from_centre =
            is_finite_bits(row[d]) ? absolute(sub_rn(row[d], centre)) : max_finite<float>;
        if (best < 0 || from_centre > most) {
          best = d;
          most = from_centre;
        }
      }
      taken[best] = true;
      float const x = finite ? row[best] : float_from_bits(0x7FC00000u);
      store_bits(kept, 16 * i, 16, from_float_saturate<float16>(x).bits);
      store_bits(kept, 16 * Slots + i * bits, bits, static_cast<unsigned>(best));
    }
    for (int d = 0; d < width; ++d) {
      if (taken[d] && finite) row[d] = centre;
    }
  }
  //! The value of rank (width - 1) / 2; a zero is +0.
  static float median(float const* row, int width) noexcept {
    float sorted[max_head_dim] = {};
    std::copy(row, row + width, sorted);
    float* const middle = sorted + (width - 1) / 2;
    std::nth_element(sorted, middle, sorted + width);
    return add_rn(*middle, 0.0f);
  }
};

}  // namespace kvcrumb::inline v0
