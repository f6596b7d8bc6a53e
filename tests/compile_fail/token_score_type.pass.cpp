// SPDX-License-Identifier: Apache-2.0
//! @file A token score is a float.
#include "kvcrumb/outlier/isolation.hpp"

using namespace kvcrumb;

struct score {
  static constexpr char const* name = "first";
  float operator()(float const* row, int) const { return row[0]; }
};
token_pool<score> pool;
