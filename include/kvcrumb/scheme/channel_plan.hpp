// SPDX-License-Identifier: Apache-2.0
//! @file Which channels of a kv head share parameters: a permutation cut into groups of any length.
#pragma once

#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/numeric/float_bits.hpp"

namespace kvcrumb::inline v0 {

//! A permutation of the channels of every kv head, cut into `groups` groups of any length, and a clip factor
//! for each group. The arrays are the caller's and must outlive the schemes that point to them; they decide
//! bytes. `calibrate_skvq` computes them. groups = 0: no plan.
struct channel_plan {
  int kv_heads = 0;
  int head_dim = 0;
  int groups = 0;
  std::uint16_t const* order = nullptr;  //!< [kv_heads][head_dim], the channel that stands at a place
  std::uint16_t const* ends = nullptr;   //!< [kv_heads][groups], ascending; the last one is head_dim
  float const* clip = nullptr;           //!< [kv_heads][groups], in (0, 1]

  //! Ok, or what is wrong with it for this shape.
  status check(int heads, int width) const noexcept {
    if (order == nullptr || ends == nullptr || clip == nullptr) return status::null_pointer;
    if (heads != kv_heads || width != head_dim || width < 1 || width > max_head_dim) return status::bad_shape;
    for (int head = 0; head < heads; ++head) {
      bool seen[max_head_dim] = {};
      for (int place = 0; place < width; ++place) {
        int const channel = order[std::int64_t{head} * width + place];
        if (channel >= width || seen[channel]) return status::out_of_range;
        seen[channel] = true;
      }
      int last = 0;
      for (int g = 0; g < groups; ++g) {
        std::int64_t const at = std::int64_t{head} * groups + g;
        if (ends[at] <= last || ends[at] > width) return status::bad_group;
        if (!is_positive_bits(clip[at]) || clip[at] > 1.0f) return status::out_of_range;
        last = ends[at];
      }
      if (last != width) return status::bad_group;
    }
    return status::ok;
  }
};

}  // namespace kvcrumb::inline v0
