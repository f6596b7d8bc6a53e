// SPDX-License-Identifier: Apache-2.0
//! @file Outlier tokens, outlier channels and key means: by hand, on the embedded recordings, on larger ones.
#include "risk_statistics.hpp"

#include <cmath>

#include "sample.hpp"
#include "support/catch.hpp"
#include "support/real_data.hpp"

namespace {

using namespace kvcrumb_compare;
using kvcrumb::test::Approx;

recorded_layers sample(std::string_view name) {
  auto loaded = load_tensor_bytes(find_sample(name)->bytes, name);
  REQUIRE(loaded);
  return *loaded;
}

std::vector<std::int64_t> positions(token_statistics const& s) {
  std::vector<std::int64_t> all;
  for (outlier_token const& t : s.outliers)
    all.push_back(t.position);
  return all;
}

token_statistics of_norms(std::vector<double> const& norms) { return statistics_of_norms(norms, norms); }

double largest_channel(layer_statistics const& s) {
  double largest = 0.0;
  for (head_statistics const& h : s.heads)
    largest = std::max(largest, h.channels.largest);
  return largest;
}

double smallest_of_largest_channels(layer_statistics const& s) {
  double smallest = s.heads.front().channels.largest;
  for (head_statistics const& h : s.heads)
    smallest = std::min(smallest, h.channels.largest);
  return smallest;
}

//! One head of the rows given, [token][width]; values are ones.
recorded_layer layer_of(std::vector<std::vector<float>> const& rows) {
  recorded_layer layer;
  layer.kv_heads = 1;
  layer.tokens = static_cast<std::int64_t>(rows.size());
  layer.head_dim = layer.value_dim = static_cast<std::int64_t>(rows.front().size());
  for (auto const& row : rows)
    layer.k.insert(layer.k.end(), row.begin(), row.end());
  layer.v.assign(layer.k.size(), 1.0f);
  return layer;
}

}  // namespace

TEST_CASE("an outlier token is at most half of the median and far below the next", "[compare][risk]") {
  CHECK(positions(of_norms({10, 10, 4, 10, 10, 10, 10, 11})) == std::vector<std::int64_t>{2});
  CHECK(positions(of_norms({10, 10, 5, 10, 10, 10, 10, 11})) == std::vector<std::int64_t>{2});
  CHECK(positions(of_norms({10, 10, 5.01, 10, 10, 10, 10, 11})).empty());           // above half
  CHECK(positions(of_norms({10, 10, 4.5, 5.5, 5.6, 10, 10, 10, 10, 10})).empty());  // the next is too near
  CHECK(positions(of_norms({10, 3, 4.5, 6, 10, 10, 10, 10, 10, 10, 10, 10})) ==
        std::vector<std::int64_t>{1, 2});
  CHECK(positions(of_norms({10, 3, 4.5, 5, 10, 10, 10, 10, 10, 10, 10, 10})) ==
        std::vector<std::int64_t>{1, 2, 3});
}

TEST_CASE("many small tokens are a broad distribution and not outliers", "[compare][risk]") {
  std::vector<double> norms(100, 10.0);
  for (std::size_t i = 0; i < 8; ++i)
    norms[i] = 3.0;
  CHECK(of_norms(norms).outliers.size() == 8);
  norms[8] = 3.0;
  CHECK(of_norms(norms).outliers.empty());
  CHECK(of_norms(norms).below_50 == 9);
  CHECK(of_norms({3, 3, 10, 10}).outliers.empty());  // more than a quarter of the tokens
  CHECK(of_norms({0, 0, 0, 0, 0}).outliers.empty());
}

TEST_CASE("token counts, extremes and the value norm of an outlier are those of the median",
          "[compare][risk]") {
  std::vector<double> const keys{10, 2, 10, 6.9, 10, 10, 10, 30}, values{4, 1, 4, 4, 4, 8, 4, 4};
  token_statistics const s = statistics_of_norms(keys, values);
  CHECK(s.smallest == Approx(0.2));
  CHECK(s.smallest_at == 1);
  CHECK(s.largest == Approx(3.0));
  CHECK(s.largest_at == 7);
  CHECK(s.below_70 == 2);
  CHECK(s.below_50 == 1);
  CHECK(s.below_30 == 1);
  REQUIRE(s.outliers.size() == 1);
  CHECK(s.outliers[0].key_norm == Approx(0.2));
  CHECK(s.outliers[0].value_norm == Approx(0.25));
}

TEST_CASE("channels, means and norm ratio of four rows equal those computed by hand", "[compare][risk]") {
  // means 1, -12, 0, 2; deviations 1, 0, 2, 2
  auto const s = statistics_of(layer_of({{2, -12, 2, 0}, {0, -12, -2, 4}, {2, -12, 2, 4}, {0, -12, -2, 0}}));
  REQUIRE(s.heads.size() == 1);
  head_statistics const& h = s.heads[0];
  CHECK(h.channels.largest == Approx(6.0));  // mean |k|: 1 12 2 2
  CHECK(h.channels.largest_at == 1);
  CHECK(h.channels.above_five == 1);
  CHECK(h.channels.largest_peak == Approx(4.0));  // max |k|: 2 12 2 4
  CHECK(h.bias.energy_share == Approx(149.0 / 158.0));
  CHECK(h.bias.median_size == Approx(1.0));  // 1, 0, 1; the channel without deviation counts not
  CHECK(h.bias.largest_size == Approx(1.0));
  // rows have squares 152, 164, 168, 148
  CHECK(h.kv_norm_ratio == Approx((std::sqrt(152.0) + std::sqrt(164.0)) / 2.0 / 2.0));
}

TEST_CASE("the embedded GPT-2 recording has token 0 as the one outlier of every layer", "[compare][risk]") {
  auto const recorded = sample("sample_gpt2");
  for (recorded_layer const& layer : recorded.layers) {
    CAPTURE(layer.number);
    layer_statistics const s = statistics_of(layer);
    CHECK(positions(s.tokens) == std::vector<std::int64_t>{0});
    CHECK(s.tokens.outliers[0].value_norm < 0.25);
  }
}

TEST_CASE("the embedded grouped-query recording has no outlier tokens and channels up to 5 times the median",
          "[compare][risk]") {
  auto const recorded = sample("sample");
  double largest = 0.0;
  for (recorded_layer const& layer : recorded.layers) {
    CAPTURE(layer.number);
    layer_statistics const s = statistics_of(layer);
    CHECK(s.tokens.outliers.empty());
    for (head_statistics const& h : s.heads)
      CHECK(h.tokens.outliers.empty());
    largest = std::max(largest, largest_channel(s));
  }
  CHECK(largest > 4.0);
  CHECK(largest < risk_rule::strong_channel);
}

TEST_CASE("GPT-2: token 0 is an outlier in layers 3 to 9, not in 0 to 2 and 11", "[compare][risk]") {
  auto const path = kvcrumb::test::real_data("gpt2_124m_21.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (gpt2_124m_21.safetensors)");
  auto const recorded = load_tensor_file(*path);
  REQUIRE(recorded);
  REQUIRE(recorded->layers.size() == 12);
  for (recorded_layer const& layer : recorded->layers) {
    CAPTURE(layer.number);
    auto const found = positions(statistics_of(layer).tokens);
    if (layer.number >= 3 && layer.number <= 9) CHECK(found == std::vector<std::int64_t>{0});
    if (layer.number <= 2 || layer.number == 11) CHECK(found.empty());
  }
}

TEST_CASE("Qwen2.5 layer 0: channels 10 to 26 times the median in every head, no outlier tokens, large means",
          "[compare][risk]") {
  auto const path = kvcrumb::test::real_data("qwen2.5-14b_layer0_220.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (qwen2.5-14b_layer0_220.safetensors)");
  auto const recorded = load_tensor_file(*path);
  REQUIRE(recorded);
  layer_statistics const s = statistics_of(recorded->layers.front());
  CHECK(smallest_of_largest_channels(s) >= risk_rule::extreme_channel);
  CHECK(largest_channel(s) < 26.0);
  CHECK(s.tokens.outliers.empty());
  for (head_statistics const& h : s.heads) {
    CHECK(h.tokens.outliers.empty());
    CHECK(h.bias.energy_share > 0.8);
    CHECK(h.channels.above_five >= 9);
    CHECK(h.kv_norm_ratio > 10.0);
  }
}

TEST_CASE("books16m: no outlier tokens, largest channels 1.9 to 4.7 times the median by layer",
          "[compare][risk]") {
  auto const path = kvcrumb::test::real_data("books16m_frankenstein_1024.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (books16m_frankenstein_1024.safetensors)");
  auto const recorded = load_tensor_file(*path);
  REQUIRE(recorded);
  for (recorded_layer const& layer : recorded->layers) {
    CAPTURE(layer.number);
    layer_statistics const s = statistics_of(layer);
    CHECK(s.tokens.outliers.empty());
    for (head_statistics const& h : s.heads)
      CHECK(h.tokens.outliers.empty());
    CHECK(largest_channel(s) > 1.85);
    CHECK(largest_channel(s) < 4.7);
  }
}
