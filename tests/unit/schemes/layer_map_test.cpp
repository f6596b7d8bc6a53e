// SPDX-License-Identifier: Apache-2.0
//! @file Bits by layer: AsymKV's rule, the choice under a budget against trying everything, and the schemes.
#include "kvcrumb/schemes/layer_map.hpp"

#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("AsymKV: the first layers have two bits", "[layer_map]") {
  CHECK(asymkv_bits(0, 16, 0) == layer_bits{2, 1});
  CHECK(asymkv_bits(15, 16, 0) == layer_bits{2, 1});
  CHECK(asymkv_bits(16, 16, 0) == layer_bits{1, 1});
  CHECK(asymkv_bits(3, 16, 4) == layer_bits{2, 2});
  CHECK(asymkv_bits(4, 16, 4) == layer_bits{2, 1});
}

TEST_CASE("bits that are known at run time call the scheme of those bits", "[layer_map]") {
  auto const rows = test::random_layer(5, 2, 128, 64);
  for (layer_bits const bits : {layer_bits{1, 1}, {1, 2}, {2, 1}, {2, 2}}) {
    std::int64_t bytes = 0;
    status const s = with_layer_bits<32, 1, 2>(bits, [&](auto const& scheme) {
      bytes = test::filled(scheme, rows, 128).blob_parts().bytes;
      return status::ok;
    });
    CHECK(s == status::ok);
    // codes, two fp16 parameters for 32 values, one mask bit a slot
    CHECK(bytes == 128 * 64 * (bits.key + bits.value + 2) / 8 + 128 / 8);
  }
  bool called = false;
  auto const refuse = [&](auto const&) {
    called = true;
    return status::ok;
  };
  CHECK(with_layer_bits<32, 1, 2>({4, 2}, refuse) == status::bad_bits);
  CHECK_FALSE(called);
}

TEST_CASE("the choice under a budget is the best of all", "[layer_map]") {
  std::mt19937 engine{7};
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<layer_bits> const pairs{{2, 2}, {4, 2}, {2, 4}, {4, 4}, {8, 4}};
  for (int round = 0; round < 30; ++round) {
    std::vector<std::vector<layer_choice>> choices(4);
    for (auto& layer : choices) {
      for (layer_bits const b : pairs)
        layer.push_back({b, uniform(engine) / (b.key + b.value)});
    }
    double const budget = 2.0 + 4.0 * uniform(engine);
    double least = std::numeric_limits<double>::infinity();
    for (int code = 0; code < 625; ++code) {  // every pair in every layer
      double error = 0.0;
      int bits = 0;
      for (int layer = 0, rest = code; layer < 4; ++layer, rest /= 5) {
        layer_choice const& c = choices[test::size(layer)][test::size(rest % 5)];
        error += c.error;
        bits += c.bits.key + c.bits.value;
      }
      if (bits <= budget * 8.0 && error < least) least = error;
    }
    auto const chosen = choose_layer_bits(choices, budget);
    REQUIRE(chosen.size() == 4);
    double error = 0.0;
    int bits = 0;
    for (std::size_t layer = 0; layer < 4; ++layer) {
      for (layer_choice const& c : choices[layer])
        error += c.bits == chosen[layer] ? c.error : 0.0;
      bits += chosen[layer].key + chosen[layer].value;
    }
    CHECK(bits <= budget * 8.0);
    CHECK(std::fabs(error - least) < 1e-12);
  }
}

TEST_CASE("budgets and candidates that leave no choice", "[layer_map]") {
  std::vector<std::vector<layer_choice>> choices{{{{2, 2}, 1.0}, {{4, 4}, 0.5}}, {{{2, 2}, 1.0}}};
  CHECK(choose_layer_bits(choices, 1.9).empty());
  CHECK(choose_layer_bits(choices, 2.0) == std::vector<layer_bits>{{2, 2}, {2, 2}});
  CHECK(choose_layer_bits(choices, 3.0) == std::vector<layer_bits>{{4, 4}, {2, 2}});
  CHECK(choose_layer_bits(choices, 1e9) == std::vector<layer_bits>{{4, 4}, {2, 2}});
  CHECK(choose_layer_bits(choices, std::nan("")).empty());
  choices[0][0].error = std::nan("");  // what was not measured is not taken
  CHECK(choose_layer_bits(choices, 2.0).empty());
  choices.push_back({});
  CHECK(choose_layer_bits(choices, 8.0).empty());
  CHECK(choose_layer_bits({}, 8.0).empty());
  // Equal errors: the fewer bits.
  std::vector<std::vector<layer_choice>> const equal{{{{4, 4}, 0.5}, {{2, 2}, 0.5}}};
  CHECK(choose_layer_bits(equal, 8.0) == std::vector<layer_bits>{{2, 2}});
  std::vector<std::vector<layer_choice>> const sums{{{{2, 2}, 1.0}, {{4, 4}, 0.5}},
                                                    {{{2, 2}, 1.0}, {{2, 4}, 0.5}}};
  CHECK(choose_layer_bits(sums, 3.0) == std::vector<layer_bits>{{2, 2}, {2, 4}});  // 10 bits, not 12
}
