// SPDX-License-Identifier: Apache-2.0
//! @file Scores of several rows of one kv head by a warp, eight channels a lane.
#pragma once

#include "kvcrumb/warp/statistics.cuh"

namespace kvcrumb::inline v0::warp {

//! How many rows of `HeadDim` channels a warp scores at once.
template <int HeadDim>
struct row_scores {
  static constexpr int active = HeadDim / 8;  //!< lanes of a row that have channels
  static constexpr int span = static_cast<int>(std::bit_ceil(static_cast<unsigned>(active)));
  static constexpr int together = 4;  //!< loads of a lane on their way
  static constexpr int rows = 32 / span * together;
};

//! Hands score(row i) of rows [begin, end), at most row_scores::rows of them, to put(i, score) of one lane
//! each, to the same bits as on the host. row_at(i) is where row i begins. All lanes together.
template <int HeadDim, class Score, class RowAt, class Put>
KVCRUMB_DEVICE void score_rows(Score const& score, RowAt row_at, int begin, int end, int lane, Put put) {
  if constexpr (requires { score.score; }) {
    score_rows<HeadDim>(score.score, row_at, begin, end, lane, [&](int i, float x) { put(i, -x); });
  } else {
    using shape = row_scores<HeadDim>;
    constexpr bool largest = std::same_as<Score, absmax_score>;
    auto const merge = [](float a, float b) {
      if constexpr (largest) {
        return b > a ? b : a;
      } else {
        return add_rn(a, b);
      }
    };
    int const part = lane % shape::span, first = begin + lane / shape::span;
    float sum[shape::together];
    word_vector<4> eight[shape::together];
    KVCRUMB_UNROLL
    for (int j = 0; j < shape::together; ++j) {
      int const i = first + j * (32 / shape::span);
      eight[j] = {};  // lanes without channels are last in the tree; zeros change nothing there
      if (i < end && part < shape::active) eight[j] = load_eight(row_at(i) + 8 * part);
    }
    KVCRUMB_UNROLL
    for (int j = 0; j < shape::together; ++j) {
      float node[8];
      KVCRUMB_UNROLL
      for (int n = 0; n < 8; ++n) {
        std::uint32_t const two = eight[j].word[n / 2] & 0x7FFF7FFFu;
        float const x = n % 2 != 0 ? ptx::high_half(two) : ptx::low_half(two);
        node[n] = std::same_as<Score, l2_score> ? mul_rn(x, x) : x;
      }
      fold_within<8>(node, merge);
      sum[j] = node[0];
    }
    KVCRUMB_UNROLL
    for (int n = 1; n < shape::span; n *= 2) {
      KVCRUMB_UNROLL
      for (int j = 0; j < shape::together; ++j) {
        float const other = __shfl_xor_sync(~0u, sum[j], n);
        // A sum does not depend on the order of two; which of a number and a NaN is larger does.
        sum[j] = largest && (lane & n) != 0 ? merge(other, sum[j]) : merge(sum[j], other);
      }
    }
    KVCRUMB_UNROLL
    for (int j = 0; j < shape::together; ++j) {
      int const i = first + j * (32 / shape::span);
      if (i < end && part == 0) put(i, sum[j]);
    }
  }
}

}  // namespace kvcrumb::inline v0::warp
