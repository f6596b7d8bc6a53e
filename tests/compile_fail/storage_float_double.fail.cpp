// SPDX-License-Identifier: Apache-2.0
//! @file A double is no storage float.
// expect: storage_float|no matching function
// expect: constraint
#include "kvcrumb/numeric/storage_float.hpp"

using namespace kvcrumb;

auto const x = from_float<double>(1.0f);
