// SPDX-License-Identifier: Apache-2.0
//! @file The program that every consume route builds and runs.
#include <kvcrumb/kvcrumb.hpp>

int main() {
  static_assert(kvcrumb::format_version >= 1);
  return kvcrumb::format_version >= 1 && kvcrumb::to_string(kvcrumb::status::ok) != nullptr ? 0 : 1;
}
