// SPDX-License-Identifier: Apache-2.0
//! @file The equal-bytes curve of quantized pruning: budgets are kept and used up, and what cannot be judged
//! is refused.
#include "tradeoff.hpp"

#include <cmath>
#include <random>

#include <kvcrumb/kvcrumb.hpp>
#include <nlohmann/json.hpp>

#include "support/catch.hpp"

namespace {

using namespace kvcrumb_compare;

constexpr std::int64_t head_dim = 64, kv_heads = 2, query_heads = 4;

//! Gaussian rows; the last `queries` tokens have queries.
recorded_layers recording(std::int64_t tokens, std::int64_t queries, int layers = 1) {
  std::mt19937_64 engine{11};
  std::normal_distribution<float> normal;
  recorded_layers r;
  for (int number = 0; number < layers; ++number) {
    recorded_layer layer;
    layer.number = number;
    layer.kv_heads = kv_heads;
    layer.tokens = tokens;
    layer.head_dim = layer.value_dim = head_dim;
    layer.query_heads = queries > 0 ? query_heads : 0;
    layer.queries = queries;
    for (std::vector<float>* rows : {&layer.k, &layer.v}) {
      for (std::int64_t i = 0; i < kv_heads * tokens * head_dim; ++i)  // as if fp16 had held them
        rows->push_back(kvcrumb::to_float(kvcrumb::convert<kvcrumb::float16>(normal(engine))));
    }
    for (std::int64_t i = 0; i < query_heads * queries * head_dim; ++i)
      layer.q.push_back(normal(engine));
    for (std::int64_t i = 0; i < queries; ++i)
      layer.query_positions.push_back(tokens - queries + i);
    r.layers.push_back(std::move(layer));
  }
  return r;
}

std::vector<std::string> all_schemes() { return {tradeoff_schemes().begin(), tradeoff_schemes().end()}; }

result<tradeoff_result> measure(recorded_layers const& r, std::vector<std::string> const& schemes,
                                std::vector<std::int64_t> budgets = {}, int queries = 64) {
  tradeoff_settings settings;
  settings.budgets = std::move(budgets);
  settings.max_queries = queries;
  return measure_tradeoff(r, schemes, settings, [] {});
}

std::vector<std::int64_t> held(tradeoff_curve const& curve) {
  std::vector<std::int64_t> tokens;
  for (tradeoff_point const& p : curve.points)
    tokens.push_back(p.tokens);
  return tokens;
}

bool refuses(result<tradeoff_result> const& r, std::string const& words) {
  INFO(r.error);
  CHECK(r.error.find(words) != std::string::npos);
  return !r;
}

//! Bytes of n tokens of 2 heads x 64 channels, counted from the shape: exact rows of 2 x 64 fp16 values,
//! tiles of `tile` tokens (tile_bytes, a multiple of 64), positions of 8 bytes.
std::int64_t bytes_of(std::int64_t n, std::int64_t recent, std::int64_t tile, std::int64_t tile_bytes) {
  std::int64_t const tiles = n > recent ? (n - recent) / tile : 0;
  return kv_heads * (tiles * tile_bytes + (n - tiles * tile) * 4 * head_dim + 8 * n);
}

}  // namespace

TEST_CASE("as many tokens are held as fit into the budget, and not one more", "[compare][tradeoff]") {
  auto const r = recording(300, 16, 2);
  auto const t = measure(r, all_schemes());
  INFO(t.error);
  REQUIRE(t);
  CHECK(t->prompt == 300 - 16 + 8 + 1);  // up to the ninth of 16 queries
  CHECK(t->observed == 8);
  CHECK(t->judged == 8);
  CHECK(t->budgets == std::vector<std::int64_t>{32, 64, 128, 256});
  CHECK(t->group == 64);
  REQUIRE(t->curves.size() == 6);
  auto const up = [](std::int64_t bytes) { return (bytes + 63) / 64 * 64; };
  // codes, scales and the mask of a tile: keys and values of 32 (kivi2: 64) tokens
  std::vector<std::int64_t> const tile_bytes{1,                          // no tiles
                                             up(2 * 32 * 2 * 34 + 4),    // two blocks of 34 bytes a row
                                             up(2 * 32 * (32 + 4) + 4),  // 64 codes and two fp16 a row
                                             up(2 * 32 * (24 + 2) + 4),  // a norm a row
                                             up(2 * 32 * (16 + 2) + 4),  //
                                             up(2 * (64 * 64 / 4 + 64 * 4) + 8)};  // 64 groups of 64 a side
  for (std::size_t i = 0; i < t->curves.size(); ++i) {
    tradeoff_curve const& curve = t->curves[i];
    std::int64_t const tile = i == 0 ? 1 << 20 : curve.scheme == "kivi2" ? 64 : 32;
    for (tradeoff_point const& p : curve.points) {
      CAPTURE(curve.scheme, p.budget, p.tokens, p.bytes, p.budget_bytes);
      CHECK(p.budget_bytes == p.budget * kv_heads * head_dim * 4);
      CHECK(p.bytes <= p.budget_bytes);
      CHECK(p.bytes == bytes_of(p.tokens, t->recent, tile, tile_bytes[i]));
      for (std::int64_t n = p.tokens + 1; n <= t->prompt; ++n)
        CHECK(bytes_of(n, t->recent, tile, tile_bytes[i]) > p.budget_bytes);
      CHECK(p.bits_per_value == Approx(8.0 * static_cast<double>(p.bytes) /
                                       static_cast<double>(p.tokens * 2 * kv_heads * head_dim)));
      CHECK(std::isfinite(p.output_rel_l2_mean));
    }
  }
}

TEST_CASE("more budget never holds fewer tokens", "[compare][tradeoff]") {
  std::vector<std::int64_t> budgets;
  for (std::int64_t n = 160; n >= 12; n -= 4)
    budgets.push_back(n);
  auto const t = measure(recording(150, 4), all_schemes(), budgets);
  INFO(t.error);
  REQUIRE(t);
  for (tradeoff_curve const& curve : t->curves) {
    CAPTURE(curve.scheme);
    auto const tokens = held(curve);
    REQUIRE(tokens.size() == budgets.size());
    CHECK(std::is_sorted(tokens.begin(), tokens.end()));
    CHECK(tokens.front() < tokens.back());
  }
}

TEST_CASE("exact rows with bytes for everything lose nothing, with fewer they do", "[compare][tradeoff]") {
  auto const t = measure(recording(120, 40, 2), {"fp16", "q8_0"}, {16, 60, 200}, 20);
  INFO(t.error);
  REQUIRE(t);
  CHECK(t->prompt == 120 - 10 + 1);
  auto const& exact = t->curves[0].points;
  CHECK(exact[2].tokens == t->prompt);
  CHECK(exact[2].output_rel_l2_mean < 1e-6);  // float against double
  CHECK(exact[1].output_rel_l2_mean > 0.1);
  CHECK(exact[0].output_rel_l2_mean > exact[1].output_rel_l2_mean);
  CHECK(t->curves[1].points[2].tokens == t->prompt);
  CHECK(t->curves[1].points[2].output_rel_l2_mean < 0.02);
  CHECK(t->curves[1].points[2].output_rel_l2_mean > 1e-4);
}

TEST_CASE("what the first half of the queries looks at is held for the second half", "[compare][tradeoff]") {
  auto r = recording(200, 8);
  // every query asks for token 77 of its head
  recorded_layer& layer = r.layers[0];
  for (std::int64_t row = 0; row < query_heads * 8; ++row) {
    for (std::int64_t d = 0; d < head_dim; ++d) {
      std::int64_t const key = (row / 8 / (query_heads / kv_heads) * 200 + 77) * head_dim + d;
      layer.q[static_cast<std::size_t>(row * head_dim + d)] = 4.0f * layer.k[static_cast<std::size_t>(key)];
    }
  }
  auto const found = measure(r, {"fp16"}, {16});
  REQUIRE(found);
  CHECK(found->curves[0].points[0].output_rel_l2_mean < 1e-3);
  // the observing half asks for nothing in particular: with one token in twelve held, 77 is missed
  for (std::int64_t row = 0; row < query_heads * 8; ++row) {
    for (std::int64_t d = 0; d < head_dim && row % 8 < 4; ++d)
      layer.q[static_cast<std::size_t>(row * head_dim + d)] = 0.0f;
  }
  auto const missed = measure(r, {"fp16"}, {16});
  REQUIRE(missed);
  CHECK(missed->curves[0].points[0].output_rel_l2_mean > 0.5);
}

TEST_CASE("inputs without enough queries, tokens or bytes are refused with the reason",
          "[compare][tradeoff]") {
  CHECK(refuses(measure(recording(100, 0), {"fp16"}), "no queries"));
  CHECK(refuses(measure(recording(100, 1), {"fp16"}), "two queries"));
  CHECK(refuses(measure(recording(34, 8), {"fp16"}), "too short: 31 tokens"));
  CHECK(refuses(measure(recording(20, 20), {"fp16"}, {16}, 30), "") == false);
  CHECK(refuses(measure(recording(8, 4), {"fp16"}, {16}), "too short: 7 tokens"));
  CHECK(refuses(measure(recording(100, 8), {"fp16"}, {8}), "hold only 7 tokens"));
  CHECK(refuses(measure(recording(100, 8), {"fp16"}, {0}), "from 1 to"));
  CHECK(refuses(measure(recording(100, 8), {"nvfp4"}), "no scheme 'nvfp4'; there are fp16 q8_0"));
  auto r = recording(100, 8);
  std::swap(r.layers[0].query_positions[2], r.layers[0].query_positions[6]);
  CHECK(refuses(measure(r, {"fp16"}), "must ascend"));
  r = recording(100, 8, 2);
  r.layers[1].query_positions[4] = r.layers[1].query_positions[3] + 1;
  for (std::int64_t& p : r.layers[1].query_positions)
    p -= 3;
  CHECK(refuses(measure(r, {"fp16"}), "stand elsewhere"));
  r = recording(100, 8);
  r.layers[0].value_dim = 32;
  CHECK(refuses(measure(r, {"fp16"}), "equally many channels"));
  tradeoff_settings odd_group;
  odd_group.group = 24;
  CHECK(refuses(measure_tradeoff(recording(100, 8), std::vector<std::string>{"kivi2"}, odd_group, [] {}),
                "no groups of 24"));
}

TEST_CASE("the table has a line a scheme, and JSON has every number", "[compare][tradeoff]") {
  auto const t = measure(recording(100, 8), {"fp16", "qserve4"}, {16, 32});
  REQUIRE(t);
  std::string const text = tradeoff_text("in\x1bput", *t);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.find("16 fp16 tokens") != std::string::npos);
  CHECK(text.find("\nfp16 ") != std::string::npos);
  CHECK(text.find("\nqserve4 ") != std::string::npos);
  auto const json = nlohmann::json::parse(tradeoff_json("input", *t));
  CHECK(json["prompt"] == 97);
  REQUIRE(json["curves"].size() == 2);
  auto const& point = json["curves"][1]["points"][1];
  CHECK(json["curves"][1]["scheme"] == "qserve4");
  CHECK(point["budget"] == 32);
  CHECK(point["tokens"] == t->curves[1].points[1].tokens);
  CHECK(point["bytes"] == t->curves[1].points[1].bytes);
  CHECK(point["output_rel_l2_mean"] == t->curves[1].points[1].output_rel_l2_mean);
}
