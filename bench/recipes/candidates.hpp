// SPDX-License-Identifier: Apache-2.0
//! @file What search_recipes can choose from.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tensor_file.hpp"

namespace recipes {

inline constexpr std::int64_t max_queries = 64;

//! One side of a layer as a candidate reads it back, and its measured bits per value: sections, half of the
//! masks, and the exact rows of that side.
struct side_rows {
  std::vector<double> rows;  //!< [kv_heads][tokens][head_dim]
  double bits = 0.0;
};

//! "none", "pool3" (three tokens of smallest key norm) and "sinks4" (the first four tokens), each followed by
//! a space.
std::vector<std::string> const& isolation_names();

//! Encodes a layer with every candidate of both sides and every isolation; names are isolation + candidate.
void encode_all(kvcrumb_compare::recorded_layer const& layer, std::map<std::string, side_rows>& keys,
                std::map<std::string, side_rows>& values);

//! A system of schemes.hpp in these terms.
struct named_pair {
  std::string name, isolation, key, value;
};
std::vector<named_pair> const& named_pairs();

}  // namespace recipes
