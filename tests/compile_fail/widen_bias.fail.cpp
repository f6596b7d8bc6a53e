// SPDX-License-Identifier: Apache-2.0
//! @file A format that is widened has a smaller exponent range.
// expect: kvcrumb::widen_magnitude: Bias must be in \[1, 126\]
#include "kvcrumb/numeric/float_bits.hpp"

using namespace kvcrumb;

constexpr auto x = detail::widen_magnitude<10, 127>(0u);
