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

//! What a warp keeps of the tokens seen so far: the running maximum (log2 units) of its columns, the
//! un-normalized output o[n][p][i] (channel 16 p + lane / 4 + 8 (i / 2) of column 8 n + 2 (lane % 4) + i % 2,
//! times the operand's factor), the sums of the weights (equal in all rows), and the weighted sums of the
//! values' bias: row g is group g, a half of the tokens in the upper rows of bias[n][0], the other in the
//! lower rows of bias[n][1].
template <int DimBlocks, int ColumnTiles>
struct column_state {
  float max[ColumnTiles][2];
  float o[ColumnTiles][DimBlocks][4];
  float sums[ColumnTiles][4];
  float bias[ColumnTiles][2][4];

  KVCRUMB_DEVICE void clear() {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      max[n][0] = max[n][1] = negative_infinity;
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        sums[n][i] = bias[n][0][i] = bias[n][1][i] = 0.0f;
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

//! The form of scores that are sums without a factor or a constant.
struct plain_form {
  static constexpr bool has_zero = false;
  static constexpr int groups = 1;
  KVCRUMB_API static constexpr int exponent(int, int) noexcept { return 0; }
  KVCRUMB_API static constexpr int group_of(int) noexcept { return 0; }
};

namespace detail {

//! Whether entry j (row block j / 2, half j % 2) is the first with its group and exponent.
template <class Form>
KVCRUMB_API constexpr bool begins_class(int j) noexcept {
  for (int i = 0; i < j; ++i) {
    if (Form::group_of(i / 2) == Form::group_of(j / 2) &&
        Form::exponent(i / 2, i % 2) == Form::exponent(j / 2, j % 2))
      return false;
  }
  return true;
}

//! The largest score of a column in this lane: one multiplication for each group and exponent.
template <class Form, int Blocks>
KVCRUMB_DEVICE float largest_score(float const (&s)[Blocks][4], int column, float scale,
                                   float const (&zero)[Form::groups]) {
  float top = negative_infinity;
  unrolled<2 * Blocks>([&]<int j>() {
    if constexpr (begins_class<Form>(j)) {
      constexpr int group = Form::group_of(j / 2), exponent = Form::exponent(j / 2, j % 2);
      float m = s[j / 2][2 * (j % 2) + column];
      unrolled<2 * Blocks - j>([&]<int d>() {
        constexpr int i = j + d;
        if constexpr (d > 0 && Form::group_of(i / 2) == group && Form::exponent(i / 2, i % 2) == exponent)
          m = fmaxf(m, s[i / 2][2 * (i % 2) + column]);
      });
      float const factor = power_of_two(exponent) * scale;
      top = fmaxf(top, Form::has_zero ? fmaf(m, factor, zero[group]) : m * factor);
    }
  });
  return top;
}

}  // namespace detail

//! Weights of Blocks * 16 tokens: w[n][p][r] is the B register r of column block p (tokens 16 p + 8 r ...).
//! Scores are 2^exponent * scale * s + zero in log2 units, -inf where nothing is visible; `scale` is
//! positive. Raises the maximum and rescales `state`. All lanes together.
template <class Form, int Blocks, int DimBlocks, int ColumnTiles>
KVCRUMB_DEVICE void weigh(std::uint32_t (&w)[ColumnTiles][Blocks][2],
                          float const (&s)[ColumnTiles][Blocks][4],
                          float const (&zero)[Form::groups][ColumnTiles][2],
                          float const (&scale)[ColumnTiles][2], column_state<DimBlocks, ColumnTiles>& state,
                          float bias) {
  float top[ColumnTiles][2];
  bool rises = false;
  KVCRUMB_UNROLL
  for (int n = 0; n < ColumnTiles; ++n) {
    KVCRUMB_UNROLL
    for (int i = 0; i < 2; ++i) {
      float mine[Form::groups];
      KVCRUMB_UNROLL
      for (int g = 0; g < Form::groups; ++g)
        mine[g] = Form::has_zero ? zero[g][n][i] : 0.0f;
      float m = detail::largest_score<Form>(s[n], i, scale[n][i], mine);
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
        state.bias[n][0][i] *= factor[i & 1];
        state.bias[n][1][i] *= factor[i & 1];
        KVCRUMB_UNROLL
        for (int p = 0; p < DimBlocks; ++p)
          state.o[n][p][i] *= factor[i & 1];
      }
    }
  }
  unrolled<ColumnTiles>([&]<int n>() {
    float y[Form::groups][2];
    KVCRUMB_UNROLL
    for (int i = 0; i < 2; ++i) {
      float const base = bias - (state.max[n][i] == negative_infinity ? 0.0f : state.max[n][i]);
      KVCRUMB_UNROLL
      for (int g = 0; g < Form::groups; ++g)
        y[g][i] = Form::has_zero ? zero[g][n][i] + base : base;
    }
    unrolled<2 * Blocks>([&]<int j>() {
      constexpr int p = j / 2, r = j % 2, g = Form::group_of(p);
      constexpr float power = power_of_two(Form::exponent(p, r));
      float const even = ptx::exp2_approximate(fmaf(s[n][p][2 * r], power * scale[n][0], y[g][0]));
      float const odd = ptx::exp2_approximate(fmaf(s[n][p][2 * r + 1], power * scale[n][1], y[g][1]));
      w[n][p][r] = ptx::transpose_8x8(ptx::pack_half2(even, odd));
    });
  });
}

//! Hides the slots that hold no token (-inf).
template <int Blocks, int ColumnTiles>
KVCRUMB_DEVICE void hide_invalid(float (&s)[ColumnTiles][Blocks][4], std::uint32_t const (&valid)[4],
                                 int lane) {
  std::uint32_t mine[(Blocks + 1) / 2];  // bits 0, 8, 16, 24: this lane's slots
  KVCRUMB_UNROLL
  for (int i = 0; i < (Blocks + 1) / 2; ++i)
    mine[i] = valid[i] >> (lane >> 2);
  unrolled<2 * Blocks>([&]<int j>() {
    constexpr int p = j / 2, r = j % 2;
    bool const hidden = (mine[p / 2] & (1u << (16 * (p % 2) + 8 * r))) == 0;
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      s[n][p][2 * r] = hidden ? negative_infinity : s[n][p][2 * r];
      s[n][p][2 * r + 1] = hidden ? negative_infinity : s[n][p][2 * r + 1];
    }
  });
}

//! Caps the scores of a tile and hides what may not be seen (-inf), in the form of `Form`.
template <class Form, int Blocks, int ColumnTiles>
KVCRUMB_DEVICE void restrict_scores(float (&s)[ColumnTiles][Blocks][4],
                                    float const (&zero)[Form::groups][ColumnTiles][2],
                                    float const (&scale)[ColumnTiles][2],
                                    tile_visibility<ColumnTiles> const& v, float soft_cap, int lane) {
  unrolled<ColumnTiles>([&]<int n>() {
    float const inverse[2] = {1.0f / scale[n][0], 1.0f / scale[n][1]};
    unrolled<2 * Blocks>([&]<int j>() {
      constexpr int p = j / 2, r = j % 2, g = Form::group_of(p), exponent = Form::exponent(p, r);
      int const slot = 16 * p + 8 * r + (lane >> 2);
      bool const valid = ((v.valid[p / 2] >> (16 * (p % 2) + 8 * r + (lane >> 2))) & 1u) != 0;
      KVCRUMB_UNROLL
      for (int i = 0; i < 2; ++i) {
        float& x = s[n][p][2 * r + i];
        if (soft_cap > 0.0f) {
          float const constant = Form::has_zero ? zero[g][n][i] : 0.0f;
          float const score = fmaf(x, power_of_two(exponent) * scale[n][i], constant);
          x = (capped(score, soft_cap) - constant) * inverse[i] * power_of_two(-exponent);
        }
        bool const visible = valid && slot >= v.first[n][i] && slot <= v.last[n][i];
        if (!visible) x = negative_infinity;
      }
    });
  });
}

}  // namespace kvcrumb::inline v0::warp
