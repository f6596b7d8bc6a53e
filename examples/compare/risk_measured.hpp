// SPDX-License-Identifier: Apache-2.0
//! @file measured_risk: the risk report with measured errors beside the predicted ones.
#pragma once

#include "risk.hpp"

namespace kvcrumb_compare {

//! assess_risk with the measurement of `evaluate`, where the layers have queries and keys as wide as values;
//! shows its progress on stderr.
result<risk_report> measured_risk(std::string_view input, recorded_layers const& recorded,
                                  risk_settings const& settings);

}  // namespace kvcrumb_compare
