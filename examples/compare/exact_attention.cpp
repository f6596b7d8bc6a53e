// SPDX-License-Identifier: Apache-2.0
//! @file What evaluations of all schemes share: settings, norms of keys, attention on the exact rows.
#include <algorithm>
#include <cmath>

#include <kvcrumb/reference/attention.hpp>

#include "evaluate.hpp"

namespace kvcrumb_compare {

evaluation_settings settings_for(std::int64_t tokens) {
  evaluation_settings s;
  s.group = tokens >= 512 ? 128 : tokens >= 256 ? 64 : tokens >= 128 ? 32 : 16;
  s.window = tokens >= 128 ? 32 : 0;
  s.tile_tokens = std::max(32, s.group);
  return s;
}

std::vector<double> key_norms(recorded_layer const& layer, std::int64_t head) {
  std::vector<double> norms(static_cast<std::size_t>(layer.tokens), 0.0);
  for (std::int64_t token = 0; token < layer.tokens; ++token) {
    float const* row = layer.k.data() + (head * layer.tokens + token) * layer.head_dim;
    for (std::int64_t d = 0; d < layer.head_dim; ++d)
      norms[static_cast<std::size_t>(token)] += std::fabs(row[d]);
  }
  return norms;
}

exact_layer exact_attention(recorded_layer const& layer, evaluation_settings const& settings) {
  exact_layer exact;
  exact.queries = std::min<std::int64_t>(layer.queries, settings.max_queries);
  if (exact.queries == 0) return exact;
  exact.positions.assign(layer.query_positions.end() - exact.queries, layer.query_positions.end());
  std::vector<double> queries;
  for (std::int64_t head = 0; head < layer.query_heads; ++head) {
    auto const begin = layer.q.begin() + ((head + 1) * layer.queries - exact.queries) * layer.head_dim;
    queries.insert(queries.end(), begin, begin + exact.queries * layer.head_dim);
  }
  std::vector<double> const keys(layer.k.begin(), layer.k.end()), values(layer.v.begin(), layer.v.end());
  std::vector<std::int64_t> positions(static_cast<std::size_t>(layer.tokens));
  for (std::size_t i = 0; i < positions.size(); ++i)
    positions[i] = static_cast<std::int64_t>(i);
  kvcrumb::reference::grouped_attention_input input;
  input.queries = queries;
  input.keys = keys;
  input.values = values;
  input.query_positions = exact.positions;
  input.key_positions = positions;
  input.query_heads = static_cast<std::size_t>(layer.query_heads);
  input.kv_heads = static_cast<std::size_t>(layer.kv_heads);
  input.key_dim = static_cast<std::size_t>(layer.head_dim);
  input.value_dim = input.key_dim;
  kvcrumb::reference::attention_arguments arguments;
  arguments.softmax_scale = 1.0 / std::sqrt(static_cast<double>(layer.head_dim));
  auto result = kvcrumb::reference::attend_grouped(input, arguments);
  exact.output = std::move(result.output);
  exact.weights = std::move(result.weights);
  return exact;
}

}  // namespace kvcrumb_compare
