// SPDX-License-Identifier: Apache-2.0
//! @file qaq_targets: the errors that QAQ may make, in kvcrumb-compare and kvcrumb-lm alike.
#pragma once

#include <kvcrumb/schemes/qaq_width.hpp>

namespace kvcrumb_compare {

//! 0.01 for keys and 0.3 for values; the `recent` newest tokens stay exact.
inline kvcrumb::qaq_options qaq_targets(int recent) {
  kvcrumb::qaq_options options;
  options.key_error = 0.01;
  options.value_error = 0.3;
  options.recent = recent;
  return options;
}

}  // namespace kvcrumb_compare
