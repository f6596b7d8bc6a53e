// SPDX-License-Identifier: Apache-2.0
//! @file Raw values have at most sixteen bits.
// expect: constraint
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

raw<float> c;
