// SPDX-License-Identifier: Apache-2.0
//! @file q4_0 has four bits.
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<4, float16, symmetric_rule::ggml_q4_0> c;
