// SPDX-License-Identifier: Apache-2.0
//! @file fp16 arithmetic keeps fp16 parameters.
// expect: kvcrumb::affine: binary16 arithmetic needs float16 parameters
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

affine<2, bfloat16, kivi_convention> c;
