// SPDX-License-Identifier: Apache-2.0
//! @file The one order in which sums that decide a byte are taken.
#pragma once

#include "kvcrumb/numeric/arithmetic.hpp"

namespace kvcrumb::inline v0 {

//! leaf(0) + leaf(1) + ... + leaf(n - 1), 1 <= n <= 65536, merged as a balanced tree over neighbouring pairs:
//! ((0+1)+(2+3))+((4+5)+...). A warp gets the same value by a butterfly over xor 1, 2, 4, ... with missing
//! leaves simply absent. This is the order of every sum that decides a byte.
KVCRUMB_CALLS_ANY
template <class Leaf, class Merge>
KVCRUMB_API auto tree_fold(int n, Leaf leaf, Merge merge) noexcept {
  using node_type = decltype(leaf(0));
  node_type stack[17] = {};  // stack[i] holds a complete subtree of 2^i leaves
  unsigned full = 0;
  for (int i = 0; i < n; ++i) {
    node_type node = leaf(i);
    int level = 0;
    for (; ((full >> level) & 1u) != 0; ++level)
      node = merge(stack[level], node);
    full = (full & ~((1u << level) - 1u)) | 1u << level;
    stack[level] = node;
  }
  int level = 0;
  while (((full >> level) & 1u) == 0)
    ++level;
  node_type total = stack[level];
  for (++level; level < 17; ++level) {
    if (((full >> level) & 1u) != 0) total = merge(stack[level], total);
  }
  return total;
}

//! Sum of n >= 1 floats in tree order, every addition rounded once.
KVCRUMB_API float tree_sum(float const* x, int n) noexcept {
  return tree_fold(
      n, [&](int i) { return x[i]; }, [](float a, float b) { return add_rn(a, b); });
}

}  // namespace kvcrumb::inline v0
