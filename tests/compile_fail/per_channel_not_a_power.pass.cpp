// SPDX-License-Identifier: Apache-2.0
//! @file Per-channel groups have 8, 16, 32, 64 or 128 tokens.
#include "kvcrumb/grouping/grouping.hpp"

using namespace kvcrumb;

static_assert(per_channel<32>::append_tokens == 32);
