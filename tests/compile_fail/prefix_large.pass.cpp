// SPDX-License-Identifier: Apache-2.0
//! @file The number of sinks is bounded.
#include "kvcrumb/outlier/isolation.hpp"

using namespace kvcrumb;

prefix<65536> p;
