// SPDX-License-Identifier: Apache-2.0
//! @file The query columns of one segment, brought into the form that the warps want.
#pragma once

#include "kvcrumb/block/decode_arguments.cuh"
#include "kvcrumb/warp/exact_rows.cuh"
#include "kvcrumb/warp/score.cuh"

namespace kvcrumb::inline v0::block {

//! Shared memory of the columns. The rows are kept as fp16 after a factor, a power of two for each row, that
//! brings the largest magnitude into [1/2, 1); so bf16 queries lose nothing, and products with gains stay
//! finite.
template <class Config>
struct query_storage {
  static constexpr int operand_bytes =
      warp::query_of<typename Config::blob, Config::column_tiles>::shared_bytes;
  static constexpr int row_bytes = Config::columns * warp::exact_query_stride<Config::head_dim> * 2;
  static constexpr int groups = Config::blob::key::groups;

  alignas(16) std::byte fp16[operand_bytes > row_bytes ? operand_bytes : row_bytes];
  float scale[Config::columns];  //!< of the scores, log2 units
  float shift[Config::columns];  //!< added to the scores, log2 units
  float sums[groups][Config::columns];
  int newest[Config::columns];  //!< position of the query token
};

enum class query_form : std::uint8_t { operand, rows };

//! A warp's query rows on their way from global memory: every fourth column of a segment.
template <class Config>
struct query_rows {
  static constexpr int columns = Config::columns / Config::warps, registers = Config::head_dim / 32;
  typename Config::query_type x[columns][registers] = {};

  //! Asks for them: query rows [column_block * columns, ...) of kv head `head`, zero beyond the last. What
  //! comes after this in the memory's queue (the first tiles) does not delay them.
  template <class Arguments>
  KVCRUMB_DEVICE void fetch(Arguments const& a, int sequence, int head, int column_block) {
    int const lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
    KVCRUMB_UNROLL
    for (int i = 0; i < columns; ++i) {
      int const row = column_block * Config::columns + warp + i * Config::warps;
      if (row >= a.rows()) continue;
      auto const* const from = a.q.row(sequence, head * a.ratio() + row / a.queries, row % a.queries);
      KVCRUMB_UNROLL
      for (int e = 0; e < registers; ++e)
        x[i][e] = from[32 * e + lane];
    }
  }
  //! The next column takes the place of the first.
  KVCRUMB_DEVICE void next() {
    KVCRUMB_UNROLL
    for (int i = 0; i + 1 < columns; ++i) {
      KVCRUMB_UNROLL
      for (int e = 0; e < registers; ++e)
        x[i][e] = x[i + 1][e];
    }
  }
};

//! Fills `storage` with the columns that all warps have fetched. Form operand: transformed for the packed
//! keys; rows: as they are, for exact keys. Called by the whole block; the caller synchronizes before and
//! after.
template <query_form Form, class Config, class Arguments>
KVCRUMB_DEVICE void store_query_columns(query_storage<Config>& storage, query_rows<Config>& rows,
                                        Arguments const& a, typename Config::scheme_type const& scheme,
                                        int head, int column_block, int length) {
  constexpr int head_dim = Config::head_dim, registers = head_dim / 32;
  using key = typename Config::blob::key;
  int const lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  std::uint32_t const to = ptx::shared_address(storage.fp16);
  KVCRUMB_KEEP_ROLLED
  for (int column = warp; column < Config::columns; column += Config::warps) {
    int const row = column_block * Config::columns + column;
    float x[registers];
    KVCRUMB_UNROLL
    for (int e = 0; e < registers; ++e)
      x[e] = to_float(rows.x[0][e]);
    rows.next();

    float offset = 0.0f;
    if constexpr (Form == query_form::operand) {
      offset = warp::transform_query<head_dim>(scheme.key.transform, head, x, lane);
    }
    float largest = 0.0f;
    KVCRUMB_UNROLL
    for (int e = 0; e < registers; ++e)
      largest = fmaxf(largest, absolute(x[e]));
    largest = warp::warp_max(largest);
    // 2^(126 - exponent), for normal magnitudes; zero, subnormal and non-finite rows stay as they are.
    std::uint32_t const exponent = float_bits(largest) >> 23;
    bool const scaled = exponent > 0 && exponent < 253;
    float const factor = scaled ? float_from_bits((253u - exponent) << 23) : 1.0f;
    float const inverse = scaled ? float_from_bits((exponent + 1u) << 23) : 1.0f;

    KVCRUMB_UNROLL
    for (int e = 0; e < registers; ++e) {
      std::uint32_t const half = ptx::pack_half2(x[e] * factor, 0.0f) & 0xFFFFu;
      int const d = 32 * e + lane;
      int const at = Form == query_form::operand
                         ? warp::query_of<typename Config::blob, Config::column_tiles>::offset(column, d)
                         : 2 * (column * warp::exact_query_stride<head_dim> + d);
      ptx::store_shared_16(to + static_cast<std::uint32_t>(at), static_cast<std::uint16_t>(half));
      x[e] = ptx::low_half(half);
    }
    if constexpr (Form == query_form::operand && !key::per_channel && key::spec.planes > 0) {
      // Sums over the channels of each group, from the rounded values: half a warp holds one block of 16.
      float total[query_storage<Config>::groups] = {};
      KVCRUMB_UNROLL
      for (int e = 0; e < registers; ++e) {
        float sum = x[e];
        KVCRUMB_UNROLL
        for (int i = 1; i < 16; i *= 2)
          sum += __shfl_xor_sync(~0u, sum, i);
        float const other = __shfl_xor_sync(~0u, sum, 16);
        total[key::group_of(2 * e)] += lane < 16 ? sum : other;
        total[key::group_of(2 * e + 1)] += lane < 16 ? other : sum;
      }
      if (lane == 0) {
        KVCRUMB_UNROLL
        for (int g = 0; g < query_storage<Config>::groups; ++g)
          storage.sums[g][column] = total[g];
      }
    }
    if (lane == 0) {
      storage.scale[column] = a.scale * inverse;
      storage.shift[column] = a.scale * offset;
      storage.newest[column] = length - a.queries + row % a.queries;
    }
  }
}

}  // namespace kvcrumb::inline v0::block
