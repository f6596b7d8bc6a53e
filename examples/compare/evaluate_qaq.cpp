// SPDX-License-Identifier: Apache-2.0
#include <kvcrumb/outlier/importance.hpp>
#include <kvcrumb/schemes/qaq.hpp>

#include "evaluate_scheme.hpp"
#include "qaq_targets.hpp"

namespace kvcrumb_compare {

namespace {

using namespace kvcrumb;

//! The recorded queries, one call each.
struct recorded_queries {
  recorded_layer const& layer;
  exact_layer const& exact;
  std::vector<float> output, logits;

  recorded_queries(recorded_layer const& l, exact_layer const& e)
      : layer(l),
        exact(e),
        output(static_cast<std::size_t>(l.query_heads * e.queries * l.head_dim)),
        logits(static_cast<std::size_t>(l.query_heads * e.queries * l.tokens)) {}

  //! Fills `output` and, if asked, `logits`.
  status ask(qaq_cache<> const& cache, bool traced) {
    int const heads = static_cast<int>(layer.query_heads), width = static_cast<int>(layer.head_dim);
    std::vector<float> work(static_cast<std::size_t>(cache.workspace(heads, 1)));
    if (traced) std::fill(logits.begin(), logits.end(), -std::numeric_limits<float>::infinity());
    for (std::int64_t i = 0; i < exact.queries; ++i) {
      std::int64_t const row = layer.queries - exact.queries + i;
      rows_view<float const> const q{layer.q.data() + row * width, layer.queries * width, width};
      rows_view<float> const o{output.data() + i * width, exact.queries * width, width};
      attention_options options;
      options.first_query = exact.positions[static_cast<std::size_t>(i)];
      struct one_query {
        logit_recorder all;
        int query;
        void on_score(score_coordinate c, float logit) const {
          c.query = query;
          all.on_score(c, logit);
        }
      };
      one_query const tracer{{logits.data(), static_cast<int>(exact.queries), layer.tokens},
                             static_cast<int>(i)};
      status const s = traced ? cache.attend(q, heads, 1, o, nullptr, options, std::span<float>(work), tracer)
                              : cache.attend(q, heads, 1, o, nullptr, options, std::span<float>(work));
      if (s != status::ok) return s;
    }
    return status::ok;
  }
};

//! One layer: exact rows, attention statistics of the recorded queries, widths, then the same queries again.
status evaluate_qaq_layer(recorded_layer const& layer, exact_layer const& exact,
                          evaluation_settings const& settings, tally& t) {
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  qaq_options const options = qaq_targets(std::min(settings.window, 4));
  qaq_cache<> cache;
  if (status const s = qaq_cache<>::create(options, {heads, {width, 32}}, cache); s != status::ok) return s;
  if (status const s = cache.append(hnd_rows(layer.k.data(), layer.tokens, width),
                                    hnd_rows(layer.v.data(), layer.tokens, width), layer.tokens);
      s != status::ok)
    return s;
  recorded_queries queries(layer, exact);
  std::vector<float> attention(static_cast<std::size_t>(heads * layer.tokens),
                               1.0f);  // unknown: the most careful
  if (exact.queries > 0) {
    if (status const s = queries.ask(cache, true); s != status::ok) return s;
    recorded_logits const logits{queries.logits, static_cast<int>(layer.query_heads), heads,
                                 static_cast<int>(exact.queries), layer.tokens};
    if (status const s = largest_attention(logits, attention); s != status::ok) return s;
  }
  auto start = std::chrono::steady_clock::now();
  if (status const s = cache.compress(attention); s != status::ok) return s;
  t.encode_seconds += seconds_since(start);
  t.bytes += cache.bytes_used();
  t.values += 2 * layer.tokens * heads * width;
  std::vector<float> key(static_cast<std::size_t>(width)), value(key.size());
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t token = 0; token < layer.tokens; ++token) {
      if (status const s = cache.read(head, token, key.data(), value.data()); s != status::ok) return s;
      std::int64_t const at = (head * layer.tokens + token) * width;
      t.keys.add(layer.k.data() + at, key.data(), width);
      t.values_error.add(layer.v.data() + at, value.data(), width);
    }
  }
  if (exact.queries == 0) return status::ok;
  start = std::chrono::steady_clock::now();
  if (status const s = queries.ask(cache, false); s != status::ok) return s;
  t.attend_seconds += seconds_since(start);
  if (status const s = queries.ask(cache, true); s != status::ok) return s;
  compare_attention(layer, exact, queries.output, {queries.logits.begin(), queries.logits.end()}, t);
  return status::ok;
}

}  // namespace

result<scheme_result> evaluate_qaq(std::string_view name, recorded_layers const& recorded,
                                   std::span<exact_layer const> exact, evaluation_settings const& settings,
                                   std::function<void()> const& advance) {
  tally t;
  for (std::size_t i = 0; i < recorded.layers.size(); ++i) {
    recorded_layer const& layer = recorded.layers[i];
    if (status const s = evaluate_qaq_layer(layer, exact[i], settings, t); s != status::ok) {
      return failure{fmt::format("{}, layer {}: {} (head_dim {}, {} kv heads)", name, layer.number,
                                 to_string(s), layer.head_dim, layer.kv_heads)};
    }
    advance();
  }
  return summary(name, std::move(t));
}

}  // namespace kvcrumb_compare
