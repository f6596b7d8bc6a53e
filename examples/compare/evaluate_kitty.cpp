// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/kitty.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

//! Kitty in the groups and the window that kivi and ott have; as many sinks as the window is long, 32 as
//! published except for short inputs, which have none. "kitty_pro": a quarter of the channels boosted.
result<scheme_result> evaluate_kitty(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const run = [&](auto published) {
      using published_type = decltype(published);
      using scheme_type = kvcrumb::kv_scheme<typename published_type::key_type,
                                             typename published_type::value_type, kvcrumb::external>;
      scheme_type const scheme{.name = published.name,
                               .flush = {settings.window, group()},
                               .isolate = {.capacity = 0, .sinks = settings.window}};
      r = evaluate_scheme(
          name, [&](int /*layer*/) { return scheme; }, recorded, exact, settings, advance);
    };
    if (name == "kitty_pro") {
      run(kvcrumb::schemes::kitty_pro<group()>());
    } else {
      run(kvcrumb::schemes::kitty<group()>());
    }
  });
  return r;
}

}  // namespace kvcrumb_compare
