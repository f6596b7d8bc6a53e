// SPDX-License-Identifier: Apache-2.0
//! @file crumb2: traced outlier tokens.
#include <kvcrumb/schemes/crumb2.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_crumb2(std::string_view name, layer_request const& r) {
  return with_group(name, r.group, [&](auto group) {
    auto scheme = kvcrumb::schemes::crumb2<group()>(r.layer < r.trace_from ? 0 : r.pool);
    scheme.flush = flush_of(r);
    return make_layer(name, scheme, r);
  });
}

}  // namespace kvcrumb_lm
