// SPDX-License-Identifier: Apache-2.0
//! @file Kitty in the groups and the window that KIVI has.
#include <kvcrumb/schemes/kitty.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

//! As many sinks as the window is long: 32 as published, none for short contexts.
result<std::unique_ptr<kv_layer>> make_kitty(std::string_view name, layer_request const& r) {
  return with_group(name, r.group, [&](auto group) {
    auto const run = [&](auto published) {
      using published_type = decltype(published);
      using scheme_type = kvcrumb::kv_scheme<typename published_type::key_type,
                                             typename published_type::value_type, kvcrumb::external>;
      scheme_type const scheme{
          .name = published.name, .flush = flush_of(r), .isolate = {.capacity = 0, .sinks = r.window}};
      return make_layer(name, scheme, r);
    };
    return name == "kitty_pro" ? run(kvcrumb::schemes::kitty_pro<group()>())
                               : run(kvcrumb::schemes::kitty<group()>());
  });
}

}  // namespace kvcrumb_lm
