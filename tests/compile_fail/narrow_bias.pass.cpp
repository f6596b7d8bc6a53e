// SPDX-License-Identifier: Apache-2.0
//! @file A narrower format has a bias of 1 to 127.
#include "kvcrumb/numeric/float_bits.hpp"

using namespace kvcrumb;

constexpr auto x = detail::narrow_magnitude<10, 15>(0u, detail::magnitude_rounding::half_even);
