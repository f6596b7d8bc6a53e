// SPDX-License-Identifier: Apache-2.0
//! @file The composed schemes whose laws are tested, and which bits of a section belong to a slot.
#pragma once

#include <algorithm>
#include <tuple>
#include <vector>

#include "support/catch.hpp"
#include "unit/scheme/section_probe.hpp"

namespace kvcrumb::test {

template <class Preset>
using key_of = typename Preset::key_type;
template <class Preset>
using value_of = typename Preset::value_type;

using compositions =
    std::tuple<key_of<schemes::kivi_type<2>>, value_of<schemes::kivi_type<2>>,
               key_of<schemes::kivi_type<4, 64, linear>>, value_of<schemes::kivi_type<4, 64, linear>>,
               key_of<schemes::ott_type<2>>, value_of<schemes::ott_type<2>>, key_of<schemes::nqkv4_type<>>,
               key_of<schemes::qserve4_type<>>, key_of<schemes::q8_0_type>, key_of<schemes::q4_0_type>,
               key_of<schemes::fp16_type>, key_of<schemes::fp8_type>,
               composed<affine<3, bfloat16>, per_channel<64>, hadamard<>, fragment>,
               composed<affine<3>, per_token<40>, identity, linear>,
               composed<affine<1, float>, per_token<64>, identity, fragment>,
               composed<affine<8, float8_e4m3>, per_token<40>, hadamard<16>, fragment>,
               composed<affine<4, float16, midrise_convention>, per_channel<16>, mean_center, fragment>,
               composed<e2m1<>, per_token<16>, identity, fragment>,
               composed<lloyd_max<4>, per_row, centered<hadamard<>>, fragment>,
               composed<symmetric<3, bfloat16>, per_channel<8>, identity, linear>,
               composed<codebook<user_table<2>, float>, per_token<48>, identity, fragment>>;

inline constexpr int heads = 5;

inline std::vector<float> const& means() {
  static std::vector<float> const m = number_source(77).bells(static_cast<std::size_t>(heads) * 256, 2.0f);
  return m;
}

template <class Scheme>
Scheme made() {
  Scheme scheme{};
  if constexpr (requires { scheme.transform.means; }) scheme.transform.means = means().data();
  if constexpr (requires { scheme.codec.table.levels; }) scheme.codec.table = {{-1.0f, -0.25f, 0.5f, 1.0f}};
  return scheme;
}

//! Shapes that the scheme supports, 128 tokens first.
template <class Scheme>
std::vector<tile_shape> shapes() {
  std::vector<tile_shape> result;
  for (tile_shape const shape : {tile_shape{64, 128}, tile_shape{128, 64}, tile_shape{96, 32}}) {
    if (made<Scheme>().supports(side::key, shape, heads) == status::ok) result.push_back(shape);
  }
  REQUIRE(!result.empty());
  return result;
}

//! 1 for the bits of a section that belong to slots [first, first + count): codes, and parameters where a
//! group lies within them.
template <class Scheme>
std::vector<std::uint8_t> bits_of_slots(side which, tile_shape shape, int first, int count) {
  using layout_type = typename Scheme::layout_type;
  section_spec const s = Scheme::spec(which, shape);
  std::vector<std::uint8_t> mine(static_cast<std::size_t>(8 * layout_type::section_bytes(s)), 0);
  for (int slot = first; slot < first + count; ++slot) {
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      for (int i = 0; i < s.bits; ++i)
        mine[static_cast<std::size_t>(layout_type::code_bit(s, slot, dim, i))] = 1;
    }
  }
  for (int plane = 0; plane < s.planes; ++plane) {
    for (int owner = 0; owner < s.owners(); ++owner) {
      for (int group = 0; group < s.groups(); ++group) {
        bool const inside = s.per_channel ? group * s.group >= first && (group + 1) * s.group <= first + count
                                          : owner >= first && owner < first + count;
        if (!inside) continue;
        auto const at = static_cast<std::size_t>(8 * layout_type::param_offset(s, plane, owner, group));
        std::fill_n(mine.begin() + static_cast<std::ptrdiff_t>(at), 8 * s.param_bytes, std::uint8_t{1});
      }
    }
  }
  return mine;
}

}  // namespace kvcrumb::test
