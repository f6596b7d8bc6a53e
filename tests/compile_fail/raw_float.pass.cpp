// SPDX-License-Identifier: Apache-2.0
//! @file Raw values have at most sixteen bits.
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

raw<float16> c;
