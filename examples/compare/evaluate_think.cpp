// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/schemes/think.hpp>

#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

namespace {

//! 40 % of the key channels of a layer, chosen by its own last 32 recorded queries and all of its keys, as at
//! the end of a prompt; by the keys alone where the file has no queries. Empty if the layer has no such
//! choice.
std::vector<std::uint16_t> chosen_channels(recorded_layer const& layer) {
  using namespace kvcrumb;
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  int const kept = think_kept(width, 0.4);
  std::vector<float> const ones(static_cast<std::size_t>(heads * width), 1.0f);
  bool const asked = layer.has_queries();
  std::int64_t const queries = asked ? layer.queries : 1;
  std::vector<double> scores(ones.size());
  std::vector<std::uint16_t> channels(static_cast<std::size_t>(heads * kept));
  status s = think_scores(hnd_rows(asked ? layer.q.data() : ones.data(), queries, width),
                          asked ? static_cast<int>(layer.query_heads) : heads, queries,
                          hnd_rows(layer.k.data(), layer.tokens, width), heads, layer.tokens, width,
                          std::span<double>(scores));
  if (s == status::ok) s = think_channels(scores, heads, width, kept, channels);
  if (s != status::ok) channels.clear();
  return channels;
}

}  // namespace

//! "think" (fp16 channels) and "think_kivi2"; both with the window of the other schemes.
result<scheme_result> evaluate_think(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  std::vector<std::uint16_t> channels;  // the scheme of the present layer points to them
  auto const keep_of = [&](recorded_layer const& layer) {
    channels = chosen_channels(layer);
    int const heads = static_cast<int>(layer.kv_heads);
    return kvcrumb::channel_list{channels.empty() ? nullptr : channels.data(), heads,
                                 static_cast<int>(channels.size()) / heads};
  };
  if (name == "think") {
    auto const make = [&](recorded_layer const& layer) {
      auto scheme = kvcrumb::schemes::think(keep_of(layer));
      scheme.flush = {settings.window, 1};
      return scheme;
    };
    return evaluate_scheme(name, make, recorded, exact, settings, advance);
  }
  result<scheme_result> r = no_such_group(name, settings.group);
  with_group(settings.group, [&](auto group) {
    auto const make = [&](recorded_layer const& layer) {
      auto scheme = kvcrumb::schemes::think_kivi<2, group()>(keep_of(layer));
      scheme.flush = {settings.window, group()};
      return scheme;
    };
    r = evaluate_scheme(name, make, recorded, exact, settings, advance);
  });
  return r;
}

}  // namespace kvcrumb_compare
