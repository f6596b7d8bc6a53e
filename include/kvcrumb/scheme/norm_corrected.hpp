// SPDX-License-Identifier: Apache-2.0
//! @file Stored scales that give rows back at their own length.
#pragma once

#include "kvcrumb/numeric/square_root.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/scheme/stored_row.hpp"

namespace kvcrumb::inline v0 {

//! Base with norm correction (vLLM's TurboQuant): codes are those of Base, the stored scale is |x| / |levels
//! of the codes|, so that |x_hat| = |x| up to the rounding of the scale (2^-11 relative in fp16). Base is a
//! composed scheme with per_row groups, one scale and no offset; the transform must keep lengths. A scale
//! that Base stored as zero or NaN stays.
template <class Base>
struct norm_corrected : Base {
  static_assert(has_row_groups<Base> && Base::codec_type::planes == 1,
                "kvcrumb::norm_corrected: Base must have per_row groups and one parameter");

  static constexpr void describe(description& d) noexcept {
    Base::describe(d);
    d << " norm_corrected";
  }
  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    rows_only<Tracer> rows{tracer};
    Base::encode(which, shape, r, rows);
    for (int i = 0; i < r.heads * r.count; ++i) {
      if (r.isolated != nullptr && r.isolated[i] != 0) continue;
      int const head = i / r.count, slot = r.slot + i % r.count;
      float const* row = r.rows + static_cast<std::int64_t>(i) * shape.head_dim;  // in the basis of Base now
      correct(which, shape, row, slot, r.sections[head]);
      if constexpr (traces_elements<Tracer>) {
        float x_hat[max_head_dim];
        load_stored_row(*this, which, shape, r.sections[head], slot, x_hat);
        for (int d = 0; d < shape.head_dim; ++d)
          tracer.on_element({which, head, r.position + i % r.count, d}, row[d], x_hat[d]);
      }
    }
  }

 private:
  void correct(side which, tile_shape shape, float const* row, int slot, std::byte* section) const noexcept {
    using param = typename Base::param_type;
    using places = typename Base::layout_type;
    section_spec const s = Base::spec(which, shape);
    group_params p = this->params(s, section, slot, 0);
    if (!is_positive_bits(p.value[0]) || !is_finite_bits(p.value[0])) return;
    auto const square = [&](int d) { return mul_rn(row[d], row[d]); };
    auto const level_square = [&](int d) {
      float const level = this->codec.unit(places::load(s, section, slot, d));
      return mul_rn(level, level);
    };
    float const energy = tree_fold(shape.head_dim, square, add_rn);
    float const of_levels = tree_fold(shape.head_dim, level_square, add_rn);
    if (!is_positive_bits(of_levels)) return;
    p.value[0] = to_float(from_float_saturate<param>(sqrt_rn(div_rn(energy, of_levels))));
    store_params<param, places>(s, section, slot, 0, p);
  }
};

}  // namespace kvcrumb::inline v0
