// SPDX-License-Identifier: Apache-2.0
//! @file First-order predictions against the double reference, stand-in queries, ranks, decoded rows.
#include "risk_predict.hpp"

#include <cmath>
#include <random>

#include <kvcrumb/reference/attention.hpp>

#include "risk_statistics.hpp"
#include "support/catch.hpp"

namespace {

using namespace kvcrumb_compare;
using kvcrumb::test::Approx;

constexpr std::int64_t width = 64, kv_heads = 2, query_heads = 4;

recorded_layer random_layer(std::int64_t tokens, std::int64_t queries) {
  std::mt19937_64 engine{5};
  std::normal_distribution<float> normal;
  recorded_layer layer;
  layer.kv_heads = kv_heads;
  layer.tokens = tokens;
  layer.head_dim = layer.value_dim = width;
  layer.query_heads = queries > 0 ? query_heads : 0;
  layer.queries = queries;
  auto const fill = [&](std::vector<float>& x, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i)
      x.push_back(std::round(normal(engine) * 64.0f) / 64.0f);  // as if fp16 had held it
  };
  fill(layer.k, kv_heads * tokens * width);
  fill(layer.v, kv_heads * tokens * width);
  fill(layer.q, layer.query_heads * queries * width);
  for (std::int64_t i = 0; i < queries; ++i)
    layer.query_positions.push_back(tokens - queries + i);
  return layer;
}

decoded_layer same(recorded_layer const& layer) { return {layer.k, layer.v, {}, 16.0, 16.0}; }

void disturb(std::vector<float>& rows, float size) {
  std::mt19937_64 engine{9};
  std::normal_distribution<float> normal;
  for (float& x : rows)
    x += size * normal(engine);
}

//! Groups of 16 tokens without a window, as kvcrumb-compare has for short sequences.
evaluation_settings short_settings() {
  evaluation_settings s;
  s.group = 16;
  s.window = 0;
  s.tile_tokens = 32;
  return s;
}

//! The true change of the output: |o' - o| / |o|, mean over the queries of the probe.
double true_error(recorded_layer const& layer, query_probe const& probe, decoded_layer const& decoded) {
  std::vector<double> const k(layer.k.begin(), layer.k.end()), v(layer.v.begin(), layer.v.end());
  std::vector<double> const k2(decoded.k.begin(), decoded.k.end()), v2(decoded.v.begin(), decoded.v.end());
  std::vector<std::int64_t> positions;
  for (std::int64_t t = 0; t < layer.tokens; ++t)
    positions.push_back(t);
  kvcrumb::reference::grouped_attention_input in;
  in.queries = probe.q;
  in.query_positions = probe.positions;
  in.key_positions = positions;
  in.query_heads = static_cast<std::size_t>(probe.query_heads);
  in.kv_heads = kv_heads;
  in.key_dim = in.value_dim = width;
  kvcrumb::reference::attention_arguments arguments;
  arguments.softmax_scale = 1.0;  // the queries of a probe are scaled
  in.keys = k;
  in.values = v;
  auto const exact = kvcrumb::reference::attend_grouped(in, arguments);
  in.keys = k2;
  in.values = v2;
  auto const changed = kvcrumb::reference::attend_grouped(in, arguments);
  double total = 0.0;
  std::size_t const rows = exact.output.size() / width;
  for (std::size_t row = 0; row < rows; ++row) {
    double error = 0.0, size = 0.0;
    for (std::size_t d = row * width; d < (row + 1) * width; ++d) {
      error += (changed.output[d] - exact.output[d]) * (changed.output[d] - exact.output[d]);
      size += exact.output[d] * exact.output[d];
    }
    total += std::sqrt(error / size);
  }
  return total / static_cast<double>(rows);
}

}  // namespace

TEST_CASE("errors of values alone are predicted exactly: attention is linear in them", "[compare][risk]") {
  auto const layer = random_layer(50, 12);
  auto const probe = probe_recorded(layer, 6, 12);
  auto decoded = same(layer);
  CHECK(predict(layer, probe, decoded).output == 0.0);
  disturb(decoded.v, 0.5f);
  prediction const p = predict(layer, probe, decoded);
  // fp32 differences of values of about 1: 1e-7
  CHECK(p.output == Approx(true_error(layer, probe, decoded)).epsilon(1e-6));
  CHECK(p.value_part == p.output);
  CHECK(p.key_part == 0.0);
  CHECK(p.divergence == 0.0);
}

TEST_CASE("errors of keys are predicted to first order: the remainder falls with their size",
          "[compare][risk]") {
  auto const layer = random_layer(50, 12);
  auto const probe = probe_recorded(layer, 6, 12);
  auto const off_by = [&](float size) {
    auto decoded = same(layer);
    disturb(decoded.k, size);
    prediction const p = predict(layer, probe, decoded);
    CHECK(p.key_part == p.output);
    CHECK(p.divergence > 0.0);
    return std::fabs(p.output / true_error(layer, probe, decoded) - 1.0);
  };
  double const large = off_by(0.1f), small = off_by(0.01f);
  CAPTURE(large, small);
  CHECK(large < 0.05);
  CHECK(small < 0.005);
}

TEST_CASE("a constant added to all keys changes no weights, and no prediction", "[compare][risk]") {
  auto const layer = random_layer(40, 8);
  auto decoded = same(layer);
  for (std::size_t i = 0; i < decoded.k.size(); ++i)
    decoded.k[i] += static_cast<float>(i % width) / 4.0f;
  prediction const p = predict(layer, probe_recorded(layer, 8, 8), decoded);
  CHECK(p.output < 1e-6);
  CHECK(p.divergence < 1e-12);
}

TEST_CASE("divergence is that of the weights for small errors", "[compare][risk]") {
  // one head, one channel, two tokens with equal weights, value 0 and 1; key 1 off by e: KL(1/2 || sigmoid)
  recorded_layer layer;
  layer.kv_heads = layer.query_heads = layer.queries = 1;
  layer.tokens = 2;
  layer.head_dim = layer.value_dim = 1;
  layer.k = {0.0f, 0.0f};
  layer.v = {0.0f, 1.0f};
  layer.q = {1.0f};
  layer.query_positions = {1};
  decoded_layer const decoded{{0.0f, 0.125f}, layer.v, {}, 0.0, 0.0};
  prediction const p = predict(layer, probe_recorded(layer, 1, 1), decoded);
  CHECK(p.divergence == Approx(0.125 * 0.125 / 8.0).epsilon(1e-12));
  CHECK(p.output == Approx(0.125 / 2.0).epsilon(1e-12));  // 1/4 e over 1/2
}

TEST_CASE("a probe takes the last query and equal steps before it, and hides later tokens",
          "[compare][risk]") {
  auto const layer = random_layer(50, 12);
  auto const probe = probe_recorded(layer, 4, 8);
  CHECK(probe.recorded);
  CHECK(probe.positions == std::vector<std::int64_t>{43, 45, 47, 49});
  CHECK(probe.weights[44] == 0.0);
  CHECK(probe.weights[43] > 0.0);
  CHECK(probe.q[0] == Approx(static_cast<double>(layer.q[5 * width]) / std::sqrt(64.0)));
  CHECK(probe_recorded(layer, 100, 100).queries == 12);
}

TEST_CASE("stand-ins have the spread asked for, and no part in the mean key", "[compare][risk]") {
  auto layer = random_layer(60, 0);
  auto const spread_of = [&](query_probe const& probe, std::int64_t row) {
    double sum = 0.0, squares = 0.0;
    for (std::int64_t t = 0; t < layer.tokens; ++t) {
      double const l = std::log(probe.weights[static_cast<std::size_t>(row * layer.tokens + t)]);
      sum += l;
      squares += l * l;
    }
    double const n = static_cast<double>(layer.tokens);
    return std::sqrt(squares / n - sum / n * sum / n);
  };
  auto const probe = probe_stand_in(layer, 5, 2.0);
  CHECK_FALSE(probe.recorded);
  CHECK(probe.query_heads == kv_heads);
  for (std::int64_t row = 0; row < kv_heads * 5; ++row)
    CHECK(spread_of(probe, row) == Approx(2.0).epsilon(1e-9));
  for (std::size_t i = 0; i < layer.k.size(); ++i)  // a large bias of every channel
    layer.k[i] += 64.0f;
  auto const biased = probe_stand_in(layer, 5, 2.0);
  for (std::size_t i = 0; i < probe.q.size(); ++i)
    CHECK(biased.q[i] == Approx(probe.q[i]).margin(1e-9));
}

TEST_CASE("signs of stand-ins are those of splitmix64", "[compare][risk]") {
  // first outputs of splitmix64 seeded with 0: E220A8397B1DCDAF, 6E789E6AA1B965F4, 06C45D188009454F
  CHECK(stand_in_sign(0, 0) == 1.0);  // bit 32 of E220A839...
  std::uint64_t const step = 0x9E3779B97F4A7C15u;
  CHECK(stand_in_sign(step >> 32, step & 0xFFFFFFFFu) == -1.0);  // 6E789E6A
  int sum = 0;
  for (std::uint64_t t = 0; t < 1000; ++t)
    sum += static_cast<int>(stand_in_sign(3, t));
  CHECK(std::abs(sum) < 100);  // three standard deviations
}

TEST_CASE("rank correlation is Spearman's, ties share their rank", "[compare][risk]") {
  auto const of = [](std::vector<double> const& a, std::vector<double> const& b) {
    return rank_correlation(a, b);
  };
  CHECK(of({1, 2, 3, 4}, {10, 20, 30, 1000}) == Approx(1.0));
  CHECK(of({1, 2, 3, 4}, {4, 3, 2, 1}) == Approx(-1.0));
  CHECK(of({1, 2, 3, 4, 5}, {2, 1, 4, 3, 5}) == Approx(1.0 - 6.0 * 4.0 / (5.0 * 24.0)));
  CHECK(of({1, 1, 2}, {1, 2, 3}) == Approx(std::sqrt(3.0) / 2.0));
  CHECK(of({1, 1, 1}, {1, 2, 3}) == 0.0);
  CHECK(of({1}, {1}) == 0.0);
}

TEST_CASE("decoded rows are exact outside of tiles, and names that cannot be decoded are refused",
          "[compare][risk]") {
  auto layer = random_layer(70, 0);
  evaluation_settings settings = short_settings();
  auto const d = decode_layer("ott2", layer, settings);
  INFO(d.error);
  REQUIRE(d);
  std::int64_t exact = 0;
  for (std::size_t row = 0; row < d->exact.size(); ++row) {
    exact += d->exact[row];
    for (std::size_t i = row * width; i < (row + 1) * width; ++i) {
      if (d->exact[row] != 0) CHECK(d->k[i] == layer.k[i]);
    }
  }
  CHECK(exact == kv_heads * 6);  // 64 tokens in groups of 16; the first two layers are not traced
  CHECK(d->k != layer.k);
  layer.number = 2;
  auto const traced = decode_layer("ott2", layer, settings);
  REQUIRE(traced);
  CHECK(std::count(traced->exact.begin(), traced->exact.end(), 1) == kv_heads * (6 + 3));
  auto const unknown = decode_layer("qjl", layer, settings);
  CHECK(unknown.error.find("'qjl' cannot be predicted; there are kivi2") == 0);
  layer.value_dim = 128;
  CHECK(decode_layer("kivi2", layer, settings).error.find("keys have 64 channels and values 128") !=
        std::string::npos);
}

TEST_CASE("taking a bias off keys before per-token codes makes their error as small as without it",
          "[compare][risk]") {
  auto layer = random_layer(64, 0);
  evaluation_settings const settings = short_settings();
  auto const error = [&](std::string_view name) {
    auto const d = decode_layer(name, layer, settings);
    REQUIRE(d);
    double sum = 0.0;
    for (std::size_t i = 0; i < layer.k.size(); ++i)
      sum += (d->k[i] - layer.k[i]) * (d->k[i] - layer.k[i]);
    return std::sqrt(sum);
  };
  double const plain = error("qserve4");
  for (std::size_t i = 0; i < layer.k.size(); i += 8)
    layer.k[i] += 32.0f;
  CHECK(error("qserve4") > 4.0 * plain);
  CHECK(error("qserve4_centred") == Approx(plain).epsilon(0.1));
}
