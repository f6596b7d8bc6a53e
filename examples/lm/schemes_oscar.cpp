// SPDX-License-Identifier: Apache-2.0
//! @file OScaR in the groups and the window that KIVI has.
#include <kvcrumb/schemes/oscar.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_oscar(std::string_view name, layer_request const& r) {
  return with_group(name, r.group, [&](auto group) {
    auto scheme = kvcrumb::schemes::oscar<2, group()>();
    scheme.flush = flush_of(r);
    return make_layer(name, scheme, r);
  });
}

}  // namespace kvcrumb_lm
