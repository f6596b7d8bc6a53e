// SPDX-License-Identifier: Apache-2.0
//! @file kv_layer: the cache of one layer of one sequence, whatever its scheme.
#pragma once

#include <cstdint>
#include <memory>

#include <kvcrumb/status.hpp>
#include <kvcrumb/view/rows_view.hpp>

namespace kvcrumb_lm {

using row_view = kvcrumb::rows_view<float const>;

//! All that the engine wants of a cache. Keys are given after RoPE. Errors are those of kvcrumb; nothing is
//! changed then.
class kv_layer {
 public:
  kv_layer() = default;
  kv_layer(kv_layer const&) = delete;
  kv_layer& operator=(kv_layer const&) = delete;
  virtual ~kv_layer() = default;

  //! An empty cache of the same scheme and shape (and calibration).
  virtual std::unique_ptr<kv_layer> fresh() const = 0;

  //! The next `count` tokens: keys and values [kv_heads][count][head_dim].
  virtual kvcrumb::status append(row_view keys, row_view values, std::int64_t count) = 0;

  //! Causal attention of the newest `queries` tokens over everything that is stored, their own tokens
  //! included: q and o are [query_heads][queries][head_dim]. window > 0: that many tokens are visible.
  virtual kvcrumb::status attend(row_view q, int query_heads, int queries, kvcrumb::rows_view<float> o,
                                 std::int64_t window) = 0;

  virtual std::int64_t tokens() const = 0;
  //! Everything that holds the tokens: codes, parameters, masks, padding, pools, exact rows.
  virtual std::int64_t bytes() const = 0;

  //! Whether `read` gives back what attention reads; a sketch of the keys cannot be read.
  virtual bool readable() const = 0;
  //! One token of one kv head as floats; out_of_range for all tokens unless readable().
  virtual kvcrumb::status read(int head, std::int64_t token, float* key, float* value) const = 0;
};

}  // namespace kvcrumb_lm
