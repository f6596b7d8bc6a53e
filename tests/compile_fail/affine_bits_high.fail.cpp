// SPDX-License-Identifier: Apache-2.0
//! @file Uniform codes have one to eight bits.
// expect: kvcrumb::affine: Bits must be in \[1, 8\]
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

affine<9> c;
