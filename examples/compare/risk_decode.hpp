// SPDX-License-Identifier: Apache-2.0
//! @file risk_decode: what a scheme makes of the rows of a layer, without attention.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "evaluate.hpp"

namespace kvcrumb_compare {

//! The rows of one layer as a cache gives them back.
struct decoded_layer {
  std::vector<float> k;             //!< [kv_heads][tokens][head_dim]
  std::vector<float> v;             //!< likewise
  std::vector<std::uint8_t> exact;  //!< [kv_heads][tokens]; 1: not encoded (sinks, pools, tail)
  double bits_per_value = 0.0;      //!< everything that the cache counts, over all of its values
  double tile_bits = 0.0;           //!< of a value in a tile: what bits_per_value tends to for long sequences
};

//! Decodes a layer through one scheme.
using decode_function = result<decoded_layer>(std::string_view, recorded_layer const&,
                                              evaluation_settings const&);

//! The schemes that can be predicted: those that give rows back and need no calibration. In the order of
//! known_schemes.
std::span<std::string_view const> decodable_schemes();

//! Encodes a layer into a cache of its own (prefill) and reads every row back. Besides decodable_schemes,
//! "qserve4_centred": qserve4 whose keys have the mean of each head and channel of this very layer taken off.
//! Refused: other names, keys and values of unequal width, a shape that the scheme cannot take.
decode_function decode_layer;

//! Families of decode_layer, one source file each.
decode_function decode_rows, decode_kivi, decode_grouped;

}  // namespace kvcrumb_compare
