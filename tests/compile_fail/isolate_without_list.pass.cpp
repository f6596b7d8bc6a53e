// SPDX-License-Identifier: Apache-2.0
//! @file Only a cache of external isolation takes a list of positions.
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

status announce(std::span<std::int64_t const> positions) {
  using kivi = schemes::kivi_type<2>;
  kv_cache<kv_scheme<kivi::key_type, kivi::value_type, external>> cache;
  return cache.isolate(positions);
}
