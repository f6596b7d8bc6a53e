// SPDX-License-Identifier: Apache-2.0
//! @file q8_0 has eight bits.
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<8, float16, symmetric_rule::ggml_q8_0> c;
