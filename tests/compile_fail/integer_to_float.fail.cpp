// SPDX-License-Identifier: Apache-2.0
//! @file An integer is no storage float.
// expect: constraint
#include "kvcrumb/numeric/storage_float.hpp"

using namespace kvcrumb;

auto const x = to_float(1);
