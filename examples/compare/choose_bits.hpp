// SPDX-License-Identifier: Apache-2.0
//! @file choose_kvtuner_bits: bits for every layer from recorded rows.
#pragma once

#include <span>
#include <vector>

#include <kvcrumb/schemes/layer_map.hpp>

#include "evaluate.hpp"

namespace kvcrumb_compare {

//! 2 or 4 bits for keys and values of each layer, 3 on average, so that the errors of the recorded queries'
//! outputs are least in sum (without queries: the errors of keys and values). Groups of 32, of 16 where
//! settings.group is smaller. The text of a failure says which layer and why.
result<std::vector<kvcrumb::layer_bits>> choose_kvtuner_bits(std::span<recorded_layer const> layers,
                                                             evaluation_settings const& settings);

}  // namespace kvcrumb_compare
