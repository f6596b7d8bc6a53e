// SPDX-License-Identifier: Apache-2.0
//! @file C++20 is required.
#include "kvcrumb/config.hpp"

constexpr bool compiled = true;
