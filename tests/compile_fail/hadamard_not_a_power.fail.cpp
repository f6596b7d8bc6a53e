// SPDX-License-Identifier: Apache-2.0
//! @file Hadamard blocks are powers of two.
// expect: kvcrumb::hadamard: Block must be a power of two
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

hadamard<48> t;
