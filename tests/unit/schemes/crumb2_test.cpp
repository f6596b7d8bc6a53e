// SPDX-License-Identifier: Apache-2.0
//! @file Our own recipe: its bytes, attention on them, and what it is better at than the systems it was
//! measured against.
#include "kvcrumb/schemes/crumb2.hpp"
#include "kvcrumb/schemes/kitty.hpp"
#include "kvcrumb/schemes/turboquant.hpp"
#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Without window and pool: every token that fills a group is in a tile.
template <class Scheme>
Scheme bare(Scheme scheme, int block) {
  scheme.flush = {0, block};
  if constexpr (Scheme::isolation_type::how == selection::smallest) scheme.isolate.capacity = 0;
  return scheme;
}

//! Kitty Pro without its sinks, which would leave a rest of exact tokens behind the last group.
using kitty_tiles =
    kv_scheme<schemes::kitty_type<128, 250>::key_type, schemes::kitty_type<128, 250>::value_type>;

//! Relative squared error of the keys that a cache gives back.
template <class Scheme>
double key_error(Scheme const& scheme, test::layer_rows const& rows) {
  auto const cache = test::filled(scheme, rows, 128);
  double error = 0.0, norm = 0.0;
  std::vector<float> k(test::size(rows.dim)), v(k.size());
  for (int h = 0; h < rows.heads; ++h) {
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      REQUIRE(cache.read(h, t, k.data(), v.data()) == status::ok);
      for (int d = 0; d < rows.dim; ++d) {
        double const x = static_cast<double>(rows.key(h, t)[d]),
                     e = x - static_cast<double>(k[test::size(d)]);
        error += e * e;
        norm += x * x;
      }
    }
  }
  return error / norm;
}

}  // namespace

TEST_CASE("crumb2: bits are those of the formula", "[schemes][crumb2]") {
  auto const rows = test::random_layer(3, 2, 1024, 128);
  auto const cache = test::filled(bare(schemes::crumb2(), 128), rows, 128);
  CHECK(cache.tail_tokens() == 0);
  double const keys = 2.0 + 2.0 * 0.25 + 32.0 / 128 + 8.0 * 0.25 / 128, values = 2.0 + 16.0 / 128;
  std::int64_t const blob = cache.blob_parts().bytes;
  CHECK(static_cast<double>(8 * blob) == (keys + values) * 128 * 128 + 128);  // and one mask bit a slot
  CHECK(cache.bits_per_value() <= 2.46);
}

TEST_CASE("crumb2: attention on the packed bytes is that over the decoded rows", "[schemes][crumb2]") {
  for (std::int64_t const tokens : {1, 63, 200, 345}) {
    auto scheme = schemes::crumb2<32>();
    scheme.flush = {9, 32};
    scheme.isolate.sinks = 2;
    auto const rows = test::random_layer(11, 2, tokens, 64, 4, 5);
    auto const cache = test::filled(scheme, rows, 64);
    int const queries = tokens > 1 ? 2 : 1;
    auto const q = test::random_queries(5, 6, queries, 64);
    auto const got = test::run_attention(cache.view(), q, 6, queries);
    REQUIRE(got.outcome == status::ok);
    auto const expected = test::expected_attention(test::decode_all(cache), 2, 64, q, 6, queries, {});
    for (std::size_t i = 0; i < got.output.size(); ++i)
      REQUIRE(std::fabs(static_cast<double>(got.output[i]) - expected.output[i]) < 2e-5);
    auto const file = test::saved(cache);
    auto twin = test::made(scheme, 2, {64, 64});
    REQUIRE(restore(std::span<std::byte const>{file}, scheme, twin) == status::ok);
    CHECK(test::saved(twin) == file);
  }
}

TEST_CASE("crumb2: a constant offset does not win a channel more bits", "[schemes][crumb2]") {
  // The last quarter of the channels is wide around zero, the first is narrow around a large constant.
  auto rows = test::random_layer(7, 1, 256, 128);
  for (std::int64_t t = 0; t < 256; ++t) {
    for (int d = 0; d < 128; ++d) {
      float& x = rows.keys[test::size(rows.at(0, t) + d)];
      if (d < 32) x = test::half(0.25f * x + 30.0f);
      if (d >= 96) x = test::half(4.0f * x);
    }
  }
  using by_magnitude =
      kv_scheme<channel_boost<2, 128, 250>, schemes::crumb2_type<>::value_type, token_pool<>>;
  double const range = key_error(bare(schemes::crumb2(), 128), rows),
               magnitude = key_error(bare(by_magnitude{}, 128), rows);
  CHECK(range < 0.4 * magnitude);
}

TEST_CASE("crumb2: recorded attention loses less than in other systems, at more bits too",
          "[schemes][crumb2]") {
  auto const path = test::real_data("books16m_frankenstein_1024.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data, books16m_frankenstein_1024.safetensors");
  int const queries = 32;
  std::ptrdiff_t const of_layer = std::ptrdiff_t{2} * 1024 * 128;
  auto const k = test::recorded_tensor(*path, "k"), v = test::recorded_tensor(*path, "v"),
             all_q = test::recorded_tensor(*path, "q");  // [6][2 or 4][1024][128]
  double ours = 0.0, kivi32 = 0.0, turboquant = 0.0, kitty = 0.0;
  for (int const layer : {1, 3, 5}) {  // not those in which the recipe was searched
    auto const part = [&](std::vector<float> const& x) {
      return std::vector<float>(x.begin() + layer * of_layer, x.begin() + (layer + 1) * of_layer);
    };
    test::layer_rows const rows{2, 1024, 128, part(k), part(v)};
    std::vector<float> q;
    for (int head = 0; head < 4; ++head) {
      auto const end = all_q.begin() + (layer * 4 + head + 1) * std::ptrdiff_t{1024} * 128;
      q.insert(q.end(), end - queries * 128, end);
    }
    auto const exact = test::expected_attention(test::as_doubles(rows), 2, 128, q, 4, queries, {});
    auto const error = [&](auto const& scheme) {
      auto const got = test::run_attention(test::filled(scheme, rows, 128).view(), q, 4, queries);
      REQUIRE(got.outcome == status::ok);
      double sum = 0.0;
      for (std::size_t row = 0; row < exact.output.size(); row += 128) {
        double e = 0.0, norm = 0.0;
        for (std::size_t i = row; i < row + 128; ++i) {
          double const d = exact.output[i] - static_cast<double>(got.output[i]);
          e += d * d;
          norm += exact.output[i] * exact.output[i];
        }
        sum += std::sqrt(e / norm);
      }
      return sum / static_cast<double>(exact.output.size() / 128);
    };
    ours += error(bare(schemes::crumb2(), 128));         // 2.45 bits
    kivi32 += error(bare(schemes::kivi<2, 32>(), 128));  // 3.00
    turboquant += error(schemes::turboquant<2>());       // 2.14
    kitty += error(bare(kitty_tiles{}, 128));            // 2.51
  }
  CAPTURE(ours, kivi32, turboquant, kitty);
  CHECK(ours < 0.95 * kivi32);
  CHECK(ours < 0.98 * turboquant);
  CHECK(ours < 0.8 * kitty);
}
