// SPDX-License-Identifier: Apache-2.0
//! @file A double is no storage float.
#include "kvcrumb/numeric/storage_float.hpp"

using namespace kvcrumb;

auto const x = from_float<float>(1.0f);
