// SPDX-License-Identifier: Apache-2.0
//! @file Only a cache of external isolation takes a list of positions.
// expect: constraint|isolate
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

status announce(std::span<std::int64_t const> positions) {
  kv_cache<schemes::kivi_type<2>> cache;
  return cache.isolate(positions);
}
