// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/oscar.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

//! OScaR in the groups and the window that kivi and ott have.
result<scheme_result> evaluate_oscar(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const make = [&](int /*layer*/) {
      auto scheme = kvcrumb::schemes::oscar<2, group()>();
      scheme.flush = {settings.window, group()};
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
