// SPDX-License-Identifier: Apache-2.0
//! @file Hadamard blocks are powers of two.
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

hadamard<64> t;
