// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/kvarn.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

//! KVarN in the groups and the window that kivi and ott have. "kvarn2": keys of 2 bits instead of 4.
result<scheme_result> evaluate_kvarn(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const run = [&](auto scheme) {
      scheme.flush = {settings.window, group()};
      r = evaluate_scheme(
          name, [&](int /*layer*/) { return scheme; }, recorded, exact, settings, advance);
    };
    if (name == "kvarn2") {
      run(kvcrumb::schemes::kvarn<2, 2, group()>());
    } else {
      run(kvcrumb::schemes::kvarn<4, 2, group()>());
    }
  });
  return r;
}

}  // namespace kvcrumb_compare
