// SPDX-License-Identifier: Apache-2.0
//! @file SAW-INT4 and NVFP4.
#include <cmath>

#include <kvcrumb/schemes/nvfp4.hpp>
#include <kvcrumb/schemes/saw_int4.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

//! nvfp4: the scales of the tensors are those of the recording.
result<std::unique_ptr<kv_layer>> make_fp4(std::string_view name, layer_request const& r) {
  if (name == "saw_int4") return make_layer(name, with_window(kvcrumb::schemes::saw_int4(), r), r);
  auto const scale = [](std::vector<float> const& tensor) {
    float top = 0.0f;
    for (float const x : tensor)
      top = std::max(top, std::fabs(x));
    return kvcrumb::schemes::nvfp4_scale(top);
  };
  return make_layer(
      name, with_window(kvcrumb::schemes::nvfp4(scale(r.calibration->k), scale(r.calibration->v)), r), r);
}

}  // namespace kvcrumb_lm
