// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/decoquant.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

//! 4 bits, blocks of settings.group tokens, 8 channels; the linear layout, which holds any multiple of 8
//! channels.
result<scheme_result> evaluate_decoquant(std::string_view name, recorded_layers const& recorded,
                                         std::span<exact_layer const> exact,
                                         evaluation_settings const& settings,
                                         std::function<void()> const& advance) {
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const make = [&](int /*layer*/) {
      auto scheme = kvcrumb::schemes::decoquant<4, group(), 8, kvcrumb::linear>();
      scheme.flush = {settings.window, group()};
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
