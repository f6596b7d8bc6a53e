// SPDX-License-Identifier: Apache-2.0
//! @file fp16 arithmetic keeps fp16 parameters.
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

affine<2, float16, kivi_convention> c;
