// SPDX-License-Identifier: Apache-2.0
//! @file Hadamard blocks have two channels at least.
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

hadamard<2> t;
