// SPDX-License-Identifier: Apache-2.0
//! @file The correctly rounded square root.
#pragma once

#include <cmath>

#include "kvcrumb/numeric/arithmetic.hpp"

namespace kvcrumb::inline v0 {

//! sqrt(x), rounded once to nearest even. On the host in double and rounded again, which is harmless (53 >= 2
//! * 24 + 2) and keeps -mrecip estimates out.
[[nodiscard]] KVCRUMB_API float sqrt_rn(float x) noexcept {
#if defined(__CUDA_ARCH__)
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  double wide = static_cast<double>(x);
  KVCRUMB_OPAQUE(wide);
  wide = ::sqrt(wide);
  KVCRUMB_OPAQUE(wide);
  return static_cast<float>(wide);
#endif
}

}  // namespace kvcrumb::inline v0
