// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/crumb2.hpp>

#include "evaluate_kivi.hpp"
#include "risk_decode_scheme.hpp"

namespace kvcrumb_compare {

//! kivi2, kivi4, ott2 and crumb2 in the groups, the window and the pool of kvcrumb-compare.
result<decoded_layer> decode_kivi(std::string_view name, recorded_layer const& layer,
                                  evaluation_settings const& settings) {
  result<decoded_layer> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const with = [&](auto scheme) {
      scheme.flush = {settings.window, group()};
      r = decode_as(name, scheme, layer, settings);
    };
    int const pool = layer.number < settings.first_traced ? 0 : settings.pool;
    if (name == "kivi2") {
      with(kvcrumb::schemes::kivi<2, group()>());
    } else if (name == "kivi4") {
      with(kvcrumb::schemes::kivi<4, group()>());
    } else if (name == "ott2") {
      with(kvcrumb::schemes::ott<2, group()>(pool));
    } else if (name == "crumb2") {
      with(kvcrumb::schemes::crumb2<group()>(pool));
    } else {
      r = failure{fmt::format("no scheme is named '{}'", name)};
    }
  });
  return r;
}

}  // namespace kvcrumb_compare
