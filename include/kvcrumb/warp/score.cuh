// SPDX-License-Identifier: Apache-2.0
//! @file Scores of all tokens of a tile: code operands times the query, parameters folded into the query.
#pragma once

#include "kvcrumb/warp/query.cuh"
#include "kvcrumb/warp/ring.cuh"

namespace kvcrumb::inline v0::warp {

//! One accumulator for each (column tile, row block): s[n][p][i] is token 16 p + lane / 4 + 8 (i / 2), query
//! column 8 n + 2 (lane % 4) + i % 2.
template <class Blob, int ColumnTiles>
struct tile_scores {
  float s[ColumnTiles][Blob::token_blocks][4];
};

namespace detail {

//! Keys per channel (KIVI): q' = q * gain once per group, and one constant per (group, column) from q * bias.
//! score = 2^exponent * sum q' code + z.
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_channels(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                                   query<Blob::head_dim, ColumnTiles> const& q, Levels const& levels,
                                   float const (&scale)[ColumnTiles][2], int lane) {
  using key = typename Blob::key;
  using layout = typename key::layout;
  constexpr int groups = key::groups, t_stride = 16;
  constexpr bias_form bias = key::codec::bias;
  constexpr int chains = groups == 1 ? 2 : 1;  // two chains hide the latency of a lonely one
  constexpr std::uint32_t half_offset = from_float<float16>(-key::codec::offset).bits;
  std::uint32_t const lane_offset = static_cast<std::uint32_t>(t_stride * (lane & 3));
  float z[groups][ColumnTiles][chains][4] = {};
  std::uint32_t gain[groups][4], constant[groups][4];

  unrolled<key::chunks>([&]<int chunk>() {
    std::uint32_t const base = tiles.wait();
    std::uint32_t const params = tiles.parameters() + lane_offset;
    unrolled<key::chunk_steps>([&]<int local>() {
      constexpr int step = chunk * key::chunk_steps + local;
      std::uint32_t folded[layout::column_fields][groups][ColumnTiles][2];
      unrolled<layout::column_fields>([&]<int cf>() {
        constexpr int k = step * layout::column_fields + cf;
        if constexpr (k < layout::column_blocks) {
          std::uint32_t plain[ColumnTiles][2];
          q.template get<k>(plain);
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
              KVCRUMB_UNROLL
              for (int c = 0; c < 2; ++c) {
                folded[cf][g][n][c] = key::codec::has_gain
                                          ? ptx::multiply_half2(plain[n][c], gain[g][2 * (k % 2) + c])
                                          : plain[n][c];
              }
              float(&zn)[4] = z[g][n][k % chains];
              std::uint32_t const c0 = constant[g][2 * (k % 2)], c1 = constant[g][2 * (k % 2) + 1];
              [[maybe_unused]] std::uint32_t const(&f)[2] = folded[cf][g][n];
              if constexpr (bias == bias_form::plane || bias == bias_form::plane_and_half) {
                ptx::mma(zn, c0, c0, c1, c1, plain[n][0], plain[n][1]);
              }
              if constexpr (bias == bias_form::plane_and_half) {
                ptx::mma(zn, 0x38003800u, 0x38003800u, 0x38003800u, 0x38003800u, f[0], f[1]);
              }
              if constexpr (bias == bias_form::scaled_plane) {
                std::uint32_t const n0 = c0 ^ 0x80008000u, n1 = c1 ^ 0x80008000u;
                ptx::mma(zn, n0, n0, n1, n1, f[0], f[1]);
              }
              if constexpr (bias == bias_form::offset) {
                constexpr std::uint32_t o = half_offset * 0x00010001u;
                ptx::mma(zn, o, o, o, o, f[0], f[1]);
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
          constexpr int cf = field / layout::row_fields;
          if constexpr (step * layout::column_fields + cf < layout::column_blocks) {
            std::uint32_t a[4];
            unit.template operands<field>(a, levels);
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              std::uint32_t const(&f)[2] = folded[cf][key::group_of(p)][n];
              ptx::mma(out.s[n][p], a[0], a[1], a[2], a[3], f[0], f[1]);
            }
          }
        });
      });
    });
    tiles.template release<chunk>();
  });

  unrolled<Blob::token_blocks>([&]<int p>() {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i) {
        constexpr int g = key::group_of(p);
        float zero = z[g][n][0][i & 1];  // all rows of z are equal
        if constexpr (chains == 2) zero += z[g][n][1][i & 1];
        float const factor = power_of_two(key::unit::exponent(p, i / 2)) * scale[n][i & 1];
        out.s[n][p][i] = bias == bias_form::none ? out.s[n][p][i] * factor
                                                 : out.s[n][p][i] * factor + zero * scale[n][i & 1];
      }
    }
  });
}

//! Keys per token: score = sum over groups of channels of gain[token] * (2^exponent sum q code) + bias[token]
//! * sum q. The sums of the query over a group come from q.sums.
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_tokens(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                                 query<Blob::head_dim, ColumnTiles> const& q, Levels const& levels,
                                 float const (&scale)[ColumnTiles][2], float const* sums, int lane) {
  using key = typename Blob::key;
  using layout = typename key::layout;
  constexpr int rows = Blob::token_blocks, groups = key::groups;
  constexpr bias_form bias = key::codec::bias;
  // A lane's tokens 16 p + 8 r + lane / 4 of 32 neighbouring tokens are one 16-byte load, each half of a
  // pair.
  std::uint32_t const row_offset = static_cast<std::uint32_t>(16 * (lane >> 3));
  int const odd = (lane >> 2) & 1;
  float part[ColumnTiles][rows][4];

  unrolled<key::chunks>([&]<int chunk>() {
    std::uint32_t const base = tiles.wait();
    unrolled<key::chunk_steps>([&]<int local>() {
      constexpr int step = chunk * key::chunk_steps + local;
      unrolled<layout::column_fields>([&]<int cf>() {
        constexpr int k = step * layout::column_fields + cf;
        if constexpr (k < layout::column_blocks) {
          float(&sum)[ColumnTiles][rows][4] = groups == 1 ? out.s : part;
          if constexpr (k % key::group_blocks == 0) {
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              KVCRUMB_UNROLL
              for (int p = 0; p < rows; ++p)
                sum[n][p][0] = sum[n][p][1] = sum[n][p][2] = sum[n][p][3] = 0.0f;
            }
          }
          std::uint32_t plain[ColumnTiles][2];
          q.template get<k>(plain);
          unrolled<layout::row_groups>([&]<int rg>() {
            typename key::unit unit;
            unit.template load<chunk * key::chunk_steps>(base, lane, step, rg, levels);
            unrolled<layout::row_fields>([&]<int pf>() {
              constexpr int p = rg * layout::row_fields + pf;
              std::uint32_t a[4];
              unit.template operands<pf + layout::row_fields * cf>(a, levels);
              KVCRUMB_UNROLL
              for (int n = 0; n < ColumnTiles; ++n)
                ptx::mma(sum[n][p], a[0], a[1], a[2], a[3], plain[n][0], plain[n][1]);
            });
          });
          if constexpr (k % key::group_blocks == key::group_blocks - 1 || k == layout::column_blocks - 1) {
            constexpr int g = k / key::group_blocks;
            std::uint32_t const params = tiles.parameters() + row_offset;
            float query_sum[ColumnTiles][2];
            if constexpr (bias != bias_form::none) {
              KVCRUMB_UNROLL
              for (int n = 0; n < ColumnTiles; ++n) {
                KVCRUMB_UNROLL
                for (int i = 0; i < 2; ++i)
                  query_sum[n][i] = sums[g * 8 * ColumnTiles + 8 * n + 2 * (lane & 3) + i];
              }
            }
            unrolled<rows / 2>([&]<int pair>() {
              std::uint32_t gains[4], others[4];
              if constexpr (key::codec::has_gain) {
                ptx::load_shared_128(gains, params + key::vector_offset(0, g, pair));
              }
              if constexpr (key::spec.planes == 2) {
                ptx::load_shared_128(others, params + key::vector_offset(1, g, pair));
              }
              unrolled<4>([&]<int j>() {  // row block 2 pair + j / 2, row half j % 2
                constexpr int p = 2 * pair + j / 2, r = j % 2;
                float const gain = key::codec::has_gain ? half_of(gains[j], odd) : 1.0f;
                float constant = 0.0f;
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

  KVCRUMB_UNROLL
  for (int n = 0; n < ColumnTiles; ++n) {
    KVCRUMB_UNROLL
    for (int p = 0; p < rows; ++p) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        out.s[n][p][i] *= scale[n][i & 1];
    }
  }
}

}  // namespace detail

//! Scores of the next tile of the ring in units of log2: log2(e) * softmax_scale * <q, k>, before masks and
//! caps. Called by a warp; consumes the key chunks. `scale` are the factors of this lane's columns, `sums`
//! the sums of the query over the channels of each group, [group][column] in shared memory (keys per token
//! only).
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void score_tile(tile_scores<Blob, ColumnTiles>& out, ring<Blob>& tiles,
                               query<Blob::head_dim, ColumnTiles> const& q, Levels const& levels,
                               float const (&scale)[ColumnTiles][2], float const* sums, int lane) {
  if constexpr (Blob::key::per_channel || Blob::key::spec.planes == 0) {
    KVCRUMB_UNROLL
    for (int n = 0; n < ColumnTiles; ++n) {
      KVCRUMB_UNROLL
      for (int p = 0; p < Blob::token_blocks; ++p)
        out.s[n][p][0] = out.s[n][p][1] = out.s[n][p][2] = out.s[n][p][3] = 0.0f;
    }
    detail::score_channels(out, tiles, q, levels, scale, lane);
  } else {
    detail::score_tokens(out, tiles, q, levels, scale, sums, lane);
  }
}

}  // namespace kvcrumb::inline v0::warp
