// SPDX-License-Identifier: Apache-2.0
//! @file A risk report of the embedded GPT-2 recording, its three outputs, refusals.
#include <cmath>

#include <nlohmann/json.hpp>

#include "risk_reports.hpp"

namespace {

using namespace kvcrumb_compare;
using kvcrumb::test::Approx;

std::string refusal(recorded_layers const& recorded) {
  auto const r = assess_risk("x", recorded, settings_of(64), {}, [](std::string_view) {});
  CHECK_FALSE(r);
  return r.error;
}

}  // namespace

TEST_CASE("the embedded GPT-2 recording: tracing in all layers, centring, no word about layers",
          "[compare][risk]") {
  auto const recorded = sample("sample_gpt2");
  risk_report const r = assess(recorded);
  CHECK_FALSE(r.recorded_queries);
  CHECK(layers_with(r, &layer_advice::tracing, advised::yes) == std::vector<int>{3, 4, 5, 6, 7, 8, 9});
  CHECK(layers_with(r, &layer_advice::centring, advised::yes).size() == 7);
  CHECK(r.sentences[1].find("not told") != std::string::npos);
  CHECK_FALSE(r.predicted);
  CHECK_FALSE(r.means[0].stand_in);
}

TEST_CASE("the gain of tracing is that of the tokens that are encoded either way", "[compare][risk]") {
  auto recorded = sample("sample_gpt2");
  recorded.layers.resize(1);
  recorded_layer const& layer = recorded.layers[0];
  auto const settings = settings_of(layer.tokens).caches;
  auto const plain = decode_layer("kivi2", layer, settings), traced = decode_layer("ott2", layer, settings);
  REQUIRE(plain);
  REQUIRE(traced);
  double without = 0.0, with = 0.0;
  for (std::size_t i = 0; i < layer.k.size(); ++i) {
    if (traced->exact[i / 64] != 0) continue;
    without += std::pow(static_cast<double>(plain->k[i]) - static_cast<double>(layer.k[i]), 2.0);
    with += std::pow(static_cast<double>(traced->k[i]) - static_cast<double>(layer.k[i]), 2.0);
  }
  double const gain = assess(recorded).layers[0].advice.tracing_gain.value_or(0.0);
  CHECK(gain == Approx(std::sqrt(without / with)).epsilon(1e-12));
  CHECK(gain > 1.5);
}

TEST_CASE("what cannot be assessed is refused with the layer and the reason", "[compare][risk]") {
  CHECK(refusal({}) == "there are no layers");
  auto recorded = sample("sample_gpt2");
  recorded.layers[1].value_dim = 32;
  CHECK(refusal(recorded) == "layer 4: keys have 64 channels and values 32; they must be equal");
  recorded = sample("sample_gpt2");
  recorded.layers[0].tokens = 15;
  CHECK(refusal(recorded) == "layer 3: 15 tokens; a risk report with groups of 16 needs at least 16");
  recorded = sample("sample_gpt2");
  risk_settings odd = settings_of(21);
  odd.caches.group = 24;
  auto const r = assess_risk("x", recorded, odd, {}, [](std::string_view) {});
  CHECK(r.error.find("no groups of 24") != std::string::npos);
  recorded = sample("sample_gpt2");
  std::fill(recorded.layers[1].v.begin(), recorded.layers[1].v.end(), 0.0f);
  CHECK(refusal(recorded) == "layer 4: values are all zero");
}

TEST_CASE("schemes that cannot take the shape are left out, and what needs them is not told",
          "[compare][risk]") {
  auto recorded = sample("sample_gpt2");
  recorded.layers.resize(2);
  for (recorded_layer& layer : recorded.layers) {  // head_dim 32: every other head is the second half of one
    layer.kv_heads *= 2;
    layer.head_dim = layer.value_dim = 32;
  }
  risk_report const r = assess(recorded);
  REQUIRE_FALSE(r.left_out.empty());
  CHECK(r.left_out[0].find("kivi2, layer 3: head_dim is not supported") == 0);
  CHECK(r.means.size() + r.left_out.size() == decodable_schemes().size());
  CHECK(layers_with(r, &layer_advice::tracing, advised::unknown).size() == 2);
  CHECK(r.sentences[2].find("not told") != std::string::npos);
  CHECK(r.layers[0].statistics.heads.size() == 24);
  auto const json = nlohmann::json::parse(risk_json(r));
  CHECK(json["layers"][0]["tracing"]["gain"].is_null());
  CHECK(json["layers"][0]["tracing"]["advised"] == "unknown");
  CHECK(risk_text(r).find("Left out: kivi2") != std::string::npos);
  CHECK(risk_html(r, recorded).find("Left out: kivi2") != std::string::npos);
}

TEST_CASE("text, JSON and HTML say the same and hold nothing that the input could plant", "[compare][risk]") {
  auto const recorded = sample("sample_gpt2");
  risk_report const r = assess(recorded);
  std::string const text = risk_text(r), page = risk_html(r, recorded);
  for (std::string const& s : r.sentences)
    CHECK(text.find(s) != std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(page.find('\x1b') == std::string::npos);
  CHECK(page.find("put <b>") == std::string::npos);
  CHECK(page.find("<style>") != std::string::npos);
  CHECK(page.find("<svg") != std::string::npos);
  CHECK(page.find("<td>3</td><td>0 (0.28)</td>") != std::string::npos);

  auto const json = nlohmann::json::parse(risk_json(r));
  CHECK(json["queries"] == "stand_in");
  CHECK(json["rank_correlation"]["predicted"].is_null());
  REQUIRE(json["layers"].size() == 7);
  auto const& layer = json["layers"][0];
  CHECK(layer["layer"] == 3);
  CHECK(layer["tokens"]["outliers"][0]["position"] == 0);
  CHECK(layer["tokens"]["outliers"][0]["key_norm"] == Approx(0.278).margin(0.001));
  CHECK(layer["heads"].size() == 12);
  CHECK(layer["tracing"]["advised"] == "yes");
  CHECK(layer["schemes"][0]["measured"].is_null());
  CHECK(layer["schemes"][0]["stand_in"].is_null());
  CHECK(layer["schemes"][0]["predicted"]["output"] == r.layers[0].schemes[0].predicted.output);
  CHECK(json["recommended"] == r.recommended);
  CHECK(json["advice"].size() == r.sentences.size());
}
