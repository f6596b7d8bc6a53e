// SPDX-License-Identifier: Apache-2.0
//! @file Factors of tokens and channels that even out the standard deviations of a tile on both axes.
#pragma once

#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/numeric/square_root.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"

namespace kvcrumb::inline v0 {

//! Factors s of tokens and c of channels, made so that x / (s c) has the same standard deviation along every
//! row and column, as far as that goes (KVarN, arXiv 2606.03458; github.com/huawei-csl/KVarN).
//!
//! Each iteration multiplies the factors of one axis by the standard deviations of x / (s c) along it
//! (unbiased, clamped to [1e-3, 1e3]), clamps them to [exp(-0.3), exp(10)], and does the same with the other
//! axis. Kept are the factors of the iteration with the least imbalance, the sum over both axes of largest /
//! smallest standard deviation; 1 everywhere if no iteration is better than none. The published code adds
//! logarithms; products are the same and need no function whose last bit depends on the C library. The lower
//! bound exp(-0.3) means that a tile of standard deviations below 0.74 is hardly changed.
struct balanced_scales {
  float token[max_tile_tokens];  //!< 0 for isolated tokens
  float channel[max_head_dim];

  //! Rows [tokens][width]; isolated[t] != 0: token t takes no part (null: none). All factors are 1 if fewer
  //! than two tokens or channels take part or a value of theirs is not finite. At most 128 tokens and 1024
  //! channels. Cost: 2 (iterations + 1) passes with one division a value.
  balanced_scales(float const* rows, std::uint8_t const* isolated, int tokens, int width, bool tokens_first,
                  int iterations) noexcept {
    tile x{rows, width, {}, 0};
    bool finite = true;
    for (int t = 0; t < tokens; ++t) {
      bool const out = isolated != nullptr && isolated[t] != 0;
      token[t] = out ? 0.0f : 1.0f;
      if (out) continue;
      x.kept[x.count++] = t;
      for (int d = 0; d < width; ++d)
        finite = finite && is_finite_bits(rows[static_cast<std::int64_t>(t) * width + d]);
    }
    for (int d = 0; d < width; ++d)
      channel[d] = 1.0f;
    if (x.count < 2 || width < 2 || !finite) return;

    float s[max_tile_tokens], c[max_head_dim];                    // factors, s by index of kept tokens
    float of_tokens[max_tile_tokens], of_channels[max_head_dim];  // deviations of x / c and of x / s
    for (int i = 0; i < x.count; ++i)
      s[i] = 1.0f;
    for (int d = 0; d < width; ++d)
      c[d] = 1.0f;
    x.measure_tokens(c, of_tokens);
    x.measure_channels(s, of_channels);
    float const start = add_rn(spread(of_tokens, s, x.count), spread(of_channels, c, width));
    float least = is_finite_bits(start) ? start : max_finite_float;
    for (int i = 0; i < iterations; ++i) {
      if (tokens_first) {
        update(s, of_tokens, x.count);
        x.measure_channels(s, of_channels);
        update(c, of_channels, width);
        x.measure_tokens(c, of_tokens);
      } else {
        update(c, of_channels, width);
        x.measure_tokens(c, of_tokens);
        update(s, of_tokens, x.count);
        x.measure_channels(s, of_channels);
      }
      float const now = add_rn(spread(of_tokens, s, x.count), spread(of_channels, c, width));
      if (!is_finite_bits(now) || now > least) continue;
      least = now;
      for (int k = 0; k < x.count; ++k)
        token[x.kept[k]] = s[k];
      for (int d = 0; d < width; ++d)
        channel[d] = c[d];
    }
  }

 private:
  static constexpr float max_finite_float = 3.40282347e38f;

  //! The rows that take part.
  struct tile {
    float const* rows;
    int width;
    int kept[max_tile_tokens];
    int count;

    float at(int i, int d) const noexcept { return rows[static_cast<std::int64_t>(kept[i]) * width + d]; }
    void measure_tokens(float const* c, float* deviations) const noexcept {
      float row[max_head_dim];
      for (int i = 0; i < count; ++i) {
        for (int d = 0; d < width; ++d)
          row[d] = div_rn(at(i, d), c[d]);
        deviations[i] = deviation(row, width);
      }
    }
    void measure_channels(float const* s, float* deviations) const noexcept {
      float column[max_tile_tokens];
      for (int d = 0; d < width; ++d) {
        for (int i = 0; i < count; ++i)
          column[i] = div_rn(at(i, d), s[i]);
        deviations[d] = deviation(column, count);
      }
    }
  };

  //! Standard deviation of n >= 2 values, divisor n - 1.
  static float deviation(float const* x, int n) noexcept {
    float const mean = div_rn(tree_sum(x, n), static_cast<float>(n));
    float const squares = tree_fold(
        n,
        [&](int i) {
          float const e = sub_rn(x[i], mean);
          return mul_rn(e, e);
        },
        [](float a, float b) { return add_rn(a, b); });
    return sqrt_rn(div_rn(squares, static_cast<float>(n - 1)));
  }
  static float clamped(float x, float low, float high) noexcept {
    return x < low ? low : x > high ? high : x;
  }
  //! Factors times the deviations of what they divide; deviations[i] / factors[i] is that of x / (s c).
  static void update(float* factors, float const* deviations, int n) noexcept {
    for (int i = 0; i < n; ++i) {
      float const ratio = clamped(div_rn(deviations[i], factors[i]), 1e-3f, 1e3f);
      factors[i] = clamped(mul_rn(factors[i], ratio), 0.74081822f, 22026.465f);  // exp(-0.3), exp(10)
    }
  }
  //! Largest over smallest deviation of x / (s c); infinite if a sum has overflowed.
  static float spread(float const* deviations, float const* factors, int n) noexcept {
    float low = max_finite_float, high = 0.0f;
    for (int i = 0; i < n; ++i) {
      float const x = div_rn(deviations[i], factors[i]);
      if (!is_finite_bits(x)) return float_from_bits(0x7F800000u);
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
    return div_rn(high, low < 1e-8f ? 1e-8f : low);
  }
};

}  // namespace kvcrumb::inline v0
