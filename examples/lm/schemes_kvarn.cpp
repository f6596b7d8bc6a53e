// SPDX-License-Identifier: Apache-2.0
//! @file KVarN in the groups and the window that KIVI has.
#include <kvcrumb/schemes/kvarn.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_kvarn(std::string_view name, layer_request const& r) {
  return with_group(name, r.group, [&](auto group) {
    auto const run = [&](auto scheme) {
      scheme.flush = flush_of(r);
      return make_layer(name, scheme, r);
    };
    return name == "kvarn2" ? run(kvcrumb::schemes::kvarn<2, 2, group()>())
                            : run(kvcrumb::schemes::kvarn<4, 2, group()>());
  });
}

}  // namespace kvcrumb_lm
