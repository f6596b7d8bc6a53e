// SPDX-License-Identifier: Apache-2.0
//! @file One row of a composed scheme, read back without leaving its basis.
#pragma once

#include <concepts>

#include "kvcrumb/codec/concept.hpp"
#include "kvcrumb/grouping/grouping.hpp"
#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/trace/concept.hpp"

namespace kvcrumb::inline v0 {

//! A composed scheme whose rows have one parameter set each, as what is built around a row needs it.
template <class Base>
inline constexpr bool has_row_groups = std::same_as<typename Base::grouping_type, per_row>;

//! out[d] = x_hat of channel d in the basis of the scheme: decode_row before its inverse transform.
template <class Base>
void load_stored_row(Base const& base, side which, tile_shape shape, std::byte const* section, int slot,
                     float* out) noexcept {
  static_assert(has_row_groups<Base>, "kvcrumb::load_stored_row: the grouping must be per_row");
  section_spec const s = Base::spec(which, shape);
  group_params const p = base.params(s, section, slot, 0);
  for (int d = 0; d < shape.head_dim; ++d)
    out[d] = decode(base.codec, Base::layout_type::load(s, section, slot, d), p);
}

//! The tracer of a scheme that encodes rows after another one: only the rows themselves pass.
template <class Tracer>
struct rows_only {
  Tracer& tracer;
  void on_row(side which, int head, std::int64_t token, float const* row,
              int head_dim) requires traces_rows<Tracer> {
    tracer.on_row(which, head, token, row, head_dim);
  }
};

}  // namespace kvcrumb::inline v0
