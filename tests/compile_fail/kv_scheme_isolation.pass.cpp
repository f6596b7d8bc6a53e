// SPDX-License-Identifier: Apache-2.0
//! @file The third argument of kv_scheme is an isolation policy.
#include "kvcrumb/schemes.hpp"

using namespace kvcrumb;

using rows = composed<affine<2>, per_row>;
kv_scheme<rows, rows, token_pool<l1_score>> s;
