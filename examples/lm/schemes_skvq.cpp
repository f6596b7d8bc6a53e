// SPDX-License-Identifier: Apache-2.0
//! @file SKVQ with plans from the recording: groups of 32 channels on average.
#include <kvcrumb/calibrate/skvq.hpp>
#include <kvcrumb/schemes/skvq.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

namespace {

//! Queries per head that the calibration looks at, the last ones; its cost grows with them.
constexpr std::int64_t calibration_queries = 16;

struct plans {
  kvcrumb::skvq_parameters keys, values;
};

template <class MakePreset>
result<std::unique_ptr<kv_layer>> make(std::string_view name, layer_request const& r, MakePreset preset) {
  using namespace kvcrumb;
  using scheme_type = decltype(preset(channel_plan{}, channel_plan{}));
  recorded_layer const& rec = *r.calibration;
  auto p = std::make_shared<plans>();
  skvq_recording in{hnd_rows(rec.k.data(), rec.tokens, r.head_dim),
                    hnd_rows(rec.v.data(), rec.tokens, r.head_dim), r.kv_heads, rec.tokens, r.head_dim};
  in.queries = std::min(rec.queries, calibration_queries);
  in.q = {rec.q.data() + (rec.queries - in.queries) * r.head_dim, rec.queries * r.head_dim, r.head_dim};
  in.query_heads = static_cast<int>(rec.query_heads);
  skvq_settings how;
  how.groups = std::max(1, r.head_dim / 32);
  how.clips = {0.4f, 15};
  how.sinks = std::min<std::int64_t>(how.sinks, rec.tokens - 1);
  if (status const s = calibrate_skvq<scheme_type>(in, how, p->keys, p->values); s != status::ok)
    return failure{fmt::format("{}, layer {}: cannot be calibrated: {}", name, r.layer, to_string(s))};
  scheme_type scheme = preset(p->keys.plan(), p->values.plan());
  scheme.flush = {r.window, 1};
  return make_layer(name, scheme, r, p);
}

}  // namespace

result<std::unique_ptr<kv_layer>> make_skvq(std::string_view name, layer_request const& r) {
  if (name == "skvq_k2v15")
    return make(name, r, [](auto k, auto v) { return kvcrumb::schemes::skvq_k2v15(k, v); });
  return make(name, r, [](auto k, auto v) { return kvcrumb::schemes::skvq2(k, v); });
}

}  // namespace kvcrumb_lm
