// SPDX-License-Identifier: Apache-2.0
//! @file Parameters are float, float16, bfloat16 or float8_e4m3.
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

affine<2, float> c;
