// SPDX-License-Identifier: Apache-2.0
//! @file The third argument of kv_scheme is an isolation policy.
// expect: isolation
// expect: constraint
#include "kvcrumb/schemes.hpp"

using namespace kvcrumb;

using rows = composed<affine<2>, per_row>;
kv_scheme<rows, rows, l1_score> s;
