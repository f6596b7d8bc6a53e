// SPDX-License-Identifier: Apache-2.0
//! @file evaluate_scheme: the same evaluation for any kv_scheme.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/format.h>
#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/reference/metrics.hpp>

#include "evaluate.hpp"
#include "picture.hpp"

namespace kvcrumb_compare {

//! Collects the logits that attention really used, [query_heads][queries][tokens].
struct logit_tracer {
  std::vector<double>& logits;
  std::int64_t queries;
  std::int64_t tokens;

  void on_score(kvcrumb::score_coordinate c, float logit) const {
    logits[static_cast<std::size_t>((c.query_head * queries + c.query) * tokens + c.token)] = logit;
  }
};

//! Sums of squares for a relative error.
struct error_sum {
  double error = 0.0, value = 0.0;
  void add(float const* exact, float const* approximate, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      double const e = static_cast<double>(exact[i]) - static_cast<double>(approximate[i]);
      error += e * e;
      value += static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
    }
  }
  double relative() const { return value > 0.0 ? std::sqrt(error / value) : std::sqrt(error); }
};

//! Everything gathered over the layers of one scheme.
struct tally {
  std::int64_t bytes = 0, values = 0;
  bool decodes = true;  //!< keys and values can be read back
  error_sum keys, values_error;
  std::vector<double> output_errors, divergences;
  std::int64_t agreements = 0;
  double encode_seconds = 0.0, attend_seconds = 0.0;
  std::vector<traced_token> traced;
};

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

//! Exact and approximate results of one layer's queries.
inline void compare_attention(recorded_layer const& layer, exact_layer const& exact,
                              std::vector<float> const& output, std::vector<double> const& logits, tally& t) {
  auto const width = static_cast<std::size_t>(layer.head_dim),
             tokens = static_cast<std::size_t>(layer.tokens);
  std::size_t const rows = static_cast<std::size_t>(layer.query_heads * exact.queries);
  for (std::size_t row = 0; row < rows; ++row) {
    double error = 0.0, norm = 0.0;
    for (std::size_t d = 0; d < width; ++d) {
      double const e = exact.output[row * width + d] - static_cast<double>(output[row * width + d]);
      error += e * e;
      norm += exact.output[row * width + d] * exact.output[row * width + d];
    }
    t.output_errors.push_back(norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error));

    double const* p = exact.weights.data() + row * tokens;
    double const* l = logits.data() + row * tokens;
    double const top = *std::max_element(l, l + tokens);
    double sum = 0.0;
    for (std::size_t i = 0; i < tokens; ++i)
      sum += std::exp(l[i] - top);
    double divergence = 0.0;
    for (std::size_t i = 0; i < tokens; ++i) {
      if (p[i] > 0.0) divergence += p[i] * (std::log(p[i]) - (l[i] - top - std::log(sum)));
    }
    t.divergences.push_back(std::max(divergence, 0.0));
    t.agreements += std::max_element(p, p + tokens) - p == std::max_element(l, l + tokens) - l ? 1 : 0;
  }
}

//! Runs the recorded queries through the packed cache. One call where the positions are consecutive, else one
//! a query.
template <class Scheme>
kvcrumb::status ask(kvcrumb::kv_cache<Scheme> const& cache, recorded_layer const& layer,
                    exact_layer const& exact, tally& t) {
  using namespace kvcrumb;
  int const heads = static_cast<int>(layer.query_heads), width = static_cast<int>(layer.head_dim);
  std::int64_t const queries = exact.queries, first_row = layer.queries - queries;
  std::vector<float> output(static_cast<std::size_t>(heads * queries * width));
  std::vector<double> logits(static_cast<std::size_t>(heads * queries * layer.tokens),
                             -std::numeric_limits<double>::infinity());
  bool const consecutive =
      std::adjacent_find(exact.positions.begin(), exact.positions.end(),
                         [](auto a, auto b) { return b != a + 1; }) == exact.positions.end();
  std::int64_t const step = consecutive ? queries : 1;
  auto const view = cache.view();
  std::vector<float> work(static_cast<std::size_t>(attend_workspace(view, heads, static_cast<int>(step))));
  logit_tracer const all{logits, queries, layer.tokens};
  for (int pass = 0; pass < 2; ++pass) {  // timed without a tracer, then traced
    auto const start = std::chrono::steady_clock::now();
    for (std::int64_t q = 0; q < queries; q += step) {
      rows_view<float const> const in{layer.q.data() + (first_row + q) * width, layer.queries * width, width};
      rows_view<float> const out{output.data() + q * width, queries * width, width};
      attention_options options;
      options.first_query = exact.positions[static_cast<std::size_t>(q)];
      status s;
      if (pass == 0) {
        s = attend(view, in, heads, static_cast<int>(step), out, nullptr, options, std::span<float>(work));
      } else {
        struct shifted {
          logit_tracer const& all;
          std::int64_t first;
          void on_score(score_coordinate c, float logit) const {
            c.query += static_cast<int>(first);
            all.on_score(c, logit);
          }
        };
        s = attend(view, in, heads, static_cast<int>(step), out, nullptr, options, std::span<float>(work),
                   shifted{all, q});
      }
      if (s != status::ok) return s;
    }
    if (pass == 0) t.attend_seconds += seconds_since(start);
  }
  compare_attention(layer, exact, output, logits, t);
  return status::ok;
}

//! Whether keys and values can be read back; a sketch of the keys cannot.
template <class Scheme>
inline constexpr bool readable =
    kvcrumb::decodable<typename Scheme::key_type>&& kvcrumb::decodable<typename Scheme::value_type>;

//! One layer: prefill, errors, isolated tokens, attention.
template <class Scheme>
kvcrumb::status evaluate_layer(Scheme const& scheme, recorded_layer const& layer, exact_layer const& exact,
                               evaluation_settings const& settings, tally& t) {
  using namespace kvcrumb;
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  kv_cache<Scheme> cache;
  if (status const s = kv_cache<Scheme>::create(scheme, {heads, {width, settings.tile_tokens}}, cache);
      s != status::ok) {
    return s;
  }
  auto const start = std::chrono::steady_clock::now();
  if (status const s = cache.prefill(hnd_rows(layer.k.data(), layer.tokens, width),
                                     hnd_rows(layer.v.data(), layer.tokens, width), layer.tokens);
      s != status::ok) {
    return s;
  }
  t.encode_seconds += seconds_since(start);
  t.bytes += cache.bytes_used();
  t.values += 2 * layer.tokens * heads * width;

  std::vector<float> key(static_cast<std::size_t>(width)), value(key.size());
  t.decodes = t.decodes && readable<Scheme>;
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t token = 0; readable<Scheme> && token < layer.tokens; ++token) {
      if constexpr (readable<Scheme>) {
        if (status const s = cache.read(head, token, key.data(), value.data()); s != status::ok) return s;
      }
      std::int64_t const at = (head * layer.tokens + token) * width;
      t.keys.add(layer.k.data() + at, key.data(), width);
      t.values_error.add(layer.v.data() + at, value.data(), width);
    }
    if (cache.pool(head).empty()) continue;
    std::vector<double> const norms = key_norms(layer, head);
    double const middle = median(norms);
    std::vector<scored_token> pool(cache.pool(head).begin(), cache.pool(head).end());
    std::sort(pool.begin(), pool.end(), [](auto a, auto b) { return a.position < b.position; });
    for (scored_token const& token : pool) {
      double const norm = norms[static_cast<std::size_t>(token.position)];
      t.traced.push_back({layer.number, head, token.position, middle > 0.0 ? norm / middle : 0.0});
    }
  }
  return exact.queries > 0 ? ask(cache, layer, exact, t) : status::ok;
}

//! What a scheme did to all layers.
inline scheme_result summary(std::string_view name, tally t) {
  scheme_result r;
  r.scheme = name;
  r.bits_per_value = 8.0 * static_cast<double>(t.bytes) / static_cast<double>(t.values);
  r.compression = 16.0 / r.bits_per_value;
  if (t.decodes) {
    r.k_rel_l2 = t.keys.relative();
    r.v_rel_l2 = t.values_error.relative();
  }
  r.traced_tokens = std::move(t.traced);
  r.encode_ms = 1e3 * t.encode_seconds;
  if (!t.output_errors.empty()) {
    auto const mean = [](std::vector<double> const& x) {
      double sum = 0.0;
      for (double const v : x)
        sum += v;
      return sum / static_cast<double>(x.size());
    };
    r.output_rel_l2_mean = mean(t.output_errors);
    r.output_rel_l2_p99 = kvcrumb::reference::percentile(t.output_errors, 99.0);
    r.attention_kl_mean = mean(t.divergences);
    r.top1_agreement = static_cast<double>(t.agreements) / static_cast<double>(t.output_errors.size());
    r.attend_ms = 1e3 * t.attend_seconds;
  }
  return r;
}

//! All layers of one scheme; `make` gives the scheme of a layer, from its number or (methods that calibrate)
//! from the recorded layer. What such a scheme points to must live until the next call.
template <class Make>
result<scheme_result> evaluate_scheme(std::string_view name, Make make, recorded_layers const& recorded,
                                      std::span<exact_layer const> exact, evaluation_settings const& settings,
                                      std::function<void()> const& advance) {
  tally t;
  for (std::size_t i = 0; i < recorded.layers.size(); ++i) {
    recorded_layer const& layer = recorded.layers[i];
    auto const scheme = [&] {
      if constexpr (std::is_invocable_v<Make, recorded_layer const&>) {
        return make(layer);
      } else {
        return make(layer.number);
      }
    }();
    if (kvcrumb::status const s = evaluate_layer(scheme, layer, exact[i], settings, t);
        s != kvcrumb::status::ok) {
      return failure{fmt::format(
          "{}, layer {}: {} (head_dim {}, {} kv heads, groups of {}, tiles of {} tokens)", name, layer.number,
          to_string(s), layer.head_dim, layer.kv_heads, settings.group, settings.tile_tokens)};
    }
    advance();
  }
  return summary(name, std::move(t));
}

//! Calls f(integral_constant<int, group>) for the groups that are compiled in; false for any other.
template <class F>
bool with_group(int group, F f) {
  switch (group) {
    case 16: return f(std::integral_constant<int, 16>{}), true;
    case 32: return f(std::integral_constant<int, 32>{}), true;
    case 64: return f(std::integral_constant<int, 64>{}), true;
    case 128: return f(std::integral_constant<int, 128>{}), true;
    default: return false;
  }
}

using evaluate_function = result<scheme_result>(std::string_view, recorded_layers const&,
                                                std::span<exact_layer const>, evaluation_settings const&,
                                                std::function<void()> const&);
evaluate_function evaluate_crumb2, evaluate_decoquant, evaluate_fp4, evaluate_kitty, evaluate_kivi2,
    evaluate_kivi4, evaluate_kvarn, evaluate_kvquant, evaluate_layers, evaluate_oscar, evaluate_ott2,
    evaluate_qaq, evaluate_qjl, evaluate_rows, evaluate_skvq, evaluate_think, evaluate_turboquant,
    evaluate_wkvquant;

}  // namespace kvcrumb_compare
