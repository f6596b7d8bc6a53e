// SPDX-License-Identifier: Apache-2.0
//! @file A status is not ignored by accident.
// expect: nodiscard
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

#pragma GCC diagnostic error "-Wunused-result"
void create(kv_cache<schemes::fp16_type>& cache) {
  kv_cache<schemes::fp16_type>::create(schemes::fp16(), {}, cache);
}
