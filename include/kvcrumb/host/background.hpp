// SPDX-License-Identifier: Apache-2.0
//! @file background: what a product does beside multiplying: steps of other work, and fetching.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0::host {

//! A product is bound by the multipliers and by memory; what stands between two products (rounding, softmax)
//! by latencies. Products therefore call step() every few lines, and the processor does both at once. Steps
//! run in order, each once.
struct background {
  void (*run)(void* with, int step) = nullptr;
  void* with = nullptr;
  int count = 0;
  int next = 0;

  void step() {
    if (next < count) run(with, next++);
  }
  void rest() {
    while (next < count)
      run(with, next++);
  }
};

//! Lines of the next section that are still to be fetched.
struct next_lines {
  std::byte const *at = nullptr, *end = nullptr;
};

}  // namespace kvcrumb::inline v0::host
