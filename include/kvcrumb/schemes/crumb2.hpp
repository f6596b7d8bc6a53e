// SPDX-License-Identifier: Apache-2.0
//! @file crumb2: this library's own recipe at about 2.45 bits, found by bench/recipes/search_recipes.
#pragma once

#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/channel_boost.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

namespace kvcrumb::inline v0 {

//! Rank of a channel by what decides its error: maximum less minimum over the tokens of the group. NaN where
//! a value is not finite.
struct range_rank {
  static constexpr char const* name = "range";
  static float of(float const* column, int n, int /*dim*/) noexcept {
    range_statistics s = range_statistics::of(column[0]);
    for (int i = 1; i < n; ++i)
      s = range_statistics::merged(s, range_statistics::of(column[i]));
    return s.finite ? sub_rn(s.high, s.low) : float_from_bits(0x7FC00000u);
  }
};

namespace schemes {

//! Keys: 2 bits per channel and 128 tokens, with 4 bits for the quarter of the channels of widest range (the
//! errors of keys move attention from token to token, and most of them sit in few channels). Values: 2-bit
//! Lloyd-Max codes of the rotated row, one fp16 scale per token and head (their errors average out; the
//! levels fit what a rotation makes of any row). OTT's pool, window and tracing, which cost little and matter
//! where a model has sinks. No calibration. 2 + 0.5 + 32/128 + 8/512 bits for keys and 2 + 16/D for
//! values: 2.445 at D = 128, and what is exact.
template <int Group = 128, layout Layout = fragment>
using crumb2_type = kv_scheme<channel_boost<2, Group, 250, kitty_convention, range_rank, Layout>,
                              composed<lloyd_max<2>, per_row, hadamard<>, Layout>, token_pool<l1_score>>;

template <int Group = 128, layout Layout = fragment>
constexpr crumb2_type<Group, Layout> crumb2(int pool = 3) noexcept {
  return {.name = "crumb2", .flush = {32, Group}, .isolate = {.capacity = pool}};
}

}  // namespace schemes
}  // namespace kvcrumb::inline v0
