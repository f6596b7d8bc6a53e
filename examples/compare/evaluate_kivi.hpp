// SPDX-License-Identifier: Apache-2.0
//! @file evaluate_kivi: KIVI at any width, in the window that ott2 has, so that only tracing differs.
#pragma once

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

//! The answer to a group that is not compiled in.
inline failure no_such_group(std::string_view name, int group) {
  return {fmt::format("{}: no groups of {} tokens; there are 16, 32, 64, 128", name, group)};
}

template <int Bits>
result<scheme_result> evaluate_kivi(std::string_view name, recorded_layers const& recorded,
                                    std::span<exact_layer const> exact, evaluation_settings const& settings,
                                    std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const make = [&](int /*layer*/) {
      auto scheme = kvcrumb::schemes::kivi<Bits, group()>();
      scheme.flush = {settings.window, group()};
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
