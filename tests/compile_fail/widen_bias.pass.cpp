// SPDX-License-Identifier: Apache-2.0
//! @file A format that is widened has a smaller exponent range.
#include "kvcrumb/numeric/float_bits.hpp"

using namespace kvcrumb;

constexpr auto x = detail::widen_magnitude<10, 15>(0u);
