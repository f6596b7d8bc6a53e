// SPDX-License-Identifier: Apache-2.0
//! @file Dot products and weighted sums of rows in fp32, in an order that vectorizes.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! <a, b> over n floats in eight interleaved partial sums, joined in pairs. Error at most (n / 8 + 3) 2^-24
//! sum |a b|.
KVCRUMB_API float dot(float const* a, float const* b, std::int64_t n) noexcept {
  float partial[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j)
      partial[j] += a[i + j] * b[i + j];
  }
  for (int j = 0; j < 8 && i < n; ++i, ++j)  // j < 8 by itself; g++ 12 warns where it cannot see that
    partial[j] += a[i] * b[i];
  return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
         ((partial[4] + partial[5]) + (partial[6] + partial[7]));
}

//! o += w * x over n floats.
KVCRUMB_API void add_scaled(float w, float const* x, std::int64_t n, float* o) noexcept {
  for (std::int64_t i = 0; i < n; ++i)
    o[i] += w * x[i];
}

}  // namespace kvcrumb::inline v0
