// SPDX-License-Identifier: Apache-2.0
//! @file Per-token groups have one channel at least.
#include "kvcrumb/grouping/grouping.hpp"

using namespace kvcrumb;

static_assert(per_token<1>::append_tokens == 1);
