// SPDX-License-Identifier: Apache-2.0
//! @file Caches whose tokens are encoded alone, and the baselines.
#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_rows(std::string_view name, layer_request const& r) {
  namespace schemes = kvcrumb::schemes;
  if (name == "fp16") return make_layer(name, schemes::fp16(), r);
  if (name == "fp32") return make_layer<float>(name, schemes::fp16(), r);
  if (name == "fp8") return make_layer(name, with_window(schemes::fp8(), r), r);
  if (name == "nqkv4") return make_layer(name, with_window(schemes::nqkv4(), r), r);
  if (name == "qserve4") return make_layer(name, with_window(schemes::qserve4(), r), r);
  if (name == "q8_0") return make_layer(name, with_window(schemes::q8_0(), r), r);
  return make_layer(name, with_window(schemes::q4_0(), r), r);
}

}  // namespace kvcrumb_lm
