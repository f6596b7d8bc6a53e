// SPDX-License-Identifier: Apache-2.0
//! @file Attention over full-precision rows (sinks, outlier pools, tail), 16 tokens at a time, by one warp.
#pragma once

#include "kvcrumb/view/batch_cache.hpp"
#include "kvcrumb/warp/softmax.cuh"

namespace kvcrumb::inline v0::warp {

//! Some fp16 rows of one (sequence, kv head). Row i has position positions[i], or first + i, and lies in row
//! i of the memory, or in row (first + i) % ring.
struct exact_list {
  float16 const* keys = nullptr;
  float16 const* values = nullptr;
  std::int64_t key_stride = 0, value_stride = 0;  //!< elements from row to row
  std::int32_t const* positions = nullptr;
  int first = 0, count = 0, ring = 0;

  KVCRUMB_DEVICE int position(int i) const { return positions != nullptr ? positions[i] : first + i; }
  KVCRUMB_DEVICE std::int64_t row(int i) const { return ring > 0 ? (first + i) % ring : i; }
};

//! Query rows in shared memory as the exact rows want them: row-major, 8 elements of padding.
template <int HeadDim>
inline constexpr int exact_query_stride = HeadDim + 8;

//! Attention of 8 * ColumnTiles query columns over exact rows. o[n][m][i] is channel channel(m, i / 2, lane)
//! of column 8 n + 2 (lane % 4) + i % 2; sums[n][i] are the sums of the weights.
template <int HeadDim, int ColumnTiles>
struct exact_attention {
  static constexpr int blocks = HeadDim / 16;
  static constexpr int pieces = HeadDim / 64;          //!< of 64 channels, 8 for each group of four lanes
  static constexpr bool has_rest = HeadDim % 64 != 0;  //!< 32 channels more, 4 for each group
  static_assert(HeadDim % 32 == 0);

  column_state<blocks, ColumnTiles> state;

  //! Channel of row half r of output block m: lanes of a group own neighbouring channels, so that they are
  //! loaded as they lie.
  KVCRUMB_DEVICE static int channel(int m, int r, int lane) {
    int const g = lane >> 2;
    return m / 4 < pieces ? 64 * (m / 4) + 8 * g + 2 * (m % 4) + r : 64 * pieces + 4 * g + 2 * (m % 4) + r;
  }

  //! Rows [begin, begin + 16) of a list, at most to its end. newest and oldest bound the visible positions of
  //! the lane's columns, `scale` are their factors in log2 units. Called by a warp.
  KVCRUMB_DEVICE void add(exact_list const& list, int begin, std::uint32_t query_rows,
                          float const (&scale)[ColumnTiles][2], int const (&oldest)[ColumnTiles][2],
                          int const (&newest)[ColumnTiles][2], float soft_cap, float bias, int lane) {
    int const g = lane >> 2, t = lane & 3;
    // Rows beyond the end are read as the first row, which exists, and hidden.
    auto const clamped = [&](int i) { return begin + i < list.count ? begin + i : begin; };

    std::uint32_t values[4][pieces + (has_rest ? 1 : 0)][4];
    KVCRUMB_UNROLL
    for (int j = 0; j < 4;
         ++j) {  // tokens 2t, 2t + 1, 2t + 8, 2t + 9; on their way while scores are computed
      float16 const* row =
          list.values + list.row(clamped(2 * t + (j & 1) + 8 * (j >> 1))) * list.value_stride;
      KVCRUMB_UNROLL
      for (int piece = 0; piece < pieces; ++piece)
        ptx::load_global_128(values[j][piece], row + 64 * piece + 8 * g);
      if constexpr (has_rest) {  // two lanes of neighbouring groups read the same 16 bytes
        std::uint32_t both[4];
        ptx::load_global_128(both, row + 64 * pieces + 8 * (g >> 1));
        values[j][pieces][0] = (g & 1) != 0 ? both[2] : both[0];
        values[j][pieces][1] = (g & 1) != 0 ? both[3] : both[1];
      }
    }

    float s[ColumnTiles][1][4] = {};
    float16 const* low = list.keys + list.row(clamped(g)) * list.key_stride + 8 * t;
    float16 const* high = list.keys + list.row(clamped(g + 8)) * list.key_stride + 8 * t;
    std::uint32_t const q =
        query_rows + static_cast<std::uint32_t>(2 * (g * exact_query_stride<HeadDim> + 8 * t));
    KVCRUMB_UNROLL
    for (int k = 0; k < HeadDim / 32; ++k) {
      std::uint32_t a[4], b[4];
      ptx::load_global_128(a, low + 32 * k);
      ptx::load_global_128(b, high + 32 * k);
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        std::uint32_t r[4];
        ptx::load_shared_128(
            r, q + static_cast<std::uint32_t>(2 * (8 * n * exact_query_stride<HeadDim> + 32 * k)));
        ptx::mma(s[n][0], a[0], b[0], a[1], b[1], r[0], r[1]);
        ptx::mma(s[n][0], a[2], b[2], a[3], b[3], r[2], r[3]);
      }
    }
    KVCRUMB_UNROLL
    for (int i = 0; i < 4; ++i) {
      int const row = begin + g + 8 * (i / 2);
      int const position = row < list.count ? list.position(row) : -1;
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        bool const visible = row < list.count && position >= oldest[n][i & 1] && position <= newest[n][i & 1];
        float const x = s[n][0][i] * scale[n][i & 1];
        s[n][0][i] = visible ? (soft_cap > 0.0f ? capped(x, soft_cap) : x) : negative_infinity;
      }
    }

    std::uint32_t w[ColumnTiles][1][2];
    float const none[1][ColumnTiles][2] = {};
    float one[ColumnTiles][2];
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n)
      one[n][0] = one[n][1] = 1.0f;
    weigh<plain_form>(w, s, none, one, state, bias);
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      ptx::mma(state.sums[n], ptx::half2_one, ptx::half2_one, ptx::half2_one, ptx::half2_one, w[n][0][0],
               w[n][0][1]);
      KVCRUMB_UNROLL
      for (int m = 0; m < blocks; ++m) {
        std::uint32_t const v0 = values[0][m / 4][m % 4], v1 = values[1][m / 4][m % 4],
                            v2 = values[2][m / 4][m % 4], v3 = values[3][m / 4][m % 4];
        ptx::mma(state.o[n][m], ptx::permute_bytes(v0, v1, 0x5410u), ptx::permute_bytes(v0, v1, 0x7632u),
                 ptx::permute_bytes(v2, v3, 0x5410u), ptx::permute_bytes(v2, v3, 0x7632u), w[n][0][0],
                 w[n][0][1]);
      }
    }
  }

  //! Gives every output to put(column, channel, value). All lanes together.
  template <class Put>
  KVCRUMB_DEVICE void unpack(int lane, Put put) const {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      KVCRUMB_UNROLL
      for (int m = 0; m < blocks; ++m) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 4; ++i)
          put(8 * n + 2 * (lane & 3) + (i & 1), channel(m, i / 2, lane), state.o[n][m][i]);
      }
    }
  }
};

}  // namespace kvcrumb::inline v0::warp
