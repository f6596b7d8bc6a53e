// SPDX-License-Identifier: Apache-2.0
//! @file q4_0 has four bits.
// expect: kvcrumb::symmetric: q4_0 has 4 bits
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<8, float16, symmetric_rule::ggml_q4_0> c;
