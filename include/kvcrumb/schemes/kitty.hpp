// SPDX-License-Identifier: Apache-2.0
//! @file Kitty: two-bit keys whose largest channels have four bits.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/channel_boost.hpp"
#include "kvcrumb/scheme/composed.hpp"

namespace kvcrumb::inline v0::schemes {

//! Kitty (arXiv 2511.18643; github.com/Summer-Summer/Kitty): pages of `Group` tokens; in each page and head
//! the PerMille / 1000 of the channels with the largest mean |k| get 4 bits, the others 2; values 2 bits per
//! token and `Group` channels. The first 32 tokens stay exact. Bits per value: keys 2 + 2 p + 32 / Group + 8
//! p / Group with p = floor(head_dim PerMille / 1000) / head_dim, values 2 + 32 / min(Group, head_dim).
//! head_dim at most 256.
template <int Group = 128, int PerMille = 125, layout Layout = fragment>
using kitty_type =
    kv_scheme<channel_boost<2, Group, PerMille, kitty_convention, magnitude_rank, Layout>,
              composed<affine<2, float16, kitty_convention>, per_token<Group>, identity, Layout>, prefix<32>>;

template <int Group = 128, int PerMille = 125, layout Layout = fragment>
constexpr kitty_type<Group, PerMille, Layout> kitty() noexcept {
  return {.name = PerMille == 125   ? "kitty"
                  : PerMille == 250 ? "kitty_pro"
                                    : "kitty_boost",
          .flush = {0, Group}};
}

//! Kitty-Pro: a quarter of the channels.
template <int Group = 128, layout Layout = fragment>
constexpr kitty_type<Group, 250, Layout> kitty_pro() noexcept {
  return kitty<Group, 250, Layout>();
}

}  // namespace kvcrumb::inline v0::schemes
