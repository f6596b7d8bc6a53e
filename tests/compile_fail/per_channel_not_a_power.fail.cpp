// SPDX-License-Identifier: Apache-2.0
//! @file Per-channel groups have 8, 16, 32, 64 or 128 tokens.
// expect: kvcrumb::per_channel: Tokens must be 8, 16, 32, 64 or 128
#include "kvcrumb/grouping/grouping.hpp"

using namespace kvcrumb;

static_assert(per_channel<24>::append_tokens == 24);
