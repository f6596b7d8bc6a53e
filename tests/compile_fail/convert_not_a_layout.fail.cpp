// SPDX-License-Identifier: Apache-2.0
//! @file Sections are converted between layouts.
// expect: no matching function
#include "kvcrumb/layout/convert.hpp"

using namespace kvcrumb;

struct rows {};
status convert(section_spec const& s, std::byte const* from, std::byte* to) {
  return convert_section<linear, rows>(s, from, to);
}
