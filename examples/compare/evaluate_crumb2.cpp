// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/crumb2.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

//! crumb2 in the groups, the window and the pool that ott2 has.
result<scheme_result> evaluate_crumb2(std::string_view name, recorded_layers const& recorded,
                                      std::span<exact_layer const> exact, evaluation_settings const& settings,
                                      std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const make = [&](int layer) {
      auto scheme = kvcrumb::schemes::crumb2<group()>(layer < settings.first_traced ? 0 : settings.pool);
      scheme.flush = {settings.window, group()};
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
