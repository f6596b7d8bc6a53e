// SPDX-License-Identifier: Apache-2.0
//! @file columns: the columns that the text table and the HTML table share.
#pragma once

#include <string>
#include <vector>

#include "report.hpp"

namespace kvcrumb_compare {

struct column {
  char const* title;
  char const* unit;
  char const* meaning;                        //!< one sentence, for the HTML report
  std::string (*cell)(scheme_result const&);  //!< "-" where the value is unknown
};

//! All columns, in order.
std::vector<column> const& columns();

//! "2 layers, 2 kv heads, 1024 tokens, head dimension 128; 128 recorded query tokens of 4 query heads"
std::string shape_sentence(report_input const& input);

}  // namespace kvcrumb_compare
