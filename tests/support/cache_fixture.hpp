// SPDX-License-Identifier: Apache-2.0
//! @file Random layers, caches filled from them, and attention computed both ways; shared by the tests of
//! caches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kvcrumb/kvcrumb.hpp"
#include "kvcrumb/reference/attention.hpp"
#include "kvcrumb/reference/metrics.hpp"
#include "support/catch.hpp"

namespace kvcrumb::test {

constexpr std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

//! Rounds to an fp16 value, so that exact places can be compared bit by bit.
inline float half(double x) { return to_float(from_float<float16>(static_cast<float>(x))); }

//! Keys and values of one layer, [head][token][dim].
struct layer_rows {
  int heads = 0;
  std::int64_t tokens = 0;
  int dim = 0;
  std::vector<float> keys, values;

  std::int64_t at(int head, std::int64_t token) const { return (head * tokens + token) * dim; }
  float const* key(int head, std::int64_t token) const { return keys.data() + at(head, token); }
  float const* value(int head, std::int64_t token) const { return values.data() + at(head, token); }
  //! Rows from `begin` on.
  rows_view<float const> key_rows(std::int64_t begin = 0) const { return {key(0, begin), tokens * dim, dim}; }
  rows_view<float const> value_rows(std::int64_t begin = 0) const {
    return {value(0, begin), tokens * dim, dim};
  }
  //! One head alone.
  layer_rows head(int h, int count = 1) const {
    auto const part = [&](std::vector<float> const& x) {
      return std::vector<float>(x.begin() + at(h, 0), x.begin() + at(h + count, 0));
    };
    return {count, tokens, dim, part(keys), part(values)};
  }
};

//! Normal keys and values of fp16 numbers; `outlier_channels` channels of the keys are centred on +-6, and
//! `outlier_tokens` evenly spread tokens (the first one is token 1) have keys of 0.15 times the size.
inline layer_rows random_layer(unsigned seed, int heads, std::int64_t tokens, int dim,
                               int outlier_channels = 0, int outlier_tokens = 0) {
  layer_rows r{heads, tokens, dim, {}, {}};
  std::mt19937_64 engine{seed};
  std::normal_distribution<double> normal;
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::int64_t const apart = outlier_tokens > 0 ? std::max<std::int64_t>(tokens / outlier_tokens, 1) : 0;
      bool const outlier = outlier_tokens > 0 && t % apart == std::min<std::int64_t>(1, apart - 1);
      for (int d = 0; d < dim; ++d) {
        double const centre = d < outlier_channels ? (d % 2 == 0 ? 6.0 : -6.0) : 0.0;
        r.keys.push_back(half((centre + normal(engine)) * (outlier ? 0.15 : 1.0)));
        r.values.push_back(half(normal(engine)));
      }
    }
  }
  return r;
}

template <class Scheme, class Row = float16>
kv_cache<Scheme, Row> made(Scheme const& scheme, int heads, tile_shape shape,
                           std::int64_t alignment = default_blob_alignment) {
  kv_cache<Scheme, Row> cache;
  REQUIRE(kv_cache<Scheme, Row>::create(scheme, {heads, shape, alignment}, cache) == status::ok);
  return cache;
}

template <class Cache>
void append(Cache& cache, layer_rows const& rows, std::int64_t begin, std::int64_t end) {
  REQUIRE(cache.append(rows.key_rows(begin), rows.value_rows(begin), end - begin) == status::ok);
}

//! A cache of the whole layer, appended at once.
template <class Scheme>
kv_cache<Scheme> filled(Scheme const& scheme, layer_rows const& rows, int tile_tokens) {
  kv_cache<Scheme> cache = made(scheme, rows.heads, {rows.dim, tile_tokens});
  append(cache, rows, 0, rows.tokens);
  return cache;
}

template <class Cache>
std::vector<std::byte> saved(Cache const& cache) {
  std::vector<std::byte> file(size(saved_bytes(cache)));
  REQUIRE(save(cache, std::span<std::byte>{file}) == status::ok);
  return file;
}

//! Calls f(scheme) for every named system and the group sizes of the affine ones.
template <class F>
void each_scheme(F&& f) {
  f(schemes::kivi<2, 32>());
  f(schemes::kivi<4, 64>());
  f(schemes::kivi<2, 128>());
  f(schemes::ott<2, 32>());
  f(schemes::ott<2, 128>());
  f(schemes::nqkv4());
  f(schemes::qserve4());
  f(schemes::q8_0());
  f(schemes::q4_0());
  f(schemes::fp16());
  f(schemes::fp8());
}

//! What attend wrote.
struct attention_result {
  status outcome = status::ok;
  std::vector<float> output;  //!< [query head][query][dim]
  std::vector<float> lse;     //!< [query head][query]
};

//! attend on a view; queries [query head][query][dim]. The output starts out as NaN and is surrounded by
//! canaries.
template <class Scheme, class Row>
attention_result run_attention(cache_view<Scheme, Row> const& view, std::vector<float> const& q,
                               int query_heads, int queries, attention_options const& options = {}) {
  int const dim = view.shape.head_dim;
  attention_result r;
  std::size_t const n = size(query_heads) * size(queries) * size(dim);
  std::vector<float> o(n + 2, std::nanf("")), lse(size(query_heads) * size(queries) + 2, std::nanf(""));
  o.front() = o.back() = lse.front() = lse.back() = 12345.0f;
  std::vector<float> work(size(attend_workspace(view, query_heads, queries)) + 1, std::nanf(""));
  work.back() = 54321.0f;
  r.outcome = attend(view, hnd_rows(q.data(), queries, dim), query_heads, queries,
                     hnd_rows(o.data() + 1, queries, dim), lse.data() + 1, options,
                     std::span<float>{work.data(), work.size() - 1});
  CHECK((o.front() == 12345.0f && o.back() == 12345.0f));
  CHECK((lse.front() == 12345.0f && lse.back() == 12345.0f));
  CHECK(work.back() == 54321.0f);
  r.output.assign(o.begin() + 1, o.end() - 1);
  r.lse.assign(lse.begin() + 1, lse.end() - 1);
  return r;
}

//! What a cache gives back by read(), as doubles [kv head][token][dim].
struct decoded_rows {
  std::vector<double> keys, values;
  std::vector<std::int64_t> positions;
};

template <class Cache>
decoded_rows decode_all(Cache const& cache) {
  decoded_rows r;
  int const dim = cache.config().shape.head_dim;
  std::vector<float> k(size(dim)), v(size(dim));
  for (int h = 0; h < cache.config().kv_heads; ++h) {
    for (std::int64_t t = 0; t < cache.size(); ++t) {
      REQUIRE(cache.read(h, t, k.data(), v.data()) == status::ok);
      r.keys.insert(r.keys.end(), k.begin(), k.end());
      r.values.insert(r.values.end(), v.begin(), v.end());
    }
  }
  for (std::int64_t t = 0; t < cache.size(); ++t)
    r.positions.push_back(t);
  return r;
}

inline decoded_rows as_doubles(layer_rows const& rows) {
  decoded_rows r{{rows.keys.begin(), rows.keys.end()}, {rows.values.begin(), rows.values.end()}, {}};
  for (std::int64_t t = 0; t < rows.tokens; ++t)
    r.positions.push_back(t);
  return r;
}

//! The double reference on rows of `kv_heads` heads, with the options of attend.
inline reference::grouped_attention_output expected_attention(decoded_rows const& rows, int kv_heads, int dim,
                                                              std::vector<float> const& q, int query_heads,
                                                              int queries, attention_options const& options) {
  reference::attention_arguments a;
  a.softmax_scale =
      options.softmax_scale != 0.0f ? static_cast<double>(options.softmax_scale) : 1.0 / std::sqrt(dim);
  a.soft_cap = static_cast<double>(options.soft_cap);
  a.window = options.window;
  a.causal = options.causal;
  std::vector<double> const qd(q.begin(), q.end());
  std::int64_t const tokens = static_cast<std::int64_t>(rows.positions.size());
  std::vector<std::int64_t> at;
  for (int i = 0; i < queries; ++i)
    at.push_back((options.first_query >= 0 ? options.first_query : tokens - queries) + i);
  std::vector<double> sinks;
  if (options.sink_logits != nullptr) sinks.assign(options.sink_logits, options.sink_logits + query_heads);
  return reference::attend_grouped({qd, rows.keys, rows.values, at, rows.positions, sinks, size(query_heads),
                                    size(kv_heads), size(dim), size(dim)},
                                   a);
}

//! Derived bounds of |attend - reference on the same rows|. With u = 2^-24, a score is a sum of D products,
//! at most a_d = |q_d| * 3 max_t |k_td| each (3: a folded group adds gain * code and bias, at most twice and
//! once the largest magnitude). Products of random signs add up to at most about S = scale * sqrt(sum_d
//! a_d^2). Eight interleaved partial sums of D / 8 terms, joined in three steps, make roundings of u S /
//! sqrt(8) each, which are independent: sqrt(D / 8 + 3) u S together. Four standard deviations, one rounding
//! of the largest possible logit and 16 u for exp, log and the merge are allowed. A logit error of e changes
//! every weight by a factor within exp(+-2e), so the output by 2e max|v|; sqrt(N) u for the sum over tokens.
//! `extra` is for other orders of sums.
struct attention_bound {
  double lse = 0.0;
  double output = 0.0;
};

inline attention_bound bound_of(decoded_rows const& rows, int dim, std::vector<float> const& q, float scale,
                                double extra = 1.0) {
  double const u = std::ldexp(1.0, -24);
  std::vector<double> largest(size(dim), 0.0);
  for (std::size_t i = 0; i < rows.keys.size(); ++i) {
    largest[i % size(dim)] = std::max(largest[i % size(dim)], std::fabs(rows.keys[i]));
  }
  double squares = 0.0, logit = 0.0;
  for (std::size_t i = 0; i < q.size(); i += size(dim)) {
    double of_query = 0.0, sum = 0.0;
    for (std::size_t d = 0; d < size(dim); ++d) {
      double const product = std::fabs(static_cast<double>(q[i + d])) * largest[d];
      of_query += 9.0 * product * product;
      sum += product;
    }
    squares = std::max(squares, of_query);
    logit = std::max(logit, sum);
  }
  double const factor = scale != 0.0f ? std::fabs(static_cast<double>(scale)) : 1.0 / std::sqrt(dim);
  double v = 0.0;
  for (double const x : rows.values)
    v = std::max(v, std::fabs(x));
  double const e =
      extra * u * (16.0 + factor * (logit + 4.0 * std::sqrt(dim / 8.0 + 3.0) * std::sqrt(squares)));
  double const n = static_cast<double>(rows.positions.size());
  return {e, (2.0 * e + 4.0 * u * std::sqrt(n + 1.0)) * v};
}

//! Compares attend on a cache with the reference on read() rows.
template <class Cache>
void check_attention_of(Cache const& cache, std::vector<float> const& q, int query_heads, int queries,
                        attention_options const& options = {}) {
  int const dim = cache.config().shape.head_dim;
  attention_result const got = run_attention(cache.view(), q, query_heads, queries, options);
  REQUIRE(got.outcome == status::ok);
  decoded_rows const rows = decode_all(cache);
  auto const expected =
      expected_attention(rows, cache.config().kv_heads, dim, q, query_heads, queries, options);
  attention_bound const bound = bound_of(rows, dim, q, options.softmax_scale);
  double worst_output = 0.0, worst_lse = 0.0;
  bool shapes_agree = true;
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    bool const empty = std::isinf(expected.log_sum_exp[i]);
    shapes_agree = shapes_agree && (empty == std::isinf(got.lse[i]));
    double const difference =
        empty ? 0.0 : std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]);
    worst_lse = difference <= worst_lse ? worst_lse : difference;
  }
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const difference = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    worst_output = difference <= worst_output ? worst_output : difference;  // a NaN stays
  }
  CAPTURE(cache.scheme().name, dim, cache.size(), query_heads, queries, options.window, options.causal);
  CHECK(shapes_agree);
  CHECK(worst_lse <= bound.lse);
  CHECK(worst_output <= bound.output);
}

inline std::vector<float> random_queries(unsigned seed, int query_heads, int queries, int dim,
                                         double scale = 1.0) {
  std::mt19937_64 engine{seed};
  std::normal_distribution<double> normal{0.0, scale};
  std::vector<float> q(size(query_heads) * size(queries) * size(dim));
  for (float& x : q)
    x = static_cast<float>(normal(engine));
  return q;
}

//! Bit-for-bit equality of floats (NaN equals itself).
inline bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace kvcrumb::test
