// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/kitty.hpp>
#include <kvcrumb/schemes/kvarn.hpp>
#include <kvcrumb/schemes/oscar.hpp>

#include "evaluate_kivi.hpp"
#include "risk_decode_scheme.hpp"

namespace kvcrumb_compare {

namespace {

//! Kitty's codes with settings.window sinks, as in kvcrumb-compare.
template <class Published>
auto with_sinks(Published const& published, int window) {
  using scheme_type =
      kvcrumb::kv_scheme<typename Published::key_type, typename Published::value_type, kvcrumb::external>;
  return scheme_type{.name = published.name, .isolate = {.capacity = 0, .sinks = window}};
}

}  // namespace

//! oscar2, kvarn, kvarn2 and kitty in the groups and the window of kvcrumb-compare.
result<decoded_layer> decode_grouped(std::string_view name, recorded_layer const& layer,
                                     evaluation_settings const& settings) {
  result<decoded_layer> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const with = [&](auto scheme) {
      scheme.flush = {settings.window, group()};
      r = decode_as(name, scheme, layer, settings);
    };
    if (name == "oscar2") {
      with(kvcrumb::schemes::oscar<2, group()>());
    } else if (name == "kvarn") {
      with(kvcrumb::schemes::kvarn<4, 2, group()>());
    } else if (name == "kvarn2") {
      with(kvcrumb::schemes::kvarn<2, 2, group()>());
    } else if (name == "kitty") {
      with(with_sinks(kvcrumb::schemes::kitty<group()>(), settings.window));
    } else {
      r = failure{fmt::format("no scheme is named '{}'", name)};
    }
  });
  return r;
}

}  // namespace kvcrumb_compare
