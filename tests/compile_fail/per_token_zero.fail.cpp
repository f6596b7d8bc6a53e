// SPDX-License-Identifier: Apache-2.0
//! @file Per-token groups have one channel at least.
// expect: kvcrumb::per_token: Channels must be positive
#include "kvcrumb/grouping/grouping.hpp"

using namespace kvcrumb;

static_assert(per_token<0>::append_tokens == 1);
