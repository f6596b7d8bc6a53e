// SPDX-License-Identifier: Apache-2.0
//! @file A cache keeps its exact rows as storage floats.
// expect: storage_float
// expect: constraint
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

kv_cache<schemes::fp16_type, double> cache;
