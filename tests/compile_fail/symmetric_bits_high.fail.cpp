// SPDX-License-Identifier: Apache-2.0
//! @file Symmetric codes have two to eight bits.
// expect: kvcrumb::symmetric: Bits must be in \[2, 8\]
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<9> c;
