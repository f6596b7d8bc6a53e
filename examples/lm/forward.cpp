// SPDX-License-Identifier: Apache-2.0
//! @file forward: see forward.hpp.
#include "forward.hpp"

#include <chrono>
#include <cmath>

#include <fmt/format.h>

namespace kvcrumb_lm {
namespace {

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// to = from / rms(from) * weight
void rms_norm(float const* from, std::vector<float> const& weight, float epsilon, float* to) {
  double squares = 0.0;
  for (std::size_t i = 0; i < weight.size(); ++i)
    squares += static_cast<double>(from[i]) * static_cast<double>(from[i]);
  float const scale = static_cast<float>(
      1.0 / std::sqrt(squares / static_cast<double>(weight.size()) + static_cast<double>(epsilon)));
  for (std::size_t i = 0; i < weight.size(); ++i)
    to[i] = from[i] * scale * weight[i];
}

// Turns the pairs (i, i + n/2) of one row by angles given as n/2 cosines, then n/2 sines.
void rotate(float const* angles, int n, float* row) {
  int const half = n / 2;
  for (int i = 0; i < half; ++i) {
    float const c = angles[i], s = angles[half + i], a = row[i], b = row[half + i];
    row[i] = a * c - b * s;
    row[half + i] = b * c + a * s;
  }
}

struct pass {
  model const& m;
  std::span<step const> steps;
  activations& a;
  workers& threads;
  row_observer const& observe;
  std::vector<std::int64_t> first;  // row of the first token of each step, and the number of all rows

  model_config const& c() const { return m.config; }
  std::int64_t all() const { return first.back(); }
  int qkv_width() const { return c().query_width() + 2 * c().kv_width(); }

  std::string embed() {
    a.x.resize(size(all() * c().hidden));
    a.angles.resize(size(all() * c().head_dim));
    for (std::size_t s = 0; s < steps.size(); ++s) {
      for (std::size_t i = 0; i < steps[s].tokens.size(); ++i) {
        int const token = steps[s].tokens[i];
        if (token < 0 || token >= c().vocabulary)
          return fmt::format("token {} is outside of the vocabulary of {}", token, c().vocabulary);
        std::int64_t const row = first[s] + static_cast<std::int64_t>(i);
        m.embedding.read_row(token, a.x.data() + row * c().hidden);
        auto const position = static_cast<double>(steps[s].of->tokens() + static_cast<std::int64_t>(i));
        float* const angles = a.angles.data() + row * c().head_dim;
        for (int d = 0; d < c().head_dim / 2; ++d) {
          double const angle = position * m.frequencies[size(d)];
          angles[d] = static_cast<float>(std::cos(angle));
          angles[c().head_dim / 2 + d] = static_cast<float>(std::sin(angle));
        }
      }
    }
    return {};
  }

  void norm_rows(std::vector<float> const& weight, std::vector<float>& to) {
    to.resize(size(all() * c().hidden));
    threads.run(all(), [&](std::int64_t r) {
      rms_norm(a.x.data() + r * c().hidden, weight, c().epsilon, to.data() + r * c().hidden);
    });
  }

  void add_to_x(std::vector<float> const& what) {
    for (std::size_t i = 0; i < a.x.size(); ++i)
      a.x[i] += what[i];
  }

  // Norms of heads and RoPE, in place.
  void turn(layer_weights const& w) {
    int const width = c().head_dim, heads = c().query_heads + c().kv_heads;
    if (observe) a.before_rope.resize(a.qkv.size());
    threads.run(all(), [&](std::int64_t r) {
      float* const row = a.qkv.data() + r * qkv_width();
      for (int head = 0; head < heads && c().qk_norm; ++head)
        rms_norm(row + head * width, head < c().query_heads ? w.q_norm : w.k_norm, c().epsilon,
                 row + head * width);
      if (observe) std::copy_n(row, qkv_width(), a.before_rope.data() + r * qkv_width());
      for (int head = 0; head < heads; ++head)
        rotate(a.angles.data() + r * width, width, row + head * width);
    });
  }

  row_view heads_of(std::vector<float> const& from, std::size_t s, int offset) const {
    return {from.data() + first[s] * qkv_width() + offset, c().head_dim, qkv_width()};
  }

  std::string attend(int number) {
    a.attended.resize(size(all() * c().query_width()));
    std::vector<kvcrumb::status> answers(steps.size(), kvcrumb::status::ok);
    int const keys = c().query_width(), values = keys + c().kv_width();
    threads.run(static_cast<std::int64_t>(steps.size()), [&](std::int64_t i) {
      std::size_t const s = size(i);
      auto const start = std::chrono::steady_clock::now();
      kv_layer& cache = *steps[s].of->layers[size(number)];
      std::int64_t const count = first[s + 1] - first[s];
      answers[s] = cache.append(heads_of(a.qkv, s, keys), heads_of(a.qkv, s, values), count);
      if (answers[s] == kvcrumb::status::ok) {
        kvcrumb::rows_view<float> const out{a.attended.data() + first[s] * c().query_width(), c().head_dim,
                                            c().query_width()};
        answers[s] =
            cache.attend(heads_of(a.qkv, s, 0), c().query_heads, static_cast<int>(count), out, c().window);
      }
      steps[s].of->cache_seconds +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    });
    for (std::size_t s = 0; s < steps.size(); ++s) {
      if (answers[s] != kvcrumb::status::ok)
        return fmt::format("layer {}: {}", number, to_string(answers[s]));
      if (observe) {
        observe({number, s, steps[s].of->layers[size(number)]->tokens() - (first[s + 1] - first[s]),
                 first[s + 1] - first[s], heads_of(a.qkv, s, 0), heads_of(a.qkv, s, keys),
                 heads_of(a.before_rope, s, keys), heads_of(a.qkv, s, values)});
      }
    }
    return {};
  }

  void feed(layer_weights const& w) {
    int const n = c().intermediate;
    a.gate_up.resize(size(all() * 2 * n));
    a.gated.resize(size(all() * n));
    w.gate_up.multiply(a.normed.data(), all(), a.gate_up.data(), threads);
    threads.run(all(), [&](std::int64_t r) {
      float const *gate = a.gate_up.data() + r * 2 * n, *up = gate + n;
      float* const to = a.gated.data() + r * n;
      for (int i = 0; i < n; ++i)
        to[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    });
    w.down.multiply(a.gated.data(), all(), a.projected.data(), threads);
  }

  std::string run() {
    if (std::string error = embed(); !error.empty()) return error;
    a.qkv.resize(size(all() * qkv_width()));
    a.projected.resize(a.x.size());
    for (int number = 0; number < c().layers; ++number) {
      layer_weights const& w = m.layers[size(number)];
      norm_rows(w.input_norm, a.normed);
      w.qkv.multiply(a.normed.data(), all(), a.qkv.data(), threads);
      turn(w);
      if (std::string error = attend(number); !error.empty()) return error;
      w.output.multiply(a.attended.data(), all(), a.projected.data(), threads);
      add_to_x(a.projected);
      norm_rows(w.output_norm, a.normed);
      feed(w);
      add_to_x(a.projected);
    }
    norm_rows(m.final_norm, a.normed);
    a.x.swap(a.normed);
    return {};
  }
};

}  // namespace

std::int64_t sequence::bytes() const {
  std::int64_t n = 0;
  for (auto const& layer : layers)
    n += layer->bytes();
  return n;
}

std::string forward(model const& m, std::span<step const> steps, activations& a, workers& threads,
                    row_observer const& observe) {
  pass p{m, steps, a, threads, observe, {0}};
  for (step const& s : steps)
    p.first.push_back(p.first.back() + static_cast<std::int64_t>(s.tokens.size()));
  return p.run();
}

void project_logits(model const& m, float const* x, std::int64_t count, float* logits, workers& threads) {
  m.output_matrix().multiply(x, count, logits, threads);
}

}  // namespace kvcrumb_lm
