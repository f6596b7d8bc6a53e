// SPDX-License-Identifier: Apache-2.0
//! @file The transform that does nothing.
#pragma once

#include "kvcrumb/transform/concept.hpp"

namespace kvcrumb::inline v0 {

//! Rows are encoded as they are.
struct identity {
  static constexpr char const* name = "identity";
  KVCRUMB_API void forward(int, int, float*) const noexcept {}
  KVCRUMB_API float query(int, int, float*) const noexcept { return 0.0f; }
  KVCRUMB_API void inverse(int, int, float*, float) const noexcept {}
  std::uint64_t id(int, int) const noexcept { return 0; }
};

}  // namespace kvcrumb::inline v0
