// SPDX-License-Identifier: Apache-2.0
//! @file Hadamard blocks have two channels at least.
// expect: kvcrumb::hadamard: Block must be a power of two
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

hadamard<1> t;
