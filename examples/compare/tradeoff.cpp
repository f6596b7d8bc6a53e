// SPDX-License-Identifier: Apache-2.0
#include "tradeoff.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <kvcrumb/cache/pruned_cache.hpp>
#include <kvcrumb/outlier/importance.hpp>
#include <kvcrumb/schemes/turboquant.hpp>
#include <nlohmann/json.hpp>

#include "evaluate_scheme.hpp"
#include "text.hpp"

namespace kvcrumb_compare {

namespace {

using namespace kvcrumb;

constexpr std::array<std::string_view, 6> scheme_list{"fp16",        "q8_0",        "qserve4",
                                                      "turboquant3", "turboquant2", "kivi2"};

//! A prompt, what the observing queries find important in it, and the queries to judge.
struct judged_layer {
  recorded_layer prompt;          //!< with the queries asked
  exact_layer exact;              //!< of all queries asked, over the prompt
  std::vector<float> importance;  //!< [kv_heads][tokens]
  std::int64_t observed = 0;
};

result<judged_layer> judged(recorded_layer const& layer, tradeoff_settings const& settings) {
  auto const refused = [&](std::string const& why) {
    return failure{fmt::format("--tradeoff, layer {}: {}", layer.number, why)};
  };
  std::int64_t const asked = std::min<std::int64_t>(layer.queries, settings.max_queries);
  if (!layer.has_queries()) return refused("the input holds no queries, and none can be judged");
  if (asked < 2) return refused("needs two queries or more: one half observes, the other is judged");
  if (layer.value_dim != layer.head_dim) return refused("keys and values must have equally many channels");
  auto const first = layer.query_positions.end() - asked;
  if (std::adjacent_find(first, layer.query_positions.end(), std::greater_equal<>{}) !=
      layer.query_positions.end())
    return refused("the positions of the queries must ascend");

  judged_layer j;
  j.observed = asked / 2;
  std::int64_t const tokens = *(first + j.observed) + 1, width = layer.head_dim;
  recorded_layer& p = j.prompt;
  p.number = layer.number;
  p.query_heads = layer.query_heads;
  p.kv_heads = layer.kv_heads;
  p.queries = asked;
  p.tokens = tokens;
  p.head_dim = p.value_dim = width;
  p.query_positions.assign(first, layer.query_positions.end());
  for (std::int64_t head = 0; head < layer.query_heads; ++head) {
    auto const end = layer.q.begin() + (head + 1) * layer.queries * width;
    p.q.insert(p.q.end(), end - asked * width, end);
  }
  for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
    std::int64_t const begin = head * layer.tokens * width, end = begin + tokens * width;
    p.k.insert(p.k.end(), layer.k.begin() + begin, layer.k.begin() + end);
    p.v.insert(p.v.end(), layer.v.begin() + begin, layer.v.begin() + end);
  }
  evaluation_settings all;
  all.max_queries = static_cast<int>(asked);
  j.exact = exact_attention(p, all);

  // the logarithms of weights are logits: they differ by a constant in each row
  std::vector<float> logits;
  for (std::int64_t row = 0; row < p.query_heads * asked; ++row) {
    if (row % asked >= j.observed) continue;
    for (std::int64_t t = 0; t < tokens; ++t)
      logits.push_back(
          static_cast<float>(std::log(j.exact.weights[static_cast<std::size_t>(row * tokens + t)])));
  }
  j.importance.resize(static_cast<std::size_t>(p.kv_heads * tokens));
  recorded_logits const recorded{logits, static_cast<int>(p.query_heads), static_cast<int>(p.kv_heads),
                                 static_cast<int>(j.observed), tokens};
  if (status const s = attention_importance(recorded, {.recent = settings.recent}, j.importance);
      s != status::ok)
    return refused(to_string(s));
  return j;
}

//! bytes_used() of a cache that holds 0, 1, 2, ... tokens of the prompt; whatever they are, they cost the
//! same.
template <class Scheme>
status measure_bytes(Scheme const& scheme, cache_config const& config, recorded_layer const& prompt,
                     std::vector<std::int64_t>& bytes) {
  pruned_cache<Scheme> cache;
  if (status const s = pruned_cache<Scheme>::create(scheme, config, {.capacity = prompt.tokens}, cache);
      s != status::ok)
    return s;
  std::int64_t const width = prompt.head_dim, head = prompt.tokens * width;
  bytes.assign(1, 0);
  for (std::int64_t t = 0; t < prompt.tokens; ++t) {
    rows_view<float const> const k{prompt.k.data() + t * width, head, width};
    rows_view<float const> const v{prompt.v.data() + t * width, head, width};
    if (status const s = cache.append(k, v, 1); s != status::ok) return s;
    bytes.push_back(cache.bytes_used());
  }
  return status::ok;
}

//! Chooses `tokens` tokens, asks the judged queries and adds their errors.
template <class Scheme>
status judge(Scheme const& scheme, cache_config const& config, judged_layer const& j, int recent,
             tradeoff_point& point, std::vector<double>& errors) {
  recorded_layer const& p = j.prompt;
  pruned_cache<Scheme> cache;
  pruning const rule{.capacity = point.tokens, .recent = recent};
  if (status const s = pruned_cache<Scheme>::create(scheme, config, rule, cache); s != status::ok) return s;
  int const heads = static_cast<int>(p.query_heads), width = config.shape.head_dim;
  if (status const s = cache.prefill(hnd_rows(p.k.data(), p.tokens, width),
                                     hnd_rows(p.v.data(), p.tokens, width), p.tokens, j.importance.data());
      s != status::ok)
    return s;
  point.bytes = cache.bytes_used();
  point.bits_per_value = cache.bits_per_value();

  int const queries = static_cast<int>(p.queries - j.observed);
  auto const view = cache.view();
  std::vector<float> output(static_cast<std::size_t>(heads * queries * width));
  std::vector<float> work(static_cast<std::size_t>(attend_workspace(view, heads, queries)));
  rows_view<float const> const q{p.q.data() + j.observed * width, p.queries * width, width};
  attention_options options;
  options.first_query = p.tokens - 1;  // behind it, every query sees the whole prompt
  if (status const s =
          attend(view, q, heads, queries, rows_view<float>{output.data(), queries * width, width}, nullptr,
                 options, std::span<float>(work));
      s != status::ok)
    return s;
  for (std::int64_t row = 0; row < heads * queries; ++row) {
    double const* exact =
        j.exact.output.data() + (row / queries * p.queries + j.observed + row % queries) * width;
    double error = 0.0, norm = 0.0;
    for (std::int64_t d = 0; d < width; ++d) {
      double const e = exact[d] - static_cast<double>(output[static_cast<std::size_t>(row * width + d)]);
      error += e * e;
      norm += exact[d] * exact[d];
    }
    errors.push_back(norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error));
  }
  return status::ok;
}

//! The curve of one scheme.
template <class Scheme>
result<tradeoff_curve> curve_of(Scheme const& scheme, std::string_view name, int tile_tokens,
                                std::vector<judged_layer> const& layers, tradeoff_result const& r,
                                std::function<void()> const& advance) {
  recorded_layer const& first = layers.front().prompt;
  cache_config const config{static_cast<int>(first.kv_heads),
                            {static_cast<int>(first.head_dim), tile_tokens}};
  auto const refused = [&](status s) {
    return failure{fmt::format("--tradeoff, {}: {} (head_dim {}, {} kv heads, tiles of {} tokens)", name,
                               to_string(s), first.head_dim, first.kv_heads, tile_tokens)};
  };
  std::vector<std::int64_t> bytes;
  if (status const s = measure_bytes(scheme, config, first, bytes); s != status::ok) return refused(s);
  tradeoff_curve curve{std::string(name), {}};
  for (std::int64_t const budget : r.budgets) {
    tradeoff_point point;
    point.budget = budget;
    point.budget_bytes = budget * 2 * 2 * first.kv_heads * first.head_dim;
    // not monotone: a full group of exact rows becomes smaller
    for (std::int64_t n = 0; n <= first.tokens; ++n) {
      if (bytes[static_cast<std::size_t>(n)] <= point.budget_bytes) point.tokens = n;
    }
    if (point.tokens <= r.recent) {
      return failure{fmt::format("--tradeoff, {}: the bytes of {} fp16 tokens hold only {} tokens; {} recent "
                                 "ones and one more must fit",
                                 name, budget, point.tokens, r.recent)};
    }
    std::vector<double> errors;
    for (judged_layer const& layer : layers) {
      if (status const s = judge(scheme, config, layer, r.recent, point, errors); s != status::ok)
        return refused(s);
      advance();
    }
    double sum = 0.0;
    for (double const e : errors)
      sum += e;
    point.output_rel_l2_mean = sum / static_cast<double>(errors.size());
    curve.points.push_back(point);
  }
  return curve;
}

result<tradeoff_curve> named_curve(std::string_view name, std::vector<judged_layer> const& layers,
                                   tradeoff_result const& r, std::function<void()> const& advance) {
  constexpr int tile = 32;
  auto const with = [&](auto scheme, int block) {
    scheme.flush = {r.recent, block};
    return curve_of(scheme, name, std::max(tile, block), layers, r, advance);
  };
  if (name == "fp16") return with(schemes::fp16(), 0);  // rows as they are, no tiles
  if (name == "q8_0") return with(schemes::q8_0(), tile);
  if (name == "qserve4") return with(schemes::qserve4(), tile);
  if (name == "turboquant3") return with(schemes::turboquant<3>(), tile);
  if (name == "turboquant2") return with(schemes::turboquant<2>(), tile);
  result<tradeoff_curve> curve =
      failure{fmt::format("--tradeoff has no scheme '{}'; there are {}", name, fmt::join(scheme_list, " "))};
  if (name != "kivi2") return curve;
  curve = failure{fmt::format("kivi2: no groups of {} tokens; there are 16, 32, 64, 128", r.group)};
  with_group(r.group, [&](auto group) { curve = with(schemes::kivi<2, group()>(), group()); });
  return curve;
}

}  // namespace

std::span<std::string_view const> tradeoff_schemes() { return scheme_list; }

result<tradeoff_result> measure_tradeoff(recorded_layers const& recorded,
                                         std::span<std::string const> schemes,
                                         tradeoff_settings const& settings,
                                         std::function<void()> const& advance) {
  std::vector<judged_layer> layers;
  for (recorded_layer const& layer : recorded.layers) {
    auto j = judged(layer, settings);
    if (!j) return failure{j.error};
    if (!layers.empty() && layers.front().prompt.tokens != j->prompt.tokens)
      return failure{fmt::format("--tradeoff, layer {}: its queries stand elsewhere than those of layer {}",
                                 layer.number, layers.front().prompt.number)};
    layers.push_back(std::move(*j));
  }
  if (layers.empty()) return failure{"--tradeoff: the input holds no layer"};
  recorded_layer const& first = layers.front().prompt;
  tradeoff_result r;
  r.prompt = first.tokens;
  r.observed = layers.front().observed;
  r.judged = first.queries - r.observed;
  r.recent = settings.recent;
  r.group = settings.group > 0 ? settings.group : settings_for(r.prompt).group;
  r.budgets = settings.budgets;
  for (std::int64_t const budget : {32, 64, 128, 256}) {
    if (settings.budgets.empty() && budget < r.prompt) r.budgets.push_back(budget);
  }
  if (r.budgets.empty()) {
    return failure{fmt::format("--tradeoff: too short: {} tokens up to the first judged query, and the "
                               "smallest budget is the bytes of 32 (--budgets takes others)",
                               r.prompt)};
  }
  if (r.prompt <= r.recent) {
    return failure{fmt::format("--tradeoff: too short: {} tokens up to the first judged query, of which the "
                               "newest {} are always held",
                               r.prompt, r.recent)};
  }
  std::sort(r.budgets.begin(), r.budgets.end());
  r.budgets.erase(std::unique(r.budgets.begin(), r.budgets.end()), r.budgets.end());
  constexpr std::int64_t most = 1 << 20;
  if (r.budgets.front() < 1 || r.budgets.back() > most)
    return failure{fmt::format("--tradeoff: budgets are numbers of tokens from 1 to {}", most)};
  for (std::string const& name : schemes) {
    auto curve = named_curve(name, layers, r, advance);
    if (!curve) return failure{curve.error};
    r.curves.push_back(std::move(*curve));
  }
  return r;
}

std::string tradeoff_text(std::string_view input, tradeoff_result const& r) {
  std::string out = fmt::format(
      "{}\n{} tokens to choose from by {} observing queries a head, {} judged; the newest {} held and exact; "
      "kivi2 in groups of {}\n\n{:<11}",
      printable(input, 400), r.prompt, r.observed, r.judged, r.recent, r.group, "bytes of");
  for (std::int64_t const budget : r.budgets)
    out += fmt::format("  {:>20}", fmt::format("{} fp16 tokens", budget));
  out += fmt::format("\n{:<11}", "scheme");
  for (std::size_t i = 0; i < r.budgets.size(); ++i)
    out += fmt::format("  {:>13} {:>6}", "held x bits", "error");
  out += "\n";
  for (tradeoff_curve const& curve : r.curves) {
    out += fmt::format("{:<11}", curve.scheme);
    for (tradeoff_point const& p : curve.points)
      out += fmt::format("  {:>13} {:>6.4f}", fmt::format("{} x {:.2f}", p.tokens, p.bits_per_value),
                         p.output_rel_l2_mean);
    out += "\n";
  }
  out +=
      "\nheld: tokens per kv head; bits: per value held, positions and exact rows included; error: of the\n"
      "attention output, relative L2 against exact attention over all tokens, mean.\n";
  return out;
}

std::string tradeoff_json(std::string_view input, tradeoff_result const& r) {
  using json = nlohmann::ordered_json;
  json root{{"input", printable(input, 4000)},
            {"prompt", r.prompt},
            {"observed", r.observed},
            {"judged", r.judged},
            {"recent", r.recent},
            {"group", r.group}};
  root["curves"] = json::array();
  for (tradeoff_curve const& curve : r.curves) {
    json points = json::array();
    for (tradeoff_point const& p : curve.points) {
      double const error = p.output_rel_l2_mean;
      points.push_back({{"budget", p.budget},
                        {"budget_bytes", p.budget_bytes},
                        {"tokens", p.tokens},
                        {"bytes", p.bytes},
                        {"bits_per_value", p.bits_per_value},
                        {"output_rel_l2_mean", std::isfinite(error) ? json(error) : json(nullptr)}});
    }
    root["curves"].push_back({{"scheme", curve.scheme}, {"points", std::move(points)}});
  }
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace kvcrumb_compare
