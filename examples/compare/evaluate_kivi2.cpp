// SPDX-License-Identifier: Apache-2.0
#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

result<scheme_result> evaluate_kivi2(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  result<scheme_result> r =
      failure{fmt::format("{}: no groups of {} tokens; there are 16, 32, 64, 128", name, settings.group)};
  with_group(settings.group, [&](auto group) {
    auto const make = [&](int /*layer*/) {
      auto scheme = kvcrumb::schemes::kivi<2, group()>();
      scheme.flush = {settings.window, group()};  // the same window as ott2, so that only tracing differs
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
