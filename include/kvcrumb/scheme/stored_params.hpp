// SPDX-License-Identifier: Apache-2.0
//! @file Reading and writing the parameters of one group in a section.
#pragma once

#include "kvcrumb/codec/concept.hpp"
#include "kvcrumb/layout/convert.hpp"

namespace kvcrumb::inline v0 {

//! Parameters of a group as they are stored.
template <storage_float Param, layout Layout>
group_params load_params(section_spec const& s, std::byte const* section, int owner, int group) noexcept {
  group_params p;
  for (int plane = 0; plane < s.planes; ++plane) {
    std::byte const* at = section + Layout::param_offset(s, plane, owner, group);
    std::uint32_t word = 0;
    for (int i = 0; i < s.param_bytes; ++i)
      word |= static_cast<std::uint32_t>(at[i]) << (8 * i);
    p.value[plane] = to_float(stored_from_bits<Param>(word));
  }
  return p;
}

//! Writes the parameters of a group, little-endian; they are already values of Param.
template <storage_float Param, layout Layout>
void store_params(section_spec const& s, std::byte* section, int owner, int group,
                  group_params const& p) noexcept {
  for (int plane = 0; plane < s.planes; ++plane) {
    std::uint32_t const word = stored_bits(from_float<Param>(p.value[plane]));
    std::byte* at = section + Layout::param_offset(s, plane, owner, group);
    for (int i = 0; i < s.param_bytes; ++i)
      at[i] = static_cast<std::byte>((word >> (8 * i)) & 0xFFu);
  }
}

}  // namespace kvcrumb::inline v0
