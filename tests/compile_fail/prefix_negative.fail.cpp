// SPDX-License-Identifier: Apache-2.0
//! @file The number of sinks is not negative.
// expect: kvcrumb::prefix: Tokens must be in \[0, 65536\]
#include "kvcrumb/outlier/isolation.hpp"

using namespace kvcrumb;

prefix<-1> p;
