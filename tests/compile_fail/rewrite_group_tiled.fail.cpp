// SPDX-License-Identifier: Apache-2.0
//! @file Tokens of a group-tiled scheme cannot be rewritten alone.
// expect: constraint|rewrite
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

status rewrite(kv_cache<schemes::kivi_type<2>>& cache, rows_view<float const> rows) {
  return cache.rewrite(0, rows, rows);
}
