// SPDX-License-Identifier: Apache-2.0
//! @file One append unit is a multiple of the other.
#include "kvcrumb/schemes.hpp"

using namespace kvcrumb;

using thirds = composed<affine<2>, per_channel<32>>;
struct sixes : thirds {
  static constexpr int append_tokens = 64;
};
kv_scheme<thirds, sixes> s;
