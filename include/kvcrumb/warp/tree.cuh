// SPDX-License-Identifier: Apache-2.0
//! @file tree_fold for one thread without memory: leaves are handed over one by one.
#pragma once

#include "kvcrumb/numeric/tree_fold.hpp"

namespace kvcrumb::inline v0::warp {

//! The value of tree_fold over the nodes given to add(), in registers: at most 2^Levels - 1 nodes. The
//! branches depend on the number of nodes only, so that threads with equal numbers do not diverge.
template <class Node, int Levels>
class tree_accumulator {
 public:
  template <class Merge>
  KVCRUMB_DEVICE void add(Node node, Merge merge) {
    bool carry = true;
    KVCRUMB_UNROLL
    for (int level = 0; level < Levels; ++level) {
      if (!carry) continue;
      if (((full_ >> level) & 1u) != 0) {
        node = merge(stack_[level], node);
      } else {
        stack_[level] = node;
        carry = false;
      }
    }
    ++full_;  // a counter: bit i says that level i holds a complete subtree
  }
  //! Requires at least one node.
  template <class Merge>
  KVCRUMB_DEVICE Node total(Merge merge) const {
    Node sum{};
    bool any = false;
    KVCRUMB_UNROLL
    for (int level = 0; level < Levels; ++level) {
      if (((full_ >> level) & 1u) == 0) continue;
      sum = any ? merge(stack_[level], sum) : stack_[level];
      any = true;
    }
    return sum;
  }

 private:
  Node stack_[Levels] = {};
  unsigned full_ = 0;
};

}  // namespace kvcrumb::inline v0::warp
