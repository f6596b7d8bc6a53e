// SPDX-License-Identifier: Apache-2.0
//! @file Risk reports of recordings with queries, and of one with large biases.
#include "risk_reports.hpp"
#include "support/real_data.hpp"

namespace {

using namespace kvcrumb_compare;
using kvcrumb::test::Approx;

}  // namespace

TEST_CASE(
    "the embedded grouped-query recording: neither tracing nor centring, and measured errors are ranked",
    "[compare][risk]") {
  auto recorded = sample("sample");
  recorded.layers.resize(1);
  std::vector<std::string> asked;
  auto const r = assess(recorded, [&](std::string_view name, std::size_t) -> result<double> {
    asked.emplace_back(name);
    return static_cast<double>(asked.size());
  });
  CHECK(layers_with(r, &layer_advice::tracing, advised::no).size() == 1);
  CHECK(layers_with(r, &layer_advice::centring, advised::no).size() == 1);
  CHECK(asked.size() == decodable_schemes().size());
  REQUIRE(r.predicted);
  REQUIRE(r.stand_in);
  std::vector<double> predicted, order;
  for (scheme_risk const& s : r.layers[0].schemes) {
    predicted.push_back(s.predicted.output);
    order.push_back(static_cast<double>(order.size() + 1));
  }
  CHECK(r.predicted->of_means == Approx(rank_correlation(predicted, order)));
  CHECK(r.predicted->of_layers.size() == 1);
  for (scheme_risk const& s : r.means) {
    CAPTURE(s.scheme);
    CHECK(s.tile_bits <= s.bits_per_value + 1e-9);
    CHECK(s.predicted.output > 0.0);
    CHECK(s.predicted.output < 1.0);
  }
}

TEST_CASE("Qwen2.5 layer 0: keys per channel and centring, no tracing", "[compare][risk]") {
  auto const path = kvcrumb::test::real_data("qwen2.5-14b_layer0_220.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (qwen2.5-14b_layer0_220.safetensors)");
  auto const recorded = load_tensor_file(*path);
  REQUIRE(recorded);
  layer_advice const a = assess(*recorded).layers[0].advice;
  CHECK(a.tracing == advised::no);
  CHECK(a.tracing_gain.value_or(0.0) == Approx(1.0).margin(0.01));
  CHECK(a.per_channel == advised::yes);
  CHECK(a.channel_gain > 9.0);
  CHECK(a.centring == advised::yes);
  CHECK(a.centring_gain > 4.0);
}

TEST_CASE("a measurement that fails ends the report with its reason", "[compare][risk]") {
  auto recorded = sample("sample");
  recorded.layers.resize(1);
  auto const failed = assess_risk(
      "x", recorded, settings_of(1024),
      [](std::string_view, std::size_t) -> result<double> { return failure{"no measurement"}; },
      [](std::string_view) {});
  CHECK(failed.error == "no measurement");
}
