// SPDX-License-Identifier: Apache-2.0
//! @file One step of the online softmax in a warp: scores of a tile to weights, in the layout of a B operand.
#pragma once

#include "kvcrumb/softmax_state.hpp"
#include "kvcrumb/warp/score.cuh"

namespace kvcrumb::inline v0::warp {

inline constexpr float log2_e = 1.4426950408889634f;

//! Weights are 2^(score - maximum + bias). The bias keeps the products of small weights and gains away from
//! the subnormal numbers of fp16 when a few tokens outweigh all others; it cancels in the output. A gain of
//! 2^8 or more would overflow with it, so a segment whose sums are not finite is computed once more without.
inline constexpr float weight_bias = 8.0f;

//! What a warp keeps of the tokens seen so far: running maximum (log2 units) of its columns, un-normalized
//! output o[n][p][i] (channel 16 p + lane / 4 + 8 (i / 2) of column 8 n + 2 (lane % 4) + i % 2, times the
//! operand's factor), and per column the weighted sum of the values' bias (rows 0..7: one per group) and of
//! the weights (rows 8..15).
template <int DimBlocks, int ColumnTiles>
struct column_state {
  float max[ColumnTiles][2];
  float o[ColumnTiles][DimBlocks][4];
  float sums[ColumnTiles][4];

  KVCRUMB_DEVICE void clear() {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      max[n][0] = max[n][1] = negative_infinity;
      sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
      KVCRUMB_UNROLL
      for (int p = 0; p < DimBlocks; ++p)
        o[n][p][0] = o[n][p][1] = o[n][p][2] = o[n][p][3] = 0.0f;
    }
  }
};

//! Which slots of a tile which columns may see.
template <int ColumnTiles>
struct tile_visibility {
  std::uint32_t valid[4];     //!< validity bits of the slots
  bool all_valid;             //!< every slot is valid; the same in all lanes
  bool cut;                   //!< some column does not see all slots; the same in all lanes
  int first[ColumnTiles][2];  //!< first visible slot of this lane's columns
  int last[ColumnTiles][2];   //!< last visible slot
};

//! Soft-cap cap * tanh(x / cap), log2 units in and out, cap in natural units. tanh(y) = 1 - 2 / (1 + e^(2y));
//! the absolute error is a few 2^-24 of the cap.
KVCRUMB_DEVICE float capped(float score, float cap) {
  float const limit = cap * log2_e;
  float const grown = ptx::exp2_approximate(score * (2.0f * ptx::reciprocal_approximate(cap)));
  return limit - 2.0f * limit * ptx::reciprocal_approximate(1.0f + grown);
}

//! Weights of Blocks * 16 tokens: w[n][p][r] is the B register r of column block p (tokens 16 p + 8 r ...).
//! Raises the maximum, rescales `state`, leaves weights 0 where nothing is visible. All lanes together.
template <int Blocks, int DimBlocks, int ColumnTiles>
KVCRUMB_DEVICE void weigh(std::uint32_t (&w)[ColumnTiles][Blocks][2], float (&s)[ColumnTiles][Blocks][4],
                          column_state<DimBlocks, ColumnTiles>& state, float bias) {
  float top[ColumnTiles][2];
  bool rises = false;
  KVCRUMB_UNROLL
  for (int n = 0; n < ColumnTiles; ++n) {
    KVCRUMB_UNROLL
    for (int i = 0; i < 2; ++i) {
      float m = fmaxf(s[n][0][i], s[n][0][i + 2]);
      KVCRUMB_UNROLL
      for (int p = 1; p < Blocks; ++p)
        m = fmaxf(m, fmaxf(s[n][p][i], s[n][p][i + 2]));
      KVCRUMB_UNROLL
      for (int x = 4; x < 32; x *= 2)
        m = fmaxf(m, __shfl_xor_sync(~0u, m, x));
      top[n][i] = m;
      rises = rises || m > state.max[n][i];
    }
  }
  if (__any_sync(~0u, rises)) {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      float factor[2];
      KVCRUMB_UNROLL
      for (int i = 0; i < 2; ++i) {
        float const raised = fmaxf(state.max[n][i], top[n][i]);
        // -inf - -inf would be NaN; nothing has been summed then, and any factor does.
        factor[i] = ptx::exp2_approximate(state.max[n][i] - (raised == negative_infinity ? 0.0f : raised));
        state.max[n][i] = raised;
      }
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i) {
        state.sums[n][i] *= factor[i & 1];
        KVCRUMB_UNROLL
        for (int p = 0; p < DimBlocks; ++p)
          state.o[n][p][i] *= factor[i & 1];
      }
    }
  }
  KVCRUMB_UNROLL
  for (int n = 0; n < ColumnTiles; ++n) {
    float y[2];
    KVCRUMB_UNROLL
    for (int i = 0; i < 2; ++i)
      y[i] = bias - (state.max[n][i] == negative_infinity ? 0.0f : state.max[n][i]);
    KVCRUMB_UNROLL
    for (int p = 0; p < Blocks; ++p) {
      KVCRUMB_UNROLL
      for (int r = 0; r < 2; ++r) {
        w[n][p][r] = ptx::transpose_8x8(ptx::pack_half2(ptx::exp2_approximate(s[n][p][2 * r] + y[0]),
                                                        ptx::exp2_approximate(s[n][p][2 * r + 1] + y[1])));
      }
    }
  }
}

//! Caps the scores of a tile and hides what may not be seen (-inf).
template <int Blocks, int ColumnTiles>
KVCRUMB_DEVICE void restrict_scores(float (&s)[ColumnTiles][Blocks][4], tile_visibility<ColumnTiles> const& v,
                                    float soft_cap, int lane) {
  KVCRUMB_UNROLL
  for (int p = 0; p < Blocks; ++p) {
    KVCRUMB_UNROLL
    for (int i = 0; i < 4; ++i) {
      int const slot = 16 * p + 8 * (i / 2) + (lane >> 2);
      bool const valid = ((v.valid[p / 2] >> (16 * (p % 2) + 8 * (i / 2) + (lane >> 2))) & 1u) != 0;
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        bool const visible = valid && slot >= v.first[n][i & 1] && slot <= v.last[n][i & 1];
        float const x = soft_cap > 0.0f ? capped(s[n][p][i], soft_cap) : s[n][p][i];
        s[n][p][i] = visible ? x : negative_infinity;
      }
    }
  }
}

}  // namespace kvcrumb::inline v0::warp
