// SPDX-License-Identifier: Apache-2.0
//! @file C++20 is required.
// expect: kvcrumb: C\+\+20 is required
#undef __cplusplus
#define __cplusplus 201703L
#include "kvcrumb/config.hpp"

constexpr bool compiled = true;
