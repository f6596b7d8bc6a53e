// SPDX-License-Identifier: Apache-2.0
//! @file calibrate: KVQuant's calibration of one recording, as a file, for others.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <kvcrumb/calibrate/parameters.hpp>

#include "evaluate.hpp"

namespace kvcrumb_compare {

struct calibrated_layer {
  int number = 0;  //!< its number in the model
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::vector<kvcrumb::named_parameters> parameters;
};

struct calibration {
  std::string scheme;                    //!< kvquant2, kvquant3 or kvquant4
  std::vector<calibrated_layer> layers;  //!< at least one, each number once
};

//! Calibrates every recorded layer by itself. Refused: another scheme, a layer that cannot be calibrated.
result<calibration> calibrate(std::string_view scheme, recorded_layers const& recorded);

//! The text of a file. Per layer a line
//!   kvcrumb-calibration 1 <scheme> layer <number> kv_heads <n> head_dim <n> crc32 <of what follows, 8
//!   digits>
//! and then its arrays as write_parameters writes them, named after the layer ("3.key_shift").
result<std::string> calibration_text(calibration const& c);

//! Reads such a text; `name` stands in error texts. Refused with the line that is wrong: another kind of
//! file, other schemes, a layer twice, anything damaged or cut off.
result<calibration> read_calibration(std::string_view text, std::string_view name);
result<calibration> load_calibration(std::filesystem::path const& path);

//! As evaluate, with this calibration. Refused: layers that it does not have or that have another shape.
result<scheme_result> evaluate_calibrated(calibration const& c, recorded_layers const& recorded,
                                          std::span<exact_layer const> exact,
                                          evaluation_settings const& settings,
                                          std::function<void()> const& advance);

}  // namespace kvcrumb_compare
