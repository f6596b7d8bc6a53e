// SPDX-License-Identifier: Apache-2.0
//! @file row_request: rows to encode, where they are and of the type they have.
#pragma once

#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/scheme/concept.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! Rows to encode into one tile of each kv head, read where they are; otherwise as encode_request.
template <row_element Row>
struct row_request {
  rows_view<Row> rows{};                   //!< row(head, i), 0 <= i < count
  std::uint8_t const* isolated = nullptr;  //!< [heads][count], nonzero: kept exact elsewhere; null: none
  std::byte* const* sections = nullptr;    //!< [heads], this side's section of the tile
  int heads = 0;
  int count = 0;              //!< a multiple of append_tokens
  int slot = 0;               //!< first slot, a multiple of append_tokens; slot + count <= tile_tokens
  std::int64_t position = 0;  //!< of the first row in the sequence, for tracers
};

//! What the scheme does with a request, on rows as floats: `floats` holds [heads][count][head_dim] and is
//! overwritten.
template <class Side, class Row, class Tracer>
void encode_as_floats(Side const& scheme, side which, tile_shape shape, row_request<Row> const& r,
                      float* floats, Tracer& tracer) {
  float* to = floats;
  for (int head = 0; head < r.heads; ++head) {
    for (int i = 0; i < r.count; ++i, to += shape.head_dim) {
      for (int d = 0; d < shape.head_dim; ++d)
        to[d] = to_float(r.rows.row(head, i)[d]);
    }
  }
  scheme.encode(which, shape, {floats, r.isolated, r.sections, r.heads, r.count, r.slot, r.position}, tracer);
}

}  // namespace kvcrumb::inline v0
