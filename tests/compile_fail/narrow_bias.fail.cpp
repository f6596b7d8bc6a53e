// SPDX-License-Identifier: Apache-2.0
//! @file A narrower format has a bias of 1 to 127.
// expect: kvcrumb::narrow_magnitude: Bias must be in \[1, 127\]
#include "kvcrumb/numeric/float_bits.hpp"

using namespace kvcrumb;

constexpr auto x = detail::narrow_magnitude<10, 128>(0u, detail::magnitude_rounding::half_even);
