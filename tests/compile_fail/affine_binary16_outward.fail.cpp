// SPDX-License-Identifier: Apache-2.0
//! @file fp16 arithmetic rounds parameters to nearest.
// expect: kvcrumb::affine: binary16 arithmetic rounds parameters to nearest
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

inline constexpr affine_options outward{.precision = arithmetic::binary16, .params = param_rounding::outward};
affine<2, float16, outward> c;
