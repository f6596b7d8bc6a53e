// SPDX-License-Identifier: Apache-2.0
//! @file Weighted sums of the values of a tile: code operands times the weights, parameters folded into them.
#pragma once

#include "kvcrumb/warp/softmax.cuh"

namespace kvcrumb::inline v0::warp {

//! What column_state::bias must be multiplied with to be the sum of the biases.
template <class Value>
inline constexpr float bias_factor = Value::codec::bias == bias_form::offset         ? -Value::codec::offset
                                     : Value::codec::bias == bias_form::scaled_plane ? -1.0f
                                                                                     : 1.0f;

//! Zeroes the parameters of the slots that hold no token here, so that what lies there (NaN in a page that
//! was never written) cannot reach a sum through 0 * NaN. All lanes together; rarely called.
template <class Blob>
KVCRUMB_DEVICE void hide_value_parameters(std::uint32_t params, std::uint32_t const (&valid)[4], int lane) {
  using value = typename Blob::value;
  if constexpr (value::spec.planes > 0) {
    KVCRUMB_UNROLL
    for (int i = 0; i < Blob::tile_tokens / 32; ++i) {
      if (((valid[i] >> lane) & 1u) != 0) continue;
      std::uint32_t const at = params + Blob::value_param_offset +
                               static_cast<std::uint32_t>(2 * fragment::param_index(32 * i + lane));
      for (int v = 0; v < value::spec.planes * value::groups; ++v)
        ptx::store_shared_16(at + static_cast<std::uint32_t>(v * value::vector_bytes), 0);
    }
    ptx::async_proxy_fence();
    __syncwarp();
  }
}

//! Adds the values of the tile in use to `state`, with the weights of weigh(). Called by a warp; consumes the
//! value chunks of the ring.
template <class Blob, int ColumnTiles, class Levels>
KVCRUMB_DEVICE void accumulate_tile(column_state<Blob::dim_blocks, ColumnTiles>& state, ring<Blob>& tiles,
                                    std::uint32_t const (&w)[ColumnTiles][Blob::token_blocks][2],
                                    Levels const& levels, std::uint32_t const (&valid)[4], int lane) {
  using value = typename Blob::value;
  using layout = typename value::layout;
  constexpr int groups = value::groups, key_chunks = Blob::key::chunks;
  constexpr bias_form bias = value::codec::bias;
  constexpr bool has_bias = bias != bias_form::none;
  std::uint32_t const t_offset = static_cast<std::uint32_t>(16 * (lane & 3));
  // Lane (g, t) holds row g of the extra A operand: the bias vector of group g (or of group 0, ignored).
  std::uint32_t const row_group = static_cast<std::uint32_t>((lane >> 2) < groups ? lane >> 2 : 0);
  std::uint32_t gain[groups][4], row[4], other[4];

  unrolled<value::chunks>([&]<int chunk>() {
    std::uint32_t const base = tiles.wait();
    std::uint32_t const params = tiles.parameters() + Blob::value_param_offset + t_offset;
    std::uint32_t const row_params = params + row_group * static_cast<std::uint32_t>(value::vector_bytes);
    unrolled<value::chunk_steps>([&]<int local>() {
      constexpr int step = chunk * value::chunk_steps + local;
      std::uint32_t folded[layout::column_fields][groups][ColumnTiles][2];
      unrolled<layout::column_fields>([&]<int cf>() {
        constexpr int k = step * layout::column_fields + cf;
        if constexpr (k < layout::column_blocks) {
          if constexpr (has_bias && k % 2 == 0) {
            if constexpr (bias != bias_form::offset) {
              ptx::load_shared_128(row, row_params + value::vector_offset(1, 0, k / 2));
            }
            if constexpr (bias != bias_form::plane) {
              ptx::load_shared_128(other, row_params + value::vector_offset(0, 0, k / 2));
              KVCRUMB_UNROLL
              for (int i = 0; i < 4; ++i)
                row[i] = bias == bias_form::offset ? other[i] : ptx::multiply_half2(row[i], other[i]);
            }
          }
          if constexpr (k % 2 == 0) {
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              constexpr std::uint32_t one = ptx::half2_one;
              std::uint32_t const(&first)[2] = w[n][k], (&second)[2] = w[n][k + 1];
              ptx::mma(state.sums[n], one, one, one, one, first[0], second[0]);
              ptx::mma(state.sums[n], one, one, one, one, first[1], second[1]);
              if constexpr (has_bias) {  // as in score_channels: upper rows of one product, lower rows of the
                                         // other
                ptx::mma(state.bias[n][0], row[0], row[1], row[2], row[3], first[0], second[0]);
                ptx::mma(state.bias[n][1], row[0], row[1], row[2], row[3], first[1], second[1]);
              }
            }
          }
          KVCRUMB_UNROLL
          for (int g = 0; g < groups; ++g) {
            if constexpr (value::codec::has_gain && k % 2 == 0) {
              ptx::load_shared_128(gain[g], params + value::vector_offset(0, g, k / 2));
            }
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              KVCRUMB_UNROLL
              for (int c = 0; c < 2; ++c) {
                folded[cf][g][n][c] = value::codec::has_gain
                                          ? ptx::multiply_half2(w[n][k][c], gain[g][2 * (k % 2) + c])
                                          : w[n][k][c];
              }
            }
          }
        }
      });
      unrolled<layout::row_groups>([&]<int rg>() {
        typename value::unit unit;
        unit.template load<chunk * value::chunk_steps>(base, lane, step, rg, levels);
        unrolled<layout::fields>([&]<int field>() {
          constexpr int p = rg * layout::row_fields + field % layout::row_fields;
          constexpr int cf = field / layout::row_fields;
          constexpr int k = step * layout::column_fields + cf;
          if constexpr (k < layout::column_blocks) {
            std::uint32_t a[4];
            unit.template operands<field>(a, levels);
            if constexpr (value::unit::kind ==
                          operand_kind::floats) {  // a slot without a token may hold a NaN
              std::uint32_t const bits = valid[k / 2] >> (16 * (k % 2) + 2 * (lane & 3));
              std::uint32_t const low = (bits & 1u) * 0xFFFFu | ((bits >> 1) & 1u) * 0xFFFF0000u;
              std::uint32_t const high = ((bits >> 8) & 1u) * 0xFFFFu | ((bits >> 9) & 1u) * 0xFFFF0000u;
              a[0] &= low, a[1] &= low, a[2] &= high, a[3] &= high;
            }
            KVCRUMB_UNROLL
            for (int n = 0; n < ColumnTiles; ++n) {
              std::uint32_t const(&f)[2] = folded[cf][value::group_of(p)][n];
              ptx::mma(state.o[n][p], a[0], a[1], a[2], a[3], f[0], f[1]);
            }
          }
        });
      });
    });
    tiles.template release<key_chunks + chunk>();
  });
}

//! Gives every output of `state` to put(column, channel, value), in units of the values; lanes share the
//! work. All lanes together.
template <class Blob, int ColumnTiles, class Put>
KVCRUMB_DEVICE void unpack_output(column_state<Blob::dim_blocks, ColumnTiles> const& state, int lane,
                                  Put put) {
  using value = typename Blob::value;
  unrolled<ColumnTiles>([&]<int n>() {
    unrolled<Blob::dim_blocks>([&]<int p>() {
      float zero[2] = {0.0f, 0.0f};
      if constexpr (value::codec::bias != bias_form::none) {
        KVCRUMB_UNROLL
        for (int i = 0; i < 2; ++i) {
          float const mine = state.bias[n][0][i] + state.bias[n][1][2 + i];
          float const sum =
              value::groups == 1 ? mine : __shfl_sync(~0u, mine, 4 * value::group_of(p) + (lane & 3));
          zero[i] = sum * bias_factor<value>;
        }
      }
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i) {
        float const x = state.o[n][p][i] * power_of_two(value::unit::exponent(p, i / 2)) + zero[i & 1];
        put(8 * n + 2 * (lane & 3) + (i & 1), 16 * p + 8 * (i / 2) + (lane >> 2), x);
      }
    });
  });
}

}  // namespace kvcrumb::inline v0::warp
