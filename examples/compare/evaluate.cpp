// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include <kvcrumb/reference/attention.hpp>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

constexpr std::array<scheme_entry, 8> entries{{
    {"fp16", "full precision, the baseline"},
    {"kivi2", "KIVI (arXiv 2402.02750), 2 bits: keys per channel, values per token"},
    {"kivi4", "KIVI, 4 bits"},
    {"ott2",
     "outlier-token tracing (arXiv 2505.10938): KIVI's 2 bits, the smallest keys kept exact and masked"},
    {"nqkv4", "NQKV (arXiv 2505.16210): NF4 blocks of 256 channels of a token"},
    {"qserve4", "QServe KV4 (arXiv 2405.04532): 4 bits with scale and zero point per token and head"},
    {"q8_0", "ggml q8_0 blocks of 32"},
    {"q4_0", "ggml q4_0 blocks of 32"},
}};

constexpr std::array<evaluate_function*, 8> functions{evaluate_rows, evaluate_kivi2, evaluate_kivi4,
                                                      evaluate_ott2, evaluate_rows,  evaluate_rows,
                                                      evaluate_rows, evaluate_rows};

std::string_view canonical(std::string_view name) { return name == "sinkq" ? "ott2" : name; }

}  // namespace

std::span<scheme_entry const> known_schemes() { return entries; }

scheme_entry const* find_scheme(std::string_view name) {
  auto const at =
      std::find_if(entries.begin(), entries.end(), [&](auto const& e) { return e.name == canonical(name); });
  return at == entries.end() ? nullptr : &*at;
}

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

result<scheme_result> evaluate(std::string_view scheme, recorded_layers const& recorded,
                               std::span<exact_layer const> exact, evaluation_settings const& settings,
                               std::function<void()> const& advance) {
  scheme_entry const* entry = find_scheme(scheme);
  if (entry == nullptr) return failure{fmt::format("no scheme is named '{}'", scheme)};
  for (recorded_layer const& layer : recorded.layers) {
    if (layer.value_dim != layer.head_dim) {
      return failure{fmt::format("layer {}: keys have {} channels and values {}; they must be equal",
                                 layer.number, layer.head_dim, layer.value_dim)};
    }
  }
  auto r = functions[static_cast<std::size_t>(entry - entries.data())](entry->name, recorded, exact, settings,
                                                                       advance);
  if (r) r->scheme = scheme;
  return r;
}

}  // namespace kvcrumb_compare
