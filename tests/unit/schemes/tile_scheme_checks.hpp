// SPDX-License-Identifier: Apache-2.0
//! @file What the tests of OScaR, KVarN and Kitty share: numbers that NumPy can make too, recorded keys, and
//! the laws that every system obeys.
#pragma once

#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"
#include "unit/scheme/section_probe.hpp"

namespace kvcrumb::test {

//! A number in [-4, 4) from four integers, the same in tests/literature/mixed_numbers.py. Triangular
//! distribution.
inline double mixed(std::uint32_t seed, std::uint32_t head, std::uint32_t token, std::uint32_t dim) {
  std::uint32_t u = seed * 2654435761u + head * 40503u + token * 2246822519u + dim * 3266489917u;
  u = (u ^ (u >> 15)) * 2246822519u;
  u = (u ^ (u >> 13)) * 3266489917u;
  u ^= u >> 16;
  return static_cast<double>(static_cast<int>((u & 0xFFFFu) + (u >> 16)) - 65535) / 16384.0;
}

//! Rows [head][token][dim] of f(head, token, dim), rounded to fp16 as a cache would.
template <class F>
std::vector<float> made_rows(int heads, int tokens, int dim, F f) {
  std::vector<float> rows;
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < tokens; ++t) {
      for (int d = 0; d < dim; ++d)
        rows.push_back(half(f(h, t, d)));
    }
  }
  return rows;
}

//! Relative error ||x - decoded|| / ||x|| over what `counts(head, token)` selects, after encoding all rows at
//! once.
template <class Scheme, class Counts>
double relative_error(Scheme const& scheme, side which, tile_shape shape, int heads,
                      std::vector<float> const& rows, Counts counts) {
  int const tokens = shape.tile_tokens;
  section_probe<Scheme> probe(scheme, which, shape, heads);
  probe.encode(rows, tokens, 0, tokens, 0);
  double error = 0.0, energy = 0.0;
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < tokens; ++t) {
      if (!counts(h, t)) continue;
      auto const got = probe.decoded_row(h, t);
      for (int d = 0; d < shape.head_dim; ++d) {
        double const x = static_cast<double>(rows[size((std::int64_t{h} * tokens + t) * shape.head_dim + d)]);
        double const e = x - static_cast<double>(got[size(d)]);
        error += e * e;
        energy += x * x;
      }
    }
  }
  return std::sqrt(error / energy);
}
template <class Scheme>
double relative_error(Scheme const& scheme, side which, tile_shape shape, int heads,
                      std::vector<float> const& rows) {
  return relative_error(scheme, which, shape, heads, rows, [](int, int) { return true; });
}

//! A cache of `scheme` with ragged and grouped queries: attention, saving, any chunking of appends.
template <class Scheme>
void check_cache_laws(Scheme scheme, tile_shape shape, std::int64_t tokens) {
  layer_rows const rows = random_layer(11, 2, tokens, shape.head_dim, 3, 4);
  auto const cache = filled(scheme, rows, shape.tile_tokens);
  auto const q = random_queries(12, 6, 3, shape.head_dim);
  check_attention_of(cache, q, 6, 3);
  attention_options options;
  options.window = 50;
  options.soft_cap = 8.0f;
  check_attention_of(cache, q, 6, 3, options);

  auto const file = saved(cache);
  kv_cache<Scheme> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(saved(other) == file);

  auto pieces = made(scheme, 2, shape);
  for (std::int64_t at = 0, step = 1; at < tokens; at += step, step = step * 3 % 71 + 1)
    append(pieces, rows, at, std::min(at + step, tokens));
  CHECK(saved(pieces) == file);
}

//! The whole-tile hooks of both sides against one slot at a time, and one slot against the decoded row.
template <class Scheme>
void check_hooks(Scheme scheme, tile_shape shape) {
  int const tokens = shape.tile_tokens, width = shape.head_dim;
  auto const rows = key_like_rows(2, tokens, width, 22);
  section_probe<typename Scheme::key_type> keys(scheme.key, side::key, shape, 2);
  section_probe<typename Scheme::value_type> values(scheme.value, side::value, shape, 2);
  keys.encode(rows, tokens, 0, tokens, 0);
  values.encode(rows, tokens, 0, tokens, 0);
  auto const q = random_queries(4, 1, 1, width);
  auto const n = size(width);
  std::vector<float> prepared(size(Scheme::key_type::query_floats(width))), scores(size(tokens)),
      weights(size(tokens));
  std::vector<float> work(size(scheme.key.tile_floats(side::key, shape)) + 4, 77.0f), one(n), tile(n);
  std::vector<float> value_work(size(scheme.value.tile_floats(side::value, shape)) + 4, 77.0f);
  for (int head = 0; head < 2; ++head) {
    std::byte const* section = keys.sections[size(head)].data();
    scheme.key.prepare_query(head, width, q.data(), prepared.data());
    scheme.key.load_tile(side::key, shape, section, work.data());
    scheme.key.score_tile(shape, work.data(), prepared.data(), scores.data());
    double total = 0.0, of_tile = 0.0, of_row = 0.0;
    std::vector<double> expected(n, 0.0);
    std::fill(one.begin(), one.end(), 0.0f);
    std::fill(tile.begin(), tile.end(), 0.0f);
    for (int t = 0; t < tokens; ++t) {
      auto const row = keys.decoded_row(head, t), value = values.decoded_row(head, t);
      double dot_product = 0.0, size_of = 1e-3;
      weights[size(t)] = t % 3 == 0 ? 0.0f : 1.0f / static_cast<float>(t + 1);
      total += static_cast<double>(weights[size(t)]);
      scheme.value.accumulate(shape, weights[size(t)], values.sections[size(head)].data(), t, one.data());
      for (std::size_t d = 0; d < n; ++d) {
        dot_product += static_cast<double>(q[d]) * static_cast<double>(row[d]);
        size_of += std::fabs(static_cast<double>(q[d]) * static_cast<double>(row[d]));
        expected[d] += static_cast<double>(weights[size(t)]) * static_cast<double>(value[d]);
      }
      double const score = static_cast<double>(scheme.key.score(shape, prepared.data(), section, t));
      of_row = std::max(of_row, std::fabs(score - dot_product) / size_of);
      of_tile = std::max(of_tile, std::fabs(score - static_cast<double>(scores[size(t)])) / size_of);
    }
    CHECK(of_row < 2e-5);
    CHECK(of_tile < 2e-5);
    scheme.value.load_tile(side::value, shape, values.sections[size(head)].data(), value_work.data());
    scheme.value.accumulate_tile(shape, value_work.data(), weights.data(), tile.data());
    scheme.value.finish(head, width, one.data(), static_cast<float>(total));
    scheme.value.finish(head, width, tile.data(), static_cast<float>(total));
    double worst = 0.0, largest = 1e-3;
    for (std::size_t d = 0; d < n; ++d) {
      largest = std::max(largest, std::fabs(expected[d]));
      worst = std::max({worst, std::fabs(static_cast<double>(one[d]) - expected[d]),
                        std::fabs(static_cast<double>(tile[d]) - expected[d])});
    }
    CHECK(worst < 1e-4 * largest);
    for (std::size_t i = 1; i <= 4; ++i) {
      CHECK(work[work.size() - i] == 77.0f);
      CHECK(value_work[value_work.size() - i] == 77.0f);
    }
  }
}

//! A tracer that keeps the number of rows and elements and the largest |x - x_hat| and |x_hat - decoded row|.
template <class Scheme>
void check_tracing(Scheme scheme, side which, tile_shape shape) {
  struct watcher {
    std::vector<float> seen;
    std::int64_t rows = 0, elements = 0;
    void on_row(side, int, std::int64_t, float const*, int) { ++rows; }
    void on_element(element_coordinate c, float, float x_hat) {
      ++elements;
      seen.push_back(c.head == 1 && c.token == 1003 ? x_hat : 0.0f);
    }
  } watch;
  int const tokens = shape.tile_tokens;
  auto const rows = key_like_rows(2, tokens, shape.head_dim, 5);
  section_probe<Scheme> plain(scheme, which, shape, 2), traced(scheme, which, shape, 2);
  plain.encode(rows, tokens, 0, tokens, 0);
  traced.encode(rows, tokens, 0, tokens, 0, {}, watch);
  CHECK(plain.sections == traced.sections);
  CHECK(watch.rows == 2 * tokens);
  CHECK(watch.elements == 2 * std::int64_t{tokens} * shape.head_dim);
  double squares = 0.0, expected = 0.0;  // a rotation keeps them
  for (float const x : watch.seen)
    squares += static_cast<double>(x) * static_cast<double>(x);
  for (float const x : traced.decoded_row(1, 3))
    expected += static_cast<double>(x) * static_cast<double>(x);
  CHECK(std::fabs(squares - expected) < 1e-4 * expected);
}

}  // namespace kvcrumb::test
