// SPDX-License-Identifier: Apache-2.0
//! @file Statistics of groups and scores of tokens by a warp, in the tree order of the host.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/outlier/scores.hpp"
#include "kvcrumb/warp/row.cuh"

namespace kvcrumb::inline v0::warp {

// ---- what kernels need to know of a codec

//! Whether the order of merging cannot be seen in the parameters.
template <class Codec>
inline constexpr bool order_free = requires {
  Codec::associative;
};
template <class Table, class Param>
inline constexpr bool order_free<codebook<Table, Param, codebook_scale::absmax>> = true;
template <class Value>
inline constexpr bool order_free<raw<Value>> = true;

//! Whether `encode` reads group_params::work.
template <class Codec>
inline constexpr bool reads_work = true;
template <int Bits, class Param, affine_options Options>
inline constexpr bool reads_work<affine<Bits, Param, Options>> = Options.division == quotient::range_first;
template <int Bits, class Param, symmetric_rule Rule>
inline constexpr bool reads_work<symmetric<Bits, Param, Rule>> = Rule != symmetric_rule::absmax;
template <class Table, class Param, codebook_scale Scale>
inline constexpr bool reads_work<codebook<Table, Param, Scale>> = false;
template <class Value>
inline constexpr bool reads_work<raw<Value>> = false;

//! Whether the sign of a NaN shows in the bytes: where it does not poison the parameters of its group.
template <class Codec>
inline constexpr bool keeps_nan = !requires(typename Codec::statistics s) {
  s.finite;
};

template <class S>
concept ranged = requires(S s) {
  s.low;
  s.high;
  s.finite;
};
template <class S>
concept extremal = requires(S s) {
  s.extreme;
  s.finite;
};
template <class S>
concept valued = requires(S s) {
  s.value;
  s.finite;
};
//! Statistics that can be handed from lane to lane.
template <class S>
inline constexpr bool can_exchange = std::is_empty_v<S> || ranged<S> || extremal<S> || valued<S>;

//! The statistics of lane ^ n.
template <class S>
KVCRUMB_DEVICE S exchanged(S s, int n) {
  S r{};
  if constexpr (ranged<S>) {
    r.low = __shfl_xor_sync(~0u, s.low, n);
    r.high = __shfl_xor_sync(~0u, s.high, n);
  } else if constexpr (extremal<S>) {
    r.extreme = __shfl_xor_sync(~0u, s.extreme, n);
  } else if constexpr (valued<S>) {
    r.value = __shfl_xor_sync(~0u, s.value, n);
  }
  if constexpr (!std::is_empty_v<S>) r.finite = __shfl_xor_sync(~0u, s.finite ? 1 : 0, n) != 0;
  return r;
}

// ---- groups of channels of one row

//! How groups of `Group` channels lie in the lanes; Group is a power of two or the whole row.
template <int HeadDim, int Group>
struct row_groups {
  using lanes = row_lanes<HeadDim>;
  static constexpr bool whole = Group >= HeadDim;
  static constexpr int within = !whole && Group < lanes::per_lane ? Group : lanes::per_lane;
  static constexpr int per_lane = lanes::per_lane / within;  //!< groups that a lane holds (parts of)
  static constexpr int span = whole ? 32 : Group / within;   //!< lanes of a group
  static constexpr bool supported = whole || (Group & (Group - 1)) == 0;

  //! Group of part `part` of a lane, and its number of channels.
  KVCRUMB_DEVICE static constexpr int group(int lane, int part) {
    return whole ? 0 : (lane * lanes::per_lane + part * within) / Group;
  }
  KVCRUMB_DEVICE static constexpr int length(int group) {
    if (HeadDim % Group == 0 || whole) return whole ? HeadDim : Group;
    return HeadDim - group * Group < Group ? HeadDim - group * Group : Group;
  }
};

//! Statistics of the groups of a row. All lanes of a group get the same.
template <int HeadDim, int Group, class Codec, class Statistics>
KVCRUMB_DEVICE void group_statistics(Codec const& codec, float const (&x)[row_lanes<HeadDim>::per_lane],
                                     int lane, Statistics (&out)[row_groups<HeadDim, Group>::per_lane]) {
  using groups = row_groups<HeadDim, Group>;
  constexpr int per_lane = row_lanes<HeadDim>::per_lane;
  auto const merge = [](Statistics a, Statistics b) { return Codec::merge(a, b); };
  Statistics node[per_lane];
  KVCRUMB_UNROLL
  for (int i = 0; i < per_lane; ++i)
    node[i] = codec.lift(x[i]);
  fold_within<groups::within>(node, merge);
  KVCRUMB_UNROLL
  for (int part = 0; part < groups::per_lane; ++part) {
    out[part] = fold_lanes<HeadDim, groups::span>(node[part * groups::within], lane, merge,
                                                  [](Statistics s, int n) { return exchanged(s, n); });
  }
}

// ---- scores of tokens

//! Scores that kernels know.
template <class Score>
inline constexpr bool can_score = false;
template <>
inline constexpr bool can_score<l1_score> = true;
template <>
inline constexpr bool can_score<l2_score> = true;
template <>
inline constexpr bool can_score<absmax_score> = true;
template <class Score>
inline constexpr bool can_score<negated<Score>> = can_score<Score>;

//! score(row, head_dim) of a row, the same in all lanes and to the same bits as on the host.
template <int HeadDim, class Score>
KVCRUMB_DEVICE float score_row(Score const& score, half_row<HeadDim> const& row, int lane) {
  if constexpr (requires { score.score; }) {
    return -score_row<HeadDim>(score.score, row, lane);
  } else {
    constexpr int per_lane = row_lanes<HeadDim>::per_lane;
    auto const merge = [](float a, float b) {
      if constexpr (std::same_as<Score, absmax_score>) {
        return b > a ? b : a;
      } else {
        return add_rn(a, b);
      }
    };
    float node[per_lane];
    KVCRUMB_UNROLL
    for (int i = 0; i < per_lane; ++i) {
      float const x = row.value_or_nan(i);
      node[i] = std::same_as<Score, l2_score> ? mul_rn(x, x) : absolute(x);
    }
    fold_within<per_lane>(node, merge);
    return fold_lanes<HeadDim, 32>(node[0], lane, merge,
                                   [](float x, int n) { return __shfl_xor_sync(~0u, x, n); });
  }
}

}  // namespace kvcrumb::inline v0::warp
