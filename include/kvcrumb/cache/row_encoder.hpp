// SPDX-License-Identifier: Apache-2.0
//! @file Who scores and encodes the rows of a kv_cache: the scheme itself, or something that is faster.
#pragma once

#include <type_traits>
#include <vector>

#include "kvcrumb/cache/config.hpp"
#include "kvcrumb/cache/row_values.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/outlier/isolation.hpp"
#include "kvcrumb/view/row_request.hpp"

namespace kvcrumb::inline v0 {

//! What kv_cache::append and prefill accept besides a tracer: scheme_encoder, host::vector_encoder, or the
//! caller's own. It must write the bytes and give the scores that scheme_encoder does.
//!
//!   whole_tiles                      whether it wants up to a tile at once, or single append units
//!   prepare<Row>(scheme, config)     a status before anything changes: whether it can, and its memory
//!   round(from, heads, n, dim, to)                  to.row(head, i) = from.row(head, i), nearest, ties to
//!                                                   even; finite values that `to` can hold; cannot fail
//!   score(isolate, keys, heads, n, dim, scores)     scores[head * n + i] of row(head, i); cannot fail
//!   encode(side_scheme, side, shape, request)       a row_request; cannot fail
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
  template <row_element From, storage_float Row>
  void round(rows_view<From> const& from, int heads, std::int64_t count, int head_dim,
             rows_view<Row> const& to) noexcept {
    detail::round_rows(from, heads, count, head_dim, to);
  }
  template <isolation Isolation, storage_float Row>
  void score(Isolation const& isolate, rows_view<Row const> const& keys, int heads, std::int64_t count,
             int head_dim, float* scores) {
    floats_.resize(static_cast<std::size_t>(head_dim));
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t i = 0; i < count; ++i) {
        for (int d = 0; d < head_dim; ++d)
          floats_[static_cast<std::size_t>(d)] = to_float(keys.row(head, i)[d]);
        scores[head * count + i] = isolate.score(floats_.data(), head_dim);
      }
    }
  }
  template <class Side, storage_float Row>
  void encode(Side const& scheme, side which, tile_shape shape, row_request<Row const> const& r) {
    floats_.resize(static_cast<std::size_t>(r.heads * r.count) * static_cast<std::size_t>(shape.head_dim));
    encode_as_floats(scheme, which, shape, r, floats_.data(), tracer_);
  }

 private:
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
