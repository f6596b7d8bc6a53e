// SPDX-License-Identifier: Apache-2.0
//! @file Tokens of a group-tiled scheme cannot be rewritten alone.
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

status rewrite(kv_cache<schemes::qserve4_type<>>& cache, rows_view<float const> rows) {
  return cache.rewrite(0, rows, rows);
}
