// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include <kvcrumb/schemes/nvfp4.hpp>
#include <kvcrumb/schemes/saw_int4.hpp>
#include <kvcrumb/schemes/turboquant.hpp>

#include "risk_decode_scheme.hpp"
#include "risk_statistics.hpp"

namespace kvcrumb_compare {

namespace {

//! qserve4 with a transform of its keys.
using row4 = kvcrumb::affine<4, kvcrumb::float16, kvcrumb::qserve_convention>;
using centred_type = kvcrumb::kv_scheme<kvcrumb::composed<row4, kvcrumb::per_row, kvcrumb::mean_center>,
                                        kvcrumb::composed<row4, kvcrumb::per_row>>;

std::vector<float> channel_means(recorded_layer const& layer) {
  std::vector<float> means;
  for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
    for (double const mean : channel_moments_of(head_rows(layer, layer.k, head), layer.head_dim).mean)
      means.push_back(static_cast<float>(mean));
  }
  return means;
}

float nvfp4_scale_of(std::vector<float> const& tensor) {
  float top = 0.0f;
  for (float const x : tensor)
    top = std::max(top, std::fabs(x));
  return kvcrumb::schemes::nvfp4_scale(top);
}

}  // namespace

//! Schemes whose rows are encoded alone; the scale of nvfp4 is that of the layer, as in kvcrumb-compare.
result<decoded_layer> decode_rows(std::string_view name, recorded_layer const& layer,
                                  evaluation_settings const& settings) {
  using namespace kvcrumb;
  auto const with = [&](auto const& scheme) { return decode_as(name, scheme, layer, settings); };
  if (name == "nqkv4") return with(schemes::nqkv4());
  if (name == "qserve4") return with(schemes::qserve4());
  if (name == "q8_0") return with(schemes::q8_0());
  if (name == "q4_0") return with(schemes::q4_0());
  if (name == "turboquant2") return with(schemes::turboquant<2>());
  if (name == "turboquant3") return with(schemes::turboquant<3>());
  if (name == "turboquant4") return with(schemes::turboquant<4>());
  if (name == "saw_int4") return with(schemes::saw_int4());
  if (name == "nvfp4") return with(schemes::nvfp4(nvfp4_scale_of(layer.k), nvfp4_scale_of(layer.v)));
  if (name != "qserve4_centred") return failure{fmt::format("no scheme is named '{}'", name)};
  std::vector<float> const means = channel_means(layer);
  centred_type scheme{.name = "qserve4_centred"};
  scheme.key.transform.means = means.data();
  scheme.key.transform.count = static_cast<std::int64_t>(means.size());
  return with(scheme);
}

}  // namespace kvcrumb_compare
