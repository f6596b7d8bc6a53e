// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/calibrate/skvq.hpp>
#include <kvcrumb/schemes/skvq.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

//! Queries per head that a calibration looks at; its cost grows with them.
constexpr std::int64_t calibration_queries = 16;

//! Plans of a layer from its own rows and, where these stand at its last tokens, its last queries. Groups of
//! 32 channels on average (of settings.group, if that is less). Plans that calibration refuses to make are
//! refused by the cache too.
template <class Scheme>
void calibrate(recorded_layer const& layer, evaluation_settings const& settings,
               kvcrumb::skvq_parameters& keys, kvcrumb::skvq_parameters& values) {
  using namespace kvcrumb;
  int const width = static_cast<int>(layer.head_dim);
  skvq_recording in{hnd_rows(layer.k.data(), layer.tokens, width),
                    hnd_rows(layer.v.data(), layer.tokens, width), static_cast<int>(layer.kv_heads),
                    layer.tokens, width};
  std::int64_t const queries = std::min(layer.queries, calibration_queries);
  bool last = queries > 0;
  for (std::int64_t i = 0; i < queries; ++i) {
    auto const at = static_cast<std::size_t>(layer.queries - queries + i);
    last = last && layer.query_positions[at] == layer.tokens - queries + i;
  }
  if (last) {
    in.q = {layer.q.data() + (layer.queries - queries) * width, layer.queries * width, width};
    in.query_heads = static_cast<int>(layer.query_heads);
    in.queries = queries;
  }
  skvq_settings how;
  how.groups = std::max(1, width / std::min(settings.group, 32));
  how.clips = {0.4f, 15};
  how.sinks = std::min<std::int64_t>(how.sinks, layer.tokens - 1);
  if (calibrate_skvq<Scheme>(in, how, keys, values) != status::ok) keys.groups = values.groups = -1;
}

}  // namespace

result<scheme_result> evaluate_skvq(std::string_view name, recorded_layers const& recorded,
                                    std::span<exact_layer const> exact, evaluation_settings const& settings,
                                    std::function<void()> const& advance) {
  kvcrumb::skvq_parameters keys, values;
  auto const with = [&](auto make_preset) {
    using scheme_type = decltype(make_preset(keys.plan(), values.plan()));
    return evaluate_scheme(
        name,
        [&](recorded_layer const& layer) {
          calibrate<scheme_type>(layer, settings, keys, values);
          scheme_type scheme = make_preset(keys.plan(), values.plan());
          scheme.flush = {settings.window, 1};
          return scheme;
        },
        recorded, exact, settings, advance);
  };
  if (name == "skvq_k2v15") {
    return with([](auto k, auto v) { return kvcrumb::schemes::skvq_k2v15(k, v); });
  }
  return with([](auto k, auto v) { return kvcrumb::schemes::skvq2(k, v); });
}

}  // namespace kvcrumb_compare
