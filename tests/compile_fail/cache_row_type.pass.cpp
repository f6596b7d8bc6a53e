// SPDX-License-Identifier: Apache-2.0
//! @file A cache keeps its exact rows as storage floats.
#include "kvcrumb/kvcrumb.hpp"

using namespace kvcrumb;

kv_cache<schemes::fp16_type, bfloat16> cache;
