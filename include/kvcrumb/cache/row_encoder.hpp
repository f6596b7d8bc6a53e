// SPDX-License-Identifier: Apache-2.0
//! @file Who scores and encodes the rows of a kv_cache: the scheme itself, or something that is faster.
#pragma once

#include <type_traits>
#include <vector>

#include "kvcrumb/cache/config.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/outlier/isolation.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0 {

//! Rows of one side of one tile of every kv head, about to be encoded.
template <storage_float Row>
struct rows_to_encode {
  rows_view<Row const> rows{};             //!< row(head, i), 0 <= i < count
  std::uint8_t const* isolated = nullptr;  //!< [heads][count], nonzero: kept exact elsewhere; null: none
  std::byte* const* sections = nullptr;    //!< [heads], this side's section of the tile
  int heads = 0;
  int count = 0;              //!< a multiple of append_tokens
  int slot = 0;               //!< first slot, a multiple of append_tokens; slot + count <= tile_tokens
  std::int64_t position = 0;  //!< of the first row in the sequence
};

//! What kv_cache::append and prefill accept besides a tracer: scheme_encoder, host::vector_encoder, or the
//! caller's own. It must write the bytes and give the scores that scheme_encoder does.
//!
//!   whole_tiles                                   whether it wants up to a tile at once, or single append
//!   units prepare<Row>(scheme, config) -> status        before anything changes: whether it can, and its
//!   memory score(isolate, keys, heads, n, dim, scores)   scores[head * n + i] of row(head, i); cannot fail
//!   encode(side_scheme, side, shape, rows)        cannot fail
template <class Encoder>
concept row_encoder = requires {
  { std::remove_cvref_t<Encoder>::whole_tiles } -> std::convertible_to<bool>;
};

//! The scheme's own encode, on rows as floats, with a tracer that sees them.
template <class Tracer>
class scheme_encoder {
 public:
  static constexpr bool whole_tiles = false;
  explicit scheme_encoder(Tracer& tracer) noexcept : tracer_(tracer) {}

  template <storage_float Row, class Scheme>
  status prepare(Scheme const&, cache_config const&) noexcept {
    return status::ok;
  }
  template <isolation Isolation, storage_float Row>
  void score(Isolation const& isolate, rows_view<Row const> const& keys, int heads, std::int64_t count,
             int head_dim, float* scores) {
    floats_.resize(static_cast<std::size_t>(head_dim));
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t i = 0; i < count; ++i) {
        widen(keys.row(head, i), head_dim, floats_.data());
        scores[head * count + i] = isolate.score(floats_.data(), head_dim);
      }
    }
  }
  template <class Side, storage_float Row>
  void encode(Side const& scheme, side which, tile_shape shape, rows_to_encode<Row> const& r) {
    std::int64_t const width = shape.head_dim;
    floats_.resize(static_cast<std::size_t>(r.heads * r.count * width));
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i)
        widen(r.rows.row(head, i), shape.head_dim, floats_.data() + (head * r.count + i) * width);
    }
    encode_request const request{floats_.data(), r.isolated, r.sections, r.heads,
                                 r.count,        r.slot,     r.position};
    scheme.encode(which, shape, request, tracer_);
  }

 private:
  template <class Row>
  static void widen(Row const* row, int head_dim, float* to) noexcept {
    for (int d = 0; d < head_dim; ++d)
      to[d] = to_float(row[d]);
  }

  Tracer& tracer_;
  std::vector<float> floats_;
};

namespace detail {

//! An encoder itself, or the scheme's own encoder with a tracer.
template <class With>
decltype(auto) encoder_with(With& with) noexcept {
  if constexpr (row_encoder<With>) {
    return (with);
  } else {
    return scheme_encoder<With>(with);
  }
}

}  // namespace detail

}  // namespace kvcrumb::inline v0
