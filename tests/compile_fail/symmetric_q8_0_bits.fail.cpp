// SPDX-License-Identifier: Apache-2.0
//! @file q8_0 has eight bits.
// expect: kvcrumb::symmetric: q8_0 has 8 bits
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<4, float16, symmetric_rule::ggml_q8_0> c;
