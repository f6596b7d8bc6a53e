// SPDX-License-Identifier: Apache-2.0
//! @file ThinK: key channels chosen by the last queries and all keys of the recording.
#include <kvcrumb/schemes/think.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

namespace {

//! 40 % of the key channels of each head go. Empty if there is no such choice.
std::vector<std::uint16_t> chosen_channels(layer_request const& r, int kept) {
  using namespace kvcrumb;
  recorded_layer const& rec = *r.calibration;
  auto const n = static_cast<std::size_t>(r.kv_heads);
  std::vector<double> scores(n * static_cast<std::size_t>(r.head_dim));
  std::vector<std::uint16_t> channels(n * static_cast<std::size_t>(kept));
  status s = think_scores(hnd_rows(rec.q.data(), rec.queries, r.head_dim), static_cast<int>(rec.query_heads),
                          rec.queries, hnd_rows(rec.k.data(), rec.tokens, r.head_dim), r.kv_heads, rec.tokens,
                          r.head_dim, std::span<double>(scores));
  if (s == status::ok) s = think_channels(scores, r.kv_heads, r.head_dim, kept, channels);
  if (s != status::ok) channels.clear();
  return channels;
}

}  // namespace

result<std::unique_ptr<kv_layer>> make_think(std::string_view name, layer_request const& r) {
  int const kept = kvcrumb::think_kept(r.head_dim, 0.4);
  auto channels = std::make_shared<std::vector<std::uint16_t>>(chosen_channels(r, kept));
  if (channels->empty()) return failure{fmt::format("{}, layer {}: cannot be calibrated", name, r.layer)};
  kvcrumb::channel_list const keep{channels->data(), r.kv_heads, kept};
  if (name == "think") {
    auto scheme = kvcrumb::schemes::think(keep);
    scheme.flush = {r.window, 1};
    return make_layer(name, scheme, r, channels);
  }
  return with_group(name, r.group, [&](auto group) {
    auto scheme = kvcrumb::schemes::think_kivi<2, group()>(keep);
    scheme.flush = flush_of(r);
    return make_layer(name, scheme, r, channels);
  });
}

}  // namespace kvcrumb_lm
