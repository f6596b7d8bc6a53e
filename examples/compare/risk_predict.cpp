// SPDX-License-Identifier: Apache-2.0
//! @file risk_predict: see risk_predict.hpp.
#include "risk_predict.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "risk_statistics.hpp"

namespace kvcrumb_compare {

namespace {

double dot(double const* a, float const* b, std::size_t n) {
  double sum = 0.0;
  for (std::size_t i = 0; i < n; ++i)
    sum += a[i] * static_cast<double>(b[i]);
  return sum;
}

//! Fills weights and output from q and positions.
void attend_exactly(recorded_layer const& layer, query_probe& p) {
  auto const width = static_cast<std::size_t>(layer.head_dim),
             tokens = static_cast<std::size_t>(layer.tokens);
  p.weights.assign(static_cast<std::size_t>(p.query_heads * p.queries) * tokens, 0.0);
  p.output.assign(p.q.size(), 0.0);
  for (std::int64_t row = 0; row < p.query_heads * p.queries; ++row) {
    std::int64_t const kv_head = row / p.queries / (p.query_heads / layer.kv_heads);
    float const* k = layer.k.data() + kv_head * layer.tokens * layer.head_dim;
    float const* v = layer.v.data() + kv_head * layer.tokens * layer.head_dim;
    double const* q = p.q.data() + row * layer.head_dim;
    double* w = p.weights.data() + row * layer.tokens;
    double* o = p.output.data() + row * layer.head_dim;
    std::size_t const seen = std::min(
        tokens, static_cast<std::size_t>(p.positions[static_cast<std::size_t>(row % p.queries)] + 1));
    for (std::size_t t = 0; t < seen; ++t)
      w[t] = dot(q, k + t * width, width);
    double const top = *std::max_element(w, w + seen);
    double sum = 0.0;
    for (std::size_t t = 0; t < seen; ++t)
      sum += w[t] = std::exp(w[t] - top);
    for (std::size_t t = 0; t < seen; ++t) {
      w[t] /= sum;
      for (std::size_t d = 0; d < width; ++d)
        o[d] += w[t] * static_cast<double>(v[t * width + d]);
    }
  }
}

double norm(std::vector<double> const& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

std::vector<double> ranks(std::span<double const> values) {
  std::vector<double> r(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    double below = 0.0, equal = 0.0;
    for (double const other : values) {
      below += other < values[i] ? 1.0 : 0.0;
      equal += other == values[i] ? 1.0 : 0.0;
    }
    r[i] = below + (equal - 1.0) / 2.0;
  }
  return r;
}

}  // namespace

query_probe probe_recorded(recorded_layer const& layer, std::int64_t count, std::int64_t window) {
  query_probe p;
  p.recorded = true;
  window = std::min(window, layer.queries);
  p.queries = std::min(count, window);
  p.query_heads = layer.query_heads;
  double const scale = 1.0 / std::sqrt(static_cast<double>(layer.head_dim));
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < p.queries; ++i)
    chosen.push_back(layer.queries - 1 - (p.queries - 1 - i) * window / p.queries);
  for (std::int64_t const i : chosen)
    p.positions.push_back(layer.query_positions[static_cast<std::size_t>(i)]);
  for (std::int64_t head = 0; head < layer.query_heads; ++head) {
    for (std::int64_t const i : chosen) {
      float const* row = layer.q.data() + (head * layer.queries + i) * layer.head_dim;
      for (std::int64_t d = 0; d < layer.head_dim; ++d)
        p.q.push_back(scale * static_cast<double>(row[d]));
    }
  }
  attend_exactly(layer, p);
  return p;
}

double stand_in_sign(std::uint64_t query, std::uint64_t token) {
  std::uint64_t x = (query << 32 | token) + 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return ((x ^ x >> 31) >> 32 & 1u) != 0 ? 1.0 : -1.0;
}

query_probe probe_stand_in(recorded_layer const& layer, std::int64_t count, double spread) {
  query_probe p;
  p.queries = count;
  p.query_heads = layer.kv_heads;
  p.positions.assign(static_cast<std::size_t>(count), layer.tokens - 1);
  auto const width = static_cast<std::size_t>(layer.head_dim),
             tokens = static_cast<std::size_t>(layer.tokens);
  for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
    auto const k = head_rows(layer, layer.k, head);
    channel_moments const m = channel_moments_of(k, layer.head_dim);
    for (std::int64_t i = 0; i < count; ++i) {
      std::vector<double> q(width, 0.0);
      for (std::size_t t = 0; t < tokens; ++t) {
        double const sign = stand_in_sign(static_cast<std::uint64_t>(head * count + i), t);
        for (std::size_t d = 0; d < width; ++d)
          q[d] += sign * (static_cast<double>(k[t * width + d]) - m.mean[d]);
      }
      double sum = 0.0, squares = 0.0;
      for (std::size_t t = 0; t < tokens; ++t) {
        double const logit = dot(q.data(), k.data() + t * width, width);
        sum += logit;
        squares += logit * logit;
      }
      double const n = static_cast<double>(tokens);
      double const deviation = std::sqrt(std::max(0.0, squares / n - sum / n * sum / n));
      for (double& x : q)
        x *= deviation > 0.0 ? spread / deviation : 0.0;
      p.q.insert(p.q.end(), q.begin(), q.end());
    }
  }
  attend_exactly(layer, p);
  return p;
}

prediction predict(recorded_layer const& layer, query_probe const& probe, decoded_layer const& decoded) {
  auto const width = static_cast<std::size_t>(layer.head_dim),
             tokens = static_cast<std::size_t>(layer.tokens);
  prediction sum;
  double counted = 0.0;
  std::vector<float> key_errors(layer.k.size()), value_errors(layer.v.size());
  for (std::size_t i = 0; i < key_errors.size(); ++i) {
    key_errors[i] = decoded.k[i] - layer.k[i];
    value_errors[i] = decoded.v[i] - layer.v[i];
  }
  std::vector<double> shift(tokens), from_keys(width), from_values(width), both(width);
  for (std::int64_t row = 0; row < probe.query_heads * probe.queries; ++row) {
    std::int64_t const kv_head = row / probe.queries / (probe.query_heads / layer.kv_heads);
    std::size_t const begin = static_cast<std::size_t>(kv_head) * tokens * width;
    double const* q = probe.q.data() + row * layer.head_dim;
    double const* w = probe.weights.data() + row * layer.tokens;
    double const* o = probe.output.data() + row * layer.head_dim;
    double mean = 0.0;
    for (std::size_t t = 0; t < tokens; ++t) {
      shift[t] = w[t] > 0.0 ? dot(q, key_errors.data() + begin + t * width, width) : 0.0;
      mean += w[t] * shift[t];
    }
    double divergence = 0.0;
    std::fill(from_keys.begin(), from_keys.end(), 0.0);
    std::fill(from_values.begin(), from_values.end(), 0.0);
    for (std::size_t t = 0; t < tokens; ++t) {
      if (w[t] <= 0.0) continue;
      double const change = w[t] * (shift[t] - mean);
      divergence += change * (shift[t] - mean) / 2.0;
      std::size_t const at = begin + t * width;
      for (std::size_t d = 0; d < width; ++d) {
        from_keys[d] += change * static_cast<double>(layer.v[at + d]);
        from_values[d] += w[t] * static_cast<double>(value_errors[at + d]);
      }
    }
    double const size = norm({o, o + width});
    if (size <= 0.0) continue;
    for (std::size_t d = 0; d < width; ++d)
      both[d] = from_keys[d] + from_values[d];
    counted += 1.0;
    sum.output += norm(both) / size;
    sum.key_part += norm(from_keys) / size;
    sum.value_part += norm(from_values) / size;
    sum.divergence += divergence;
  }
  if (counted > 0.0) {
    for (double* x : {&sum.output, &sum.key_part, &sum.value_part, &sum.divergence})
      *x /= counted;
  }
  return sum;
}

double rank_correlation(std::span<double const> a, std::span<double const> b) {
  if (a.size() != b.size() || a.size() < 2) return 0.0;
  std::vector<double> const x = ranks(a), y = ranks(b);
  double const middle = static_cast<double>(a.size() - 1) / 2.0;
  double xy = 0.0, xx = 0.0, yy = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - middle) * (y[i] - middle);
    xx += (x[i] - middle) * (x[i] - middle);
    yy += (y[i] - middle) * (y[i] - middle);
  }
  return xx > 0.0 && yy > 0.0 ? xy / std::sqrt(xx * yy) : 0.0;
}

}  // namespace kvcrumb_compare
