// SPDX-License-Identifier: Apache-2.0
//! @file Recorded keys and values: the figures that were measured on them elsewhere, and what tracing does to them.
#include <array>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/reference/attention.hpp>

#include "sample.hpp"
#include "support/catch.hpp"
#include "support/real_data.hpp"
#include "tensor_file.hpp"

namespace {

using namespace kvcrumb;
using kvcrumb_compare::recorded_layer;
using kvcrumb_compare::recorded_layers;

template <class Scheme>
kv_cache<Scheme> filled(Scheme const& scheme, recorded_layer const& layer, int tile_tokens) {
  kv_cache<Scheme> cache;
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  REQUIRE(kv_cache<Scheme>::create(scheme, {heads, {width, tile_tokens}}, cache) == status::ok);
  REQUIRE(cache.append(hnd_rows(layer.k.data(), layer.tokens, width), hnd_rows(layer.v.data(), layer.tokens, width),
                       layer.tokens) == status::ok);
  return cache;
}

struct key_error {
  double squares = 0.0, energy = 0.0;
  double relative() const { return std::sqrt(squares / energy); }
};

//! Error of the keys that lie in tiles, without position `left_out`.
template <class Scheme>
key_error tile_key_error(kv_cache<Scheme> const& cache, recorded_layer const& layer, std::int64_t left_out = -1) {
  key_error sum;
  std::vector<float> key(static_cast<std::size_t>(layer.head_dim)), value(key.size());
  for (int head = 0; head < static_cast<int>(layer.kv_heads); ++head) {
    for (std::int64_t token = 0; token < cache.tile_slots(); ++token) {
      token_place place{};
      REQUIRE(cache.read(head, token, key.data(), value.data(), &place) == status::ok);
      if (place != token_place::tile || token == left_out) continue;
      float const* exact = layer.k.data() + (head * layer.tokens + token) * layer.head_dim;
      for (std::size_t d = 0; d < key.size(); ++d) {
        double const e = static_cast<double>(exact[d]) - static_cast<double>(key[d]);
        sum.squares += e * e;
        sum.energy += static_cast<double>(exact[d]) * static_cast<double>(exact[d]);
      }
    }
  }
  return sum;
}

template <int Group>
auto kivi2() {
  auto scheme = schemes::kivi<2, Group>();
  scheme.flush = {0, Group};
  return scheme;
}
template <int Group>
auto ott2(int pool) {
  auto scheme = schemes::ott<2, Group>(pool);
  scheme.flush = {0, Group};
  return scheme;
}
//! 2-bit codes with one parameter set per token and Group channels, for keys that do not want it.
template <int Group>
auto per_token2() {
  using side_scheme = composed<affine<2, float16, kivi_convention>, per_token<Group>>;
  return kv_scheme<side_scheme, side_scheme>{.name = "per_token2"};
}

//! Mean relative error of the attention output when only the keys come from a cache: 32 Gaussian queries per head over
//! the first 16 tokens, values exact.
template <class Scheme>
double key_only_output_error(Scheme const& scheme, recorded_layer const& layer) {
  constexpr int tokens = 16, queries = 32;
  auto const cache = filled(scheme, layer, 32);
  std::size_t const width = static_cast<std::size_t>(layer.head_dim);
  std::mt19937 random(static_cast<unsigned>(layer.number));
  std::normal_distribution<double> normal;
  std::vector<std::int64_t> positions(tokens);
  for (std::size_t i = 0; i < tokens; ++i) positions[i] = static_cast<std::int64_t>(i);
  reference::attention_arguments arguments;
  arguments.softmax_scale = 1.0 / std::sqrt(static_cast<double>(width));
  double total = 0.0;
  for (int head = 0; head < static_cast<int>(layer.kv_heads); ++head) {
    std::vector<double> exact, decoded, values;
    std::vector<float> key(width), value(width);
    for (int t = 0; t < tokens; ++t) {
      REQUIRE(cache.read(head, t, key.data(), value.data()) == status::ok);
      std::int64_t const at = (head * layer.tokens + t) * layer.head_dim;
      for (std::size_t d = 0; d < width; ++d) {
        exact.push_back(static_cast<double>(layer.k[static_cast<std::size_t>(at) + d]));
        values.push_back(static_cast<double>(layer.v[static_cast<std::size_t>(at) + d]));
        decoded.push_back(static_cast<double>(key[d]));
      }
    }
    for (int i = 0; i < queries; ++i) {
      std::vector<double> query(width);
      for (double& q : query) q = normal(random);
      auto const right = reference::attend(query, tokens, {exact, values, positions, width, width}, arguments);
      auto const got = reference::attend(query, tokens, {decoded, values, positions, width, width}, arguments);
      double error = 0.0, norm = 0.0;
      for (std::size_t d = 0; d < width; ++d) {
        error += (right.output[d] - got.output[d]) * (right.output[d] - got.output[d]);
        norm += right.output[d] * right.output[d];
      }
      total += std::sqrt(error / norm);
    }
  }
  return total / static_cast<double>(layer.kv_heads * queries);
}

recorded_layers gpt2() {
  auto loaded = kvcrumb_compare::load_tensor_bytes(kvcrumb_compare::find_sample("sample_gpt2")->bytes, "sample_gpt2");
  REQUIRE(loaded);
  return *loaded;
}

}  // namespace

TEST_CASE("GPT-2's first token is an outlier: keeping it out of the group cuts the others' key error 1.4 to 3.6 times") {
  for (recorded_layer const& layer : gpt2().layers) {
    CAPTURE(layer.number);
    REQUIRE((layer.number >= 3 && layer.number <= 9));
    auto const traced = filled(ott2<16>(1), layer, 32);
    int sink_heads = 0;
    for (int head = 0; head < static_cast<int>(layer.kv_heads); ++head) {
      REQUIRE(traced.pool(head).size() == 1);
      sink_heads += traced.pool(head)[0].position == 0 ? 1 : 0;
    }
    CHECK(sink_heads >= 9);  // of 12
    double const ratio = tile_key_error(filled(kivi2<16>(), layer, 32), layer, 0).squares /
                         tile_key_error(traced, layer, 0).squares;
    CHECK(ratio > 1.35);
    CHECK(ratio < 3.6);
  }
}

TEST_CASE("on GPT-2 the smallest key is the right one to keep: the attention output error falls, a control does not") {
  double plain = 0.0, traced = 0.0, control = 0.0;
  auto const recorded = gpt2();
  for (recorded_layer const& layer : recorded.layers) {
    plain += key_only_output_error(kivi2<16>(), layer);
    traced += key_only_output_error(ott2<16>(1), layer);
    using kivi_type = decltype(kivi2<16>());
    kv_scheme<kivi_type::key_type, kivi_type::value_type, token_pool<negated<l1_score>>> const largest{
        .name = "control", .flush = {0, 16}, .isolate = {.capacity = 1}};
    control += key_only_output_error(largest, layer);
  }
  CAPTURE(plain, traced, control);
  CHECK(traced < 0.8 * plain);
  CHECK(control > 0.9 * plain);
}

TEST_CASE("Qwen2.5 layer 0: channel outliers want per-channel keys, and tracing changes nothing there") {
  auto const path = kvcrumb::test::real_data("qwen2.5-14b_layer0_220.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (qwen2.5-14b_layer0_220.safetensors)");
  auto const recorded = kvcrumb_compare::load_tensor_file(*path);
  REQUIRE(recorded);
  recorded_layer const& layer = recorded->layers.front();
  CHECK(tile_key_error(filled(kivi2<32>(), layer, 128), layer).relative() == test::Approx(0.090).margin(0.0005));
  CHECK(tile_key_error(filled(kivi2<64>(), layer, 128), layer).relative() == test::Approx(0.105).margin(0.0005));
  CHECK(tile_key_error(filled(kivi2<128>(), layer, 128), layer).relative() == test::Approx(0.118).margin(0.0005));
  CHECK(tile_key_error(filled(per_token2<32>(), layer, 128), layer).relative() == test::Approx(0.51).margin(0.005));
  CHECK(tile_key_error(filled(per_token2<128>(), layer, 128), layer).relative() == test::Approx(0.99).margin(0.005));
  CHECK(tile_key_error(filled(ott2<32>(3), layer, 128), layer).relative() == test::Approx(0.0901).margin(0.0003));
}

TEST_CASE("books16m has no outlier tokens: keeping three changes the key error by less than 0.002") {
  auto const path = kvcrumb::test::real_data("books16m_frankenstein_1024.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data (books16m_frankenstein_1024.safetensors)");
  auto const recorded = kvcrumb_compare::load_tensor_file(*path);
  REQUIRE(recorded);
  for (recorded_layer const& layer : recorded->layers) {
    CAPTURE(layer.number);
    double const plain = tile_key_error(filled(kivi2<128>(), layer, 128), layer).relative();
    double const traced = tile_key_error(filled(ott2<128>(3), layer, 128), layer).relative();
    CHECK(std::fabs(plain - traced) < 0.002);
  }
}
