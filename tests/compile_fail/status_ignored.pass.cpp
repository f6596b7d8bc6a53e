// SPDX-License-Identifier: Apache-2.0
//! @file A status is not ignored by accident.
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

#pragma GCC diagnostic error "-Wunused-result"
status create(kv_cache<schemes::fp16_type>& cache) {
  return kv_cache<schemes::fp16_type>::create(schemes::fp16(), {}, cache);
}
