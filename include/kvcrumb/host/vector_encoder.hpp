// SPDX-License-Identifier: Apache-2.0
//! @file host::vector_encoder: appending to a kv_cache with the vector instructions of the processor.
#pragma once

#include "kvcrumb/cache/row_encoder.hpp"
#include "kvcrumb/cache/storage.hpp"
#include "kvcrumb/host/encode.hpp"
#include "kvcrumb/host/encode_scores.hpp"
#include "kvcrumb/host/round_rows.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host {

//! Give one to kv_cache::append or prefill as the last argument: the same bytes, pools and masks as without
//! it, rounded, scored and encoded with vector instructions.
//!
//!   host::vector_encoder encoder;
//!   cache.append(keys, values, count, encoder);
//!
//! Keeps working memory between calls, so use one per thread. append and prefill return `unsupported`, and
//! change nothing, where the processor lacks the instructions or a side of the scheme, the score or the type
//! of the rows has no kernel, unless how.allow_slow.
class vector_encoder {
 public:
  static constexpr bool whole_tiles = true;
  explicit vector_encoder(execution const& how = {}) noexcept : how_(how) {}

  template <storage_float Row, class Scheme>
  status prepare(Scheme const& scheme, cache_config const& config) {
    if (status const s = prepare_side<Row>(scheme.key, side::key, config); s != status::ok) return s;
    if (status const s = prepare_side<Row>(scheme.value, side::value, config); s != status::ok) return s;
    if constexpr (Scheme::isolation_type::how == selection::smallest) {
      if (scheme.isolate.pool_capacity() == 0) return status::ok;
      Row const none[max_head_dim] = {};
      float score = 0.0f;
      rows_view<Row const> const row = hnd_rows(none, 1, config.shape.head_dim);
      return score_rows(measure_of(scheme.isolate), row, 1, 1, config.shape.head_dim, &score, how_);
    }
    return status::ok;
  }
  template <row_element From, storage_float Row>
  void round(rows_view<From> const& from, int heads, std::int64_t count, int head_dim,
             rows_view<Row> const& to) noexcept {
    if constexpr (std::is_same_v<From const, Row const> || sizeof(Row) < 2) {
      kvcrumb::detail::round_rows(from, heads, count, head_dim, to);  // copies, or rows without a kernel
    } else {
      detail::round_rows(how_.isa, from, heads, count, head_dim, to);
    }
  }
  template <isolation Isolation, storage_float Row>
  void score(Isolation const& isolate, rows_view<Row const> const& keys, int heads, std::int64_t count,
             int head_dim, float* scores) noexcept {
    [[maybe_unused]] status const s =
        score_rows(measure_of(isolate), keys, heads, count, head_dim, scores, how_);
    KVCRUMB_ASSERT(s == status::ok);
  }
  template <class Side, storage_float Row>
  void encode(Side const& scheme, side which, tile_shape shape, row_request<Row const> const& r) noexcept {
    [[maybe_unused]] status const s = host::encode(scheme, which, shape, r, memory_, how_);
    KVCRUMB_ASSERT(s == status::ok);
  }

 private:
  //! The score of a policy that has no `measure`: there is no kernel for it.
  template <isolation Isolation>
  struct score_of {
    static constexpr char const* name = Isolation::name;
    Isolation const& isolate;
    float operator()(float const* row, int head_dim) const noexcept { return isolate.score(row, head_dim); }
  };
  template <isolation Isolation>
  static auto measure_of(Isolation const& isolate) noexcept {
    if constexpr (requires { isolate.measure; }) {
      return isolate.measure;
    } else {
      return score_of<Isolation>{isolate};
    }
  }
  template <storage_float Row, class Side>
  status prepare_side(Side const& scheme, side which, cache_config const& config) {
    if (status const s = supports_encode(scheme, which, config.shape, config.kv_heads, how_); s != status::ok)
      return s;
    if (sizeof(Row) < 2 && !how_.allow_slow) return status::unsupported;
    std::int64_t const bytes =
        encode_workspace_bytes(scheme, which, config.shape, config.kv_heads, config.shape.tile_tokens);
    if (bytes > static_cast<std::int64_t>(memory_.size())) memory_.resize(static_cast<std::size_t>(bytes));
    return status::ok;
  }

  execution how_;
  kvcrumb::detail::byte_buffer memory_;
};

}  // namespace kvcrumb::inline v0::host

#endif
