// SPDX-License-Identifier: Apache-2.0
//! @file The number of sinks is not negative.
#include "kvcrumb/outlier/isolation.hpp"

using namespace kvcrumb;

prefix<0> p;
