// SPDX-License-Identifier: Apache-2.0
//! @file The rules of a risk report at their thresholds.
#include "risk.hpp"

#include "support/catch.hpp"

namespace {

using namespace kvcrumb_compare;

scheme_risk scheme(std::string name, double bits, double output, double keys = 0.0, double values = 0.0) {
  scheme_risk s;
  s.scheme = std::move(name);
  s.tile_bits = bits;
  s.predicted = {output, keys, values, 0.0};
  return s;
}

//! A report of layers with these 2-bit errors, equal parts of keys and values.
risk_report report_of(std::vector<double> const& errors) {
  risk_report r;
  r.recorded_queries = true;
  r.probes = 16;
  r.means = {scheme("kivi2", 2.25, 0.5), scheme("four", 4.25, 0.12), scheme("alike", 4.25, 0.11),
             scheme("eight", 8.5, 0.01)};
  for (double const e : errors) {
    layer_risk layer;
    layer.number = static_cast<int>(r.layers.size());
    layer.schemes = {scheme("kivi2", 2.25, e, e, e)};
    layer.statistics.heads.resize(2);
    r.layers.push_back(std::move(layer));
  }
  return r;
}

layer_advice advice_of(layer_risk layer) {
  risk_report r = report_of({});
  r.layers = {std::move(layer)};
  give_advice(r);
  return r.layers[0].advice;
}

}  // namespace

TEST_CASE("the scheme with the fewest bits within a limit is chosen, the smaller error of equals",
          "[compare][risk]") {
  risk_report r = report_of({0.5});
  give_advice(r);
  CHECK(r.recommended == "alike");
  REQUIRE(r.limits.size() == 5);
  CHECK(r.limits[0].scheme == "eight");
  CHECK(r.limits[1].scheme == "eight");
  CHECK(r.limits[2].scheme == "alike");
  CHECK(r.limits[4].scheme == "alike");
  r.means = {scheme("kivi2", 2.25, 0.5), scheme("best", 4.0, 0.3)};
  give_advice(r);
  CHECK(r.recommended == "best");
  CHECK(r.limits[3].scheme.empty());
  CHECK(r.sentences[0].find("None is within 0.15") != std::string::npos);
}

TEST_CASE("a layer gets more bits from 1.25 times the median 2-bit error on, for the side that needs them",
          "[compare][risk]") {
  risk_report r = report_of({0.4, 0.4, 0.5, 0.499, 0.4});
  r.layers[2].schemes[0].predicted.key_part = 0.31;
  r.layers[2].schemes[0].predicted.value_part = 0.2;
  give_advice(r);
  std::vector<bool> more;
  for (layer_risk const& layer : r.layers)
    more.push_back(layer.advice.more_bits);
  CHECK(more == std::vector<bool>{false, false, true, false, false});
  CHECK(r.layers[2].advice.more_bits_for == "keys");
  r.layers[2].schemes[0].predicted.value_part = 0.47;
  give_advice(r);
  CHECK(r.layers[2].advice.more_bits_for == "values");
  r.layers[2].schemes[0].predicted.value_part = 0.3;
  give_advice(r);
  CHECK(r.layers[2].advice.more_bits_for == "keys and values");
  r.recorded_queries = false;
  for (layer_risk& layer : r.layers)
    layer.advice = {};
  give_advice(r);
  CHECK_FALSE(r.layers[2].advice.more_bits);
  CHECK(r.sentences[1].find("not told") != std::string::npos);
}

TEST_CASE("tracing is advised where there are outlier tokens and the keys gain by it", "[compare][risk]") {
  layer_risk layer;
  layer.statistics.heads.resize(2);
  layer.advice.tracing_gain = 1.5;
  CHECK(advice_of(layer).tracing == advised::no);  // any few tokens less narrow a short group
  layer.statistics.heads[1].tokens.outliers = {{0, 0.3, 0.1}};
  CHECK(advice_of(layer).tracing == advised::partly);
  layer.statistics.tokens.outliers = {{0, 0.3, 0.1}};
  CHECK(advice_of(layer).tracing == advised::yes);
  layer.advice.tracing_gain = 1.1;
  CHECK(advice_of(layer).tracing == advised::yes);
  layer.advice.tracing_gain = 1.09;
  CHECK(advice_of(layer).tracing == advised::no);
}

TEST_CASE("keys per channel are needed from a gain of 2 with channels of 5 times the median on",
          "[compare][risk]") {
  layer_risk layer;
  layer.statistics.heads.resize(2);
  auto const judged = [&](double gain, double channel) {
    layer.advice.channel_gain = gain;
    layer.statistics.heads[1].channels.largest = channel;
    return advice_of(layer).per_channel;
  };
  CHECK(judged(2.0, 5.0) == advised::yes);
  CHECK(judged(1.99, 5.0) == advised::partly);
  CHECK(judged(2.0, 4.99) == advised::partly);
  CHECK(judged(1.25, 1.0) == advised::partly);
  CHECK(judged(1.24, 20.0) == advised::no);
  layer.advice.centring_gain = 1.25;
  CHECK(advice_of(layer).centring == advised::yes);
  layer.advice.centring_gain = 1.24;
  CHECK(advice_of(layer).centring == advised::no);
}
