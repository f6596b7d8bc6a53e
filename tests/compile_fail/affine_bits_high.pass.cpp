// SPDX-License-Identifier: Apache-2.0
//! @file Uniform codes have one to eight bits.
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

affine<8> c;
