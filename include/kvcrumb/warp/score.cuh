// SPDX-License-Identifier: Apache-2.0
//! @file Scores of all tokens of a tile: code operands times the query, parameters folded into the query.
#pragma once

#include "kvcrumb/warp/query.cuh"
#include "kvcrumb/warp/ring.cuh"
#include "kvcrumb/warp/transform.cuh"

namespace kvcrumb::inline v0::warp {

//! How the accumulators of a tile become scores: score = 2^exponent * scale * s + zero. Nothing here is
//! applied to the accumulators; the softmax does it in the instruction that it needs anyway.
template <class Key>
struct score_form {
  //! Keys per channel leave the operand's factor in the sum, and one constant for each group of tokens.
  static constexpr bool folded = Key::per_channel || Key::spec.planes == 0;
  static constexpr bool has_zero = (folded && Key::codec::bias != bias_form::none) ||
                                   transform_traits<typename Key::scheme_type::transform_type>::has_offset;
  static constexpr int groups = folded ? Key::groups : 1;
  KVCRUMB_API static constexpr int exponent(int p, int r) noexcept {
    return folded ? Key::unit::exponent(p, r) : 0;
  }
  KVCRUMB_API static constexpr int group_of(int p) noexcept { return folded ? Key::group_of(p) : 0; }
};

//! The query as the scores of a blob want it.
template <class Blob, int ColumnTiles>
using query_of = query<Blob::head_dim, ColumnTiles,
                       score_form<typename Blob::key>::folded && Blob::key::codec::bias == bias_form::plane
                           ? register_order::by_half
                           : register_order::by_block>;

//! One accumulator for each (column tile, row block): s[n][p][i] is token 16 p + lane / 4 + 8 (i / 2), query
//! column 8 n + 2 (lane % 4) + i % 2. zero[g][n][i] is the constant of group g and column 8 n + 2 (lane % 4)
//! + i.
template <class Blob, int ColumnTiles>
struct tile_scores {
  using form = score_form<typename Blob::key>;
  float s[ColumnTiles][Blob::token_blocks][4];
  float zero[form::groups][ColumnTiles][2];
};

namespace detail {

//! Keys per channel (KIVI): q' = q * gain once per group, and one constant per (group, column) from q * bias.
//! score = 2^exponent * sum q' code + z.
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_channels(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                                   query_of<Blob, ColumnTiles> const& q, Levels const& levels, int lane) {
  using key = typename Blob::key;
  using layout = typename key::layout;
  constexpr int groups = key::groups, t_stride = 16;
  constexpr bias_form bias = key::codec::bias;
  using query_type = query_of<Blob, ColumnTiles>;
  constexpr int chains = 2;
  constexpr std::uint32_t half_offset = from_float<float16>(-key::codec::offset).bits;
  std::uint32_t const lane_offset = static_cast<std::uint32_t>(t_stride * (lane & 3));
  float z[groups][ColumnTiles][chains][4];
  std::uint32_t gain[groups][4], constant[groups][4], plain[ColumnTiles][4];  // of two column blocks

  unrolled<key::chunks>([&]<int chunk>() {
    std::uint32_t const base = tiles.wait();
    std::uint32_t const params = tiles.parameters() + lane_offset;
    unrolled<key::chunk_steps>([&]<int local>() {
      constexpr int step = chunk * key::chunk_steps + local;
      std::uint32_t folded[layout::column_fields][groups][ColumnTiles][2];
      unrolled<layout::column_fields>([&]<int cf>() {
        constexpr int k = step * layout::column_fields + cf;
        if constexpr (k < layout::column_blocks) {
          constexpr int b0 = query_type::place(k % 2, 0), b1 = query_type::place(k % 2, 1);
          if constexpr (k % 2 == 0) q.template get<k / 2>(plain);
          KVCRUMB_UNROLL
          for (int g = 0; g < groups; ++g) {
            if constexpr (key::codec::has_gain && k % 2 == 0) {  // one load serves two column blocks
              ptx::load_shared_128(gain[g], params + key::vector_offset(0, g, k / 2));
            }
            if constexpr (key::spec.planes == 2 && k % 2 == 0) {
              ptx::load_shared_128(constant[g], params + key::vector_offset(1, g, k / 2));
            }
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              std::uint32_t(&f)[2] = folded[cf][g][n];
              f[0] = plain[n][b0];
              f[1] = plain[n][b1];
              if constexpr (key::codec::has_gain) {
                f[0] = ptx::multiply_half2(f[0], gain[g][2 * (k % 2)]);
                f[1] = ptx::multiply_half2(f[1], gain[g][2 * (k % 2) + 1]);
              }
              [[maybe_unused]] float(&zn)[2][4] = z[g][n];
              if constexpr (bias == bias_form::plane && k % 2 == 0) {
                // The four registers of the vector as they are: rows 0..7 are its even ones, rows 8..15 its
                // odd ones, so the first product is right in the upper rows and the second in the lower ones.
                std::uint32_t const(&m)[4] = constant[g];
                multiply_add<k == 0>(zn[0], m[0], m[1], m[2], m[3], plain[n][0], plain[n][1]);
                multiply_add<k == 0>(zn[1], m[0], m[1], m[2], m[3], plain[n][2], plain[n][3]);
              }
              if constexpr (bias == bias_form::plane_and_half) {
                std::uint32_t const c0 = constant[g][2 * (k % 2)], c1 = constant[g][2 * (k % 2) + 1];
                constexpr std::uint32_t half = 0x38003800u;
                multiply_add<k == 0>(zn[0], c0, c0, c1, c1, plain[n][b0], plain[n][b1]);
                multiply_add<k == 0>(zn[1], half, half, half, half, f[0], f[1]);
              }
              if constexpr (bias == bias_form::scaled_plane) {
                std::uint32_t const c0 = constant[g][2 * (k % 2)] ^ 0x80008000u,
                                    c1 = constant[g][2 * (k % 2) + 1] ^ 0x80008000u;
                multiply_add<(k < chains)>(zn[k % chains], c0, c0, c1, c1, f[0], f[1]);
              }
              if constexpr (bias == bias_form::offset) {
                constexpr std::uint32_t o = half_offset * 0x00010001u;
                multiply_add<(k < chains)>(zn[k % chains], o, o, o, o, f[0], f[1]);
              }
            }
          }
        }
      });
      unrolled<layout::row_groups>([&]<int rg>() {
        typename key::unit unit;
        unit.template load<chunk * key::chunk_steps>(base, lane, step, rg, levels);
        unrolled<layout::fields>([&]<int field>() {
          constexpr int p = rg * layout::row_fields + field % layout::row_fields;
          constexpr int cf = field / layout::row_fields, k = step * layout::column_fields + cf;
          if constexpr (k < layout::column_blocks) {
            std::uint32_t a[4];
            unit.template operands<field>(a, levels);
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              std::uint32_t const(&f)[2] = folded[cf][key::group_of(p)][n];
              multiply_add<(k == 0)>(out.s[n][p], a[0], a[1], a[2], a[3], f[0], f[1]);
            }
          }
        });
      });
    });
    tiles.template release<chunk>();
  });

  if constexpr (bias != bias_form::none) {
    KVCRUMB_UNROLL
    for (int g = 0; g < groups; ++g) {
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 2; ++i) {
          constexpr int row = bias == bias_form::plane ? 2 : 0;
          out.zero[g][n][i] = z[g][n][0][i] + z[g][n][1][row + i];
        }
      }
    }
  }
}

//! Keys per token: score = sum over groups of channels of gain[token] * (2^exponent sum q code) + bias[token]
//! * sum q. The sums of the query over a group come from q.sums.
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_tokens(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                                 query_of<Blob, ColumnTiles> const& q, Levels const& levels,
                                 float const* sums, int lane) {
  using key = typename Blob::key;
  using layout = typename key::layout;
  constexpr int rows = Blob::token_blocks, groups = key::groups;
  constexpr bias_form bias = key::codec::bias;
  // A lane's tokens 16 p + 8 r + lane / 4 of 32 neighbouring tokens are one 16-byte load, each half of a
  // pair.
  std::uint32_t const row_offset = static_cast<std::uint32_t>(16 * (lane >> 3));
  int const odd = (lane >> 2) & 1;
  float part[ColumnTiles][rows][4];
  std::uint32_t plain[ColumnTiles][4];  // of two column blocks

  unrolled<key::chunks>([&]<int chunk>() {
    std::uint32_t const base = tiles.wait();
    unrolled<key::chunk_steps>([&]<int local>() {
      constexpr int step = chunk * key::chunk_steps + local;
      unrolled<layout::column_fields>([&]<int cf>() {
        constexpr int k = step * layout::column_fields + cf;
        if constexpr (k < layout::column_blocks) {
          float(&sum)[ColumnTiles][rows][4] = groups == 1 ? out.s : part;
          if constexpr (k % 2 == 0) q.template get<k / 2>(plain);
          unrolled<layout::row_groups>([&]<int rg>() {
            typename key::unit unit;
            unit.template load<chunk * key::chunk_steps>(base, lane, step, rg, levels);
            unrolled<layout::row_fields>([&]<int pf>() {
              constexpr int p = rg * layout::row_fields + pf;
              std::uint32_t a[4];
              unit.template operands<pf + layout::row_fields * cf>(a, levels);
              KVCRUMB_UNROLL
              for (int n = 0; n < ColumnTiles; ++n) {
                multiply_add<(k % key::group_blocks == 0)>(sum[n][p], a[0], a[1], a[2], a[3],
                                                           plain[n][2 * (k % 2)], plain[n][2 * (k % 2) + 1]);
              }
            });
          });
          if constexpr (k % key::group_blocks == key::group_blocks - 1 || k == layout::column_blocks - 1) {
            constexpr int g = k / key::group_blocks;
            std::uint32_t const params = tiles.parameters() + row_offset;
            [[maybe_unused]] float query_sum[ColumnTiles][2];
            if constexpr (bias != bias_form::none) {
              KVCRUMB_UNROLL
              for (int n = 0; n < ColumnTiles; ++n) {
                KVCRUMB_UNROLL
                for (int i = 0; i < 2; ++i)
                  query_sum[n][i] = sums[g * 8 * ColumnTiles + 8 * n + 2 * (lane & 3) + i];
              }
            }
            unrolled<rows / 2>([&]<int pair>() {
              [[maybe_unused]] std::uint32_t gains[4], others[4];
              if constexpr (key::codec::has_gain) {
                ptx::load_shared_128(gains, params + key::vector_offset(0, g, pair));
              }
              if constexpr (key::spec.planes == 2) {
                ptx::load_shared_128(others, params + key::vector_offset(1, g, pair));
              }
              unrolled<4>([&]<int j>() {  // row block 2 pair + j / 2, row half j % 2
                constexpr int p = 2 * pair + j / 2, r = j % 2;
                float const gain = key::codec::has_gain ? half_of(gains[j], odd) : 1.0f;
                [[maybe_unused]] float constant = 0.0f;
                if constexpr (bias == bias_form::plane) constant = half_of(others[j], odd);
                if constexpr (bias == bias_form::plane_and_half) {
                  constant = half_of(others[j], odd) + 0.5f * gain;
                }
                if constexpr (bias == bias_form::scaled_plane) constant = -gain * half_of(others[j], odd);
                if constexpr (bias == bias_form::offset) constant = -key::codec::offset * gain;
                float const factor = power_of_two(key::unit::exponent(p, r)) * gain;
                KVCRUMB_UNROLL
                for (int n = 0; n < ColumnTiles; ++n) {
                  KVCRUMB_UNROLL
                  for (int i = 0; i < 2; ++i) {
                    float x = sum[n][p][2 * r + i] * factor;
                    if constexpr (bias != bias_form::none) x += constant * query_sum[n][i];
                    float& total = out.s[n][p][2 * r + i];
                    total = g == 0 ? x : total + x;
                  }
                }
              });
            });
          }
        }
      });
    });
    tiles.template release<chunk>();
  });
}

}  // namespace detail

//! Scores of the next tile of the ring, before masks and caps. Called by a warp; consumes the key chunks.
//! `sums` are the sums of the query over the channels of each group, [group][column] in shared memory (keys
//! per token only).
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_tile(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                               query_of<Blob, ColumnTiles> const& q, Levels const& levels, float const* sums,
                               int lane) {
  if constexpr (score_form<typename Blob::key>::folded) {
    detail::score_channels(out, tiles, q, levels, lane);
  } else {
    detail::score_tokens(out, tiles, q, levels, sums, lane);
  }
}

//! Brings the constants of the scores to units of log2, log2(e) * softmax_scale * <q, k>: `scale` are the
//! factors of this lane's columns, `shift` is what the transform adds to their scores.
template <class Blob, int ColumnTiles>
KVCRUMB_DEVICE void apply_columns(tile_scores<Blob, ColumnTiles>& out, float const (&scale)[ColumnTiles][2],
                                  float const (&shift)[ColumnTiles][2]) {
  using key = typename Blob::key;
  using form = score_form<key>;
  constexpr bool summed = form::folded && key::codec::bias != bias_form::none;
  constexpr bool shifted = transform_traits<typename key::scheme_type::transform_type>::has_offset;
  if constexpr (summed || shifted) {
    KVCRUMB_UNROLL
    for (int g = 0; g < form::groups; ++g) {
      KVCRUMB_UNROLL
      for (int n = 0; n < ColumnTiles; ++n) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 2; ++i) {
          if constexpr (!summed) {
            out.zero[g][n][i] = shift[n][i];
          } else {
            out.zero[g][n][i] = out.zero[g][n][i] * scale[n][i] + (shifted ? shift[n][i] : 0.0f);
          }
        }
      }
    }
  }
}

}  // namespace kvcrumb::inline v0::warp
