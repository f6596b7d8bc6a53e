// SPDX-License-Identifier: Apache-2.0
//! @file The end of the softmax of one query column, by one warp: merging, leaving the values' basis,
//! storing.
#pragma once

#include "kvcrumb/block/decode_arguments.cuh"
#include "kvcrumb/warp/softmax.cuh"

namespace kvcrumb::inline v0::block {

//! An un-normalized output row spread over a warp (lane l holds channels l, l + 32, ...), its maximum in log2
//! units and the sum of its weights, both the same in all lanes. Starts empty. Maxima ignore NaN: scores that
//! are all NaN leave the maximum at -inf, but not an empty row, because their sum is NaN.
template <int HeadDim>
struct column_result {
  float o[HeadDim / 32] = {};
  float max = negative_infinity;
  float sum = 0.0f;

  KVCRUMB_DEVICE static bool empty(float max, float sum) { return max == negative_infinity && sum == sum; }
  KVCRUMB_DEVICE bool empty() const { return empty(max, sum); }

  //! Adds a row whose element i is get(i) with i = 32 e + lane.
  template <class Get>
  KVCRUMB_DEVICE void add(float other_max, float other_sum, int lane, Get get) {
    if (empty(other_max, other_sum)) return;
    float const top = fmaxf(max, other_max);
    float const mine = max == negative_infinity ? 0.0f : ptx::exp2_approximate(max - top);
    float const theirs = ptx::exp2_approximate(other_max - top);
    max = top;
    sum = sum * mine + other_sum * theirs;
    KVCRUMB_UNROLL
    for (int e = 0; e < HeadDim / 32; ++e)
      o[e] = o[e] * mine + get(32 * e + lane) * theirs;
  }
};

//! Writes slot `slot` of partial results.
template <int HeadDim>
KVCRUMB_DEVICE void store_partial(float* partials, std::int64_t slot, int columns, int column,
                                  column_result<HeadDim> const& r, int lane) {
  float* at = partials + slot * partial_results::slot_floats(columns, HeadDim);
  KVCRUMB_UNROLL
  for (int e = 0; e < HeadDim / 32; ++e)
    at[column * HeadDim + 32 * e + lane] = r.o[e];
  if (lane == 0) {
    at[columns * HeadDim + column] = r.max;
    at[columns * (HeadDim + 1) + column] = r.sum;
  }
}

//! Adds slot `slot` of partial results.
template <int HeadDim>
KVCRUMB_DEVICE void add_partial(column_result<HeadDim>& r, float const* partials, std::int64_t slot,
                                int columns, int column, int lane) {
  float const* at = partials + slot * partial_results::slot_floats(columns, HeadDim);
  r.add(at[columns * HeadDim + column], at[columns * (HeadDim + 1) + column], lane,
        [&](int i) { return at[column * HeadDim + i]; });
}

//! Adds `count` slots of partial results, slot_of(0), slot_of(1), ... Their loads do not wait for each other:
//! first the maxima and sums, one slot for each lane, then the outputs, eight slots at a time. Called by one
//! warp.
template <int HeadDim, class SlotOf>
KVCRUMB_DEVICE void add_partials(column_result<HeadDim>& r, float const* partials, int count, int columns,
                                 int column, int lane, SlotOf slot_of) {
  constexpr int registers = HeadDim / 32, together = 8;
  for (int first = 0; first < count; first += 32) {
    bool const mine = first + lane < count;
    std::int64_t const offset =
        mine ? slot_of(first + lane) * partial_results::slot_floats(columns, HeadDim) : 0;
    float const max = mine ? partials[offset + columns * HeadDim + column] : negative_infinity;
    float const sum = mine ? partials[offset + columns * (HeadDim + 1) + column] : 0.0f;
    bool const present = !column_result<HeadDim>::empty(max, sum);
    unsigned const all = __ballot_sync(~0u, present);
    if (all == 0) continue;
    float const top = fmaxf(r.max, warp::warp_max(max));
    float const kept = r.max == negative_infinity ? 0.0f : ptx::exp2_approximate(r.max - top);
    float const weight = present ? ptx::exp2_approximate(max - top) : 0.0f;
    r.max = top;
    r.sum = r.sum * kept + warp::warp_sum(present ? sum * weight : 0.0f);
    KVCRUMB_UNROLL
    for (int e = 0; e < registers; ++e)
      r.o[e] *= kept;
    int const here = count - first < 32 ? count - first : 32;
    for (int j = 0; j < here; j += together) {
      float o[together][registers] = {};
      KVCRUMB_UNROLL
      for (int i = 0; i < together; ++i) {
        std::int64_t const from = __shfl_sync(~0u, offset, j + i) + column * HeadDim + lane;
        if (((all >> (j + i)) & 1u) == 0) continue;
        KVCRUMB_UNROLL
        for (int e = 0; e < registers; ++e)
          o[i][e] = partials[from + 32 * e];
      }
      KVCRUMB_UNROLL
      for (int i = 0; i < together; ++i) {
        float const w = __shfl_sync(~0u, weight, j + i);
        KVCRUMB_UNROLL
        for (int e = 0; e < registers; ++e)
          r.o[e] += o[i][e] * w;
      }
    }
  }
}

//! Output, log-sum-exp and state of query row `row` (query head of the group and query token) of kv head
//! `head`. `tiles` is in the basis of the values' scheme, `exact` in the original one; either may be empty.
//! Nothing seen: output 0, log-sum-exp -inf. Called by one warp.
template <class Config, class Arguments>
KVCRUMB_DEVICE void finish_column(Arguments const& a, typename Config::scheme_type const& scheme,
                                  int sequence, int head, int row, column_result<Config::head_dim>& tiles,
                                  column_result<Config::head_dim> const& exact, int lane) {
  using output = typename Config::output_type;
  constexpr int registers = Config::head_dim / 32;
  int const query_head = head * a.ratio() + row / a.queries, token = row % a.queries;
  if (tiles.max != negative_infinity) {
    warp::invert_output<Config::head_dim>(scheme.value.transform, head, tiles.o, tiles.sum, lane);
  }
  tiles.add(exact.max, exact.sum, lane, [&](int i) { return exact.o[i / 32]; });
  if (a.sink_logits != nullptr) {
    float const sink = a.sink_logits[query_head] * warp::log2_e;
    tiles.add(sink, 1.0f, lane, [](int) { return 0.0f; });
  }
  bool const empty = tiles.empty();
  std::int64_t const index =
      (static_cast<std::int64_t>(sequence) * a.query_heads + query_head) * a.queries + token;
  constexpr float ln_2 = 0.69314718055994531f;
  float const inverse = empty ? 0.0f : a.states != nullptr ? 1.0f : 1.0f / tiles.sum;
  output* to = a.o.row(sequence, query_head, token);
  KVCRUMB_UNROLL
  for (int e = 0; e < registers; ++e)
    to[32 * e + lane] = from_float<output>(tiles.o[e] * inverse);
  if (lane == 0) {
    if (a.lse != nullptr) a.lse[index] = empty ? negative_infinity : tiles.max * ln_2 + ::logf(tiles.sum);
    if (a.states != nullptr) {
      a.states[2 * index] = empty ? negative_infinity : tiles.max * ln_2;
      a.states[2 * index + 1] = empty ? 0.0f : tiles.sum;
    }
  }
}

}  // namespace kvcrumb::inline v0::block
