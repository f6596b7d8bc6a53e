// SPDX-License-Identifier: Apache-2.0
//! @file KIVI, 2 bits.
#include "layer_of.hpp"

namespace kvcrumb_lm {

//! In the window that ott2 has.
result<std::unique_ptr<kv_layer>> make_kivi2(std::string_view name, layer_request const& r) {
  return with_group(name, r.group, [&](auto group) {
    auto scheme = kvcrumb::schemes::kivi<2, group()>();
    scheme.flush = flush_of(r);
    return make_layer(name, scheme, r);
  });
}

}  // namespace kvcrumb_lm
