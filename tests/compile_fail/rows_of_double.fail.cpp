// SPDX-License-Identifier: Apache-2.0
//! @file Rows are float, float16, bfloat16 or float8_e4m3.
// expect: no matching (member )?function
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

status append(kv_cache<schemes::fp16_type>& cache, rows_view<double const> rows) {
  return cache.append(rows, rows, 1);
}
