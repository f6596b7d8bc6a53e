// SPDX-License-Identifier: Apache-2.0
//! @file The code of a table is unsigned.
#include "kvcrumb/codec/codebook.hpp"

using namespace kvcrumb;

struct table {
  static constexpr char const* name = "two";
  static constexpr int bits = 1;
  float level(unsigned code) const { return code == 0 ? -1.0f : 1.0f; }
  unsigned nearest(float x) const { return x < 0.0f ? 0 : 1; }
  float max_level() const { return 1.0f; }
};
codebook<table> c;
