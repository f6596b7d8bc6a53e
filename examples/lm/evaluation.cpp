// SPDX-License-Identifier: Apache-2.0
//! @file evaluation: see evaluation.hpp.
#include "evaluation.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace kvcrumb_lm {
namespace {

constexpr int base_chunk = 64;  // an fp16 cache holds the same for any
constexpr std::int64_t logit_rows = 64;

// One window through one cache.
struct reader {
  sequence of;
  std::vector<int> const* tokens = nullptr;
  std::size_t read = 0;
  double bytes = 0.0, token_steps = 0.0;  // held, summed over the steps
};

// What the row of a token is good for.
using row_function =
    std::function<void(std::size_t reader, std::int64_t position, std::span<float> log_probabilities)>;

// Lets all readers read their windows in steps; every row that predicts a token of its window is given to
// `use`, on any thread.
std::string read_all(model const& m, std::vector<reader>& readers, int chunk, workers& threads,
                     row_function const& use, std::string_view label, progress_function const& progress) {
  activations a;
  std::vector<float> logits(static_cast<std::size_t>(logit_rows * m.config.vocabulary));
  double all = 0.0, done = 0.0;
  for (reader const& r : readers)
    all += static_cast<double>(r.tokens->size());
  struct place {
    std::size_t reader;
    std::int64_t position;
  };
  for (;;) {
    std::vector<step> steps;
    std::vector<place> places;
    for (std::size_t i = 0; i < readers.size(); ++i) {
      reader& r = readers[i];
      std::size_t const n = std::min(static_cast<std::size_t>(chunk), r.tokens->size() - r.read);
      if (n == 0) continue;
      steps.push_back({&r.of, std::span<int const>(*r.tokens).subspan(r.read, n)});
      for (std::size_t t = 0; t < n; ++t)
        places.push_back({i, static_cast<std::int64_t>(r.read + t)});
      r.read += n;
    }
    if (steps.empty()) return {};
    if (std::string error = forward(m, steps, a, threads); !error.empty()) return error;
    for (reader& r : readers) {
      r.bytes += static_cast<double>(r.of.bytes());
      r.token_steps += static_cast<double>(r.of.tokens());
    }
    for (std::int64_t begin = 0; begin < static_cast<std::int64_t>(places.size()); begin += logit_rows) {
      std::int64_t const n = std::min(logit_rows, static_cast<std::int64_t>(places.size()) - begin);
      project_logits(m, a.x.data() + begin * m.config.hidden, n, logits.data(), threads);
      threads.run(n, [&](std::int64_t i) {
        place const& p = places[static_cast<std::size_t>(begin + i)];
        if (p.position + 1 >= static_cast<std::int64_t>(readers[p.reader].tokens->size())) return;
        std::span<float> const row(logits.data() + i * m.config.vocabulary,
                                   static_cast<std::size_t>(m.config.vocabulary));
        log_softmax(row);
        use(p.reader, p.position, row);
      });
    }
    done += static_cast<double>(places.size());
    progress(label, done / all);
  }
}

// Row of the first prediction of each window in a base.
std::vector<std::uint64_t> first_rows(windows const& w) {
  std::vector<std::uint64_t> first{0};
  for (auto const& tokens : w)
    first.push_back(first.back() + tokens.size() - 1);
  return first;
}

}  // namespace

windows cut_windows(std::span<int const> tokens, std::int64_t context, std::optional<int> first) {
  windows all;
  std::size_t const take = static_cast<std::size_t>(context - (first ? 1 : 0));
  for (std::size_t at = 0; at < tokens.size() && take > 0; at += take) {
    auto const part = tokens.subspan(at, std::min(take, tokens.size() - at));
    std::vector<int> window(part.begin(), part.end());
    if (first) window.insert(window.begin(), *first);
    bool const whole = static_cast<std::int64_t>(window.size()) == context;
    if (whole || (all.empty() && window.size() >= 2)) all.push_back(std::move(window));
  }
  return all;
}

base_key key_of(model const& m, windows const& w) {
  base_key key{m.hash, hash_bytes("", 0), first_rows(w).back(),
               static_cast<std::uint64_t>(m.config.vocabulary)};
  for (auto const& tokens : w) {
    std::uint64_t const n = tokens.size();
    key.text = hash_bytes(&n, sizeof n, key.text);
    key.text = hash_bytes(tokens.data(), tokens.size() * sizeof tokens[0], key.text);
  }
  return key;
}

layer_request shape_of(model const& m, std::int64_t context) {
  layer_request shape;
  shape.layers = m.config.layers;
  shape.kv_heads = m.config.kv_heads;
  shape.head_dim = m.config.head_dim;
  defaults_for(context, shape);
  return shape;
}

result<base_logits> compute_base(model const& m, windows const& w, bool half, workers& threads,
                                 progress_function const& progress) {
  scheme_request const fp16{.text = "fp16", .name = "fp16"};
  base_logits base(key_of(m, w), half);
  std::vector<std::uint64_t> const first = first_rows(w);
  std::vector<reader> readers(w.size());
  for (std::size_t i = 0; i < w.size(); ++i) {
    auto layers = make_layers(fp16, shape_of(m, static_cast<std::int64_t>(w[i].size())), {});
    if (!layers) return failure{layers.error};
    readers[i].of.layers = std::move(*layers);
    readers[i].tokens = &w[i];
  }
  std::string error = read_all(
      m, readers, base_chunk, threads,
      [&](std::size_t i, std::int64_t position, std::span<float> row) {
        base.set_row(first[i] + static_cast<std::uint64_t>(position), row);
      },
      "fp16 base", progress);
  if (!error.empty()) return failure{fmt::format("fp16: {}", error)};
  return base;
}

result<std::vector<scheme_evaluation>> evaluate(model const& m, windows const& w, base_logits const& base,
                                                std::span<scheme_request const> schemes,
                                                std::span<recorded_layer const> calibration,
                                                evaluation_settings const& settings, workers& threads,
                                                progress_function const& progress) {
  std::vector<std::uint64_t> const first = first_rows(w);
  std::vector<scheme_evaluation> all(schemes.size());
  std::vector<reader> readers(schemes.size() * w.size());  // scheme after scheme
  for (std::size_t s = 0; s < schemes.size(); ++s) {
    auto layers = make_layers(schemes[s], shape_of(m, settings.context), calibration);
    if (!layers) return failure{layers.error};
    for (std::size_t i = 0; i < w.size(); ++i) {
      reader& r = readers[s * w.size() + i];
      r.tokens = &w[i];
      for (auto const& layer : *layers)
        r.of.layers.push_back(layer->fresh());
    }
    all[s].request = schemes[s];
    all[s].scores.resize(static_cast<std::size_t>(first.back()));
  }
  std::string error = read_all(
      m, readers, settings.chunk, threads,
      [&](std::size_t at, std::int64_t position, std::span<float> row) {
        std::size_t const s = at / w.size(), i = at % w.size();
        std::uint64_t const base_row = first[i] + static_cast<std::uint64_t>(position);
        std::vector<float> exact(row.size());
        base.read_row(base_row, exact);
        token_score score = compare_rows(exact, row, w[i][static_cast<std::size_t>(position + 1)]);
        score.position = position;
        all[s].scores[static_cast<std::size_t>(base_row)] = score;
      },
      "schemes", progress);
  if (!error.empty()) return failure{error};
  for (std::size_t s = 0; s < schemes.size(); ++s) {
    double bytes = 0.0, tokens = 0.0, mean_bytes = 0.0, token_steps = 0.0;
    for (std::size_t i = 0; i < w.size(); ++i) {
      reader const& r = readers[s * w.size() + i];
      bytes += static_cast<double>(r.of.bytes());
      tokens += static_cast<double>(r.of.tokens());
      mean_bytes += r.bytes;
      token_steps += r.token_steps;
      all[s].cache_seconds += r.of.cache_seconds;
    }
    double const values = 2.0 * m.config.kv_width() * m.config.layers;  // of a token
    all[s].bits_per_value = 8.0 * bytes / (tokens * values);
    all[s].mean_bits = 8.0 * mean_bytes / (token_steps * values);
    all[s].summary = summarize(all[s].scores, settings.context);
  }
  return all;
}

result<std::vector<recorded_layer>> record_rows(model const& m, std::span<int const> tokens, workers& threads,
                                                std::vector<float>* before_rope) {
  model_config const& c = m.config;
  auto const n = static_cast<std::int64_t>(tokens.size());
  auto layers = make_layers({.text = "fp32", .name = "fp32"}, shape_of(m, n), {});
  if (!layers) return failure{layers.error};
  sequence of;
  of.layers = std::move(*layers);
  std::vector<recorded_layer> recorded(static_cast<std::size_t>(c.layers));
  auto const count = [&](int heads) { return static_cast<std::size_t>(heads * n * c.head_dim); };
  for (int i = 0; i < c.layers; ++i) {
    recorded_layer& r = recorded[static_cast<std::size_t>(i)];
    r.number = i;
    r.query_heads = c.query_heads;
    r.kv_heads = c.kv_heads;
    r.queries = r.tokens = n;
    r.head_dim = r.value_dim = c.head_dim;
    r.q.resize(count(c.query_heads));
    r.k.resize(count(c.kv_heads));
    r.v.resize(count(c.kv_heads));
    for (std::int64_t t = 0; t < n; ++t)
      r.query_positions.push_back(t);
  }
  if (before_rope != nullptr) before_rope->resize(count(c.kv_heads) * recorded.size());
  auto const copy = [&](row_view from, int heads, layer_rows const& part, float* to) {
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t t = 0; t < part.count; ++t)
        std::copy_n(from.row(head, t), c.head_dim, to + (head * n + part.first + t) * c.head_dim);
    }
  };
  activations a;
  for (std::int64_t at = 0; at < n; at += base_chunk) {
    step const next{&of,
                    tokens.subspan(static_cast<std::size_t>(at),
                                   static_cast<std::size_t>(std::min<std::int64_t>(base_chunk, n - at)))};
    std::string error = forward(m, std::span(&next, 1), a, threads, [&](layer_rows const& part) {
      auto const number = static_cast<std::size_t>(part.layer);
      copy(part.queries, c.query_heads, part, recorded[number].q.data());
      copy(part.keys, c.kv_heads, part, recorded[number].k.data());
      copy(part.values, c.kv_heads, part, recorded[number].v.data());
      if (before_rope != nullptr)
        copy(part.keys_before_rope, c.kv_heads, part, before_rope->data() + number * count(c.kv_heads));
    });
    if (!error.empty()) return failure{fmt::format("fp32: {}", error)};
  }
  return recorded;
}

}  // namespace kvcrumb_lm
