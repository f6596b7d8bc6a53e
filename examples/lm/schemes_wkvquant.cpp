// SPDX-License-Identifier: Apache-2.0
//! @file WKVQuant: static channel scales from the recording.
#include <kvcrumb/schemes/wkvquant.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

result<std::unique_ptr<kv_layer>> make_wkvquant(std::string_view name, layer_request const& r) {
  recorded_layer const& rec = *r.calibration;
  auto c = std::make_shared<kvcrumb::wkvquant_calibration>();
  if (kvcrumb::status const s = kvcrumb::calibrate_wkvquant(
          kvcrumb::hnd_rows(rec.k.data(), rec.tokens, r.head_dim),
          kvcrumb::hnd_rows(rec.v.data(), rec.tokens, r.head_dim), r.kv_heads, rec.tokens, r.head_dim, *c);
      s != kvcrumb::status::ok)
    return failure{fmt::format("{}, layer {}: cannot be calibrated: {}", name, r.layer, to_string(s))};
  return make_layer(name, with_window(kvcrumb::schemes::wkvquant(*c), r), r, c);
}

}  // namespace kvcrumb_lm
