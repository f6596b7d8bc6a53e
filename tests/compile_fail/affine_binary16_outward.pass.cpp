// SPDX-License-Identifier: Apache-2.0
//! @file fp16 arithmetic rounds parameters to nearest.
#include "kvcrumb/codec/affine.hpp"

using namespace kvcrumb;

inline constexpr affine_options nearest{.precision = arithmetic::binary16, .params = param_rounding::nearest};
affine<2, float16, nearest> c;
