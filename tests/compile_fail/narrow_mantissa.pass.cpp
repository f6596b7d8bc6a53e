// SPDX-License-Identifier: Apache-2.0
//! @file A narrower format has 1 to 22 mantissa bits.
#include "kvcrumb/numeric/float_bits.hpp"

using namespace kvcrumb;

constexpr auto x = detail::narrow_magnitude<22, 127>(0u, detail::magnitude_rounding::half_even);
