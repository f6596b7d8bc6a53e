// SPDX-License-Identifier: Apache-2.0
//! @file What tracing is for: where keys contain outlier tokens, OTT-2's attention error is below that of
//! plain 2-bit groups of the same size and window; where they contain none, tracing makes no material
//! difference.
#include <filesystem>
#include <fstream>

#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Relative errors against full precision.
struct errors {
  double output = 0.0;  //!< attention output
  double keys = 0.0;    //!< all keys
};

template <class Scheme>
errors measured(Scheme const& scheme, test::layer_rows const& rows, int tile_tokens,
                std::vector<float> const& q, int query_heads, int queries) {
  auto cache = test::made(scheme, rows.heads, {rows.dim, tile_tokens});
  REQUIRE(cache.prefill(rows.key_rows(), rows.value_rows(), rows.tokens) == status::ok);
  auto const exact =
      test::expected_attention(test::as_doubles(rows), rows.heads, rows.dim, q, query_heads, queries, {});
  auto const got = test::run_attention(cache.view(), q, query_heads, queries);
  REQUIRE(got.outcome == status::ok);
  std::vector<double> const output(got.output.begin(), got.output.end());
  return {reference::relative_l2(output, exact.output),
          reference::relative_l2(test::decode_all(cache).keys, test::as_doubles(rows).keys)};
}

//! Queries as attention sinks make them: against the outlier channels, so that ordinary tokens score low and
//! tokens with small keys high.
std::vector<float> sink_queries(unsigned seed, int heads, int queries, int dim, int outlier_channels) {
  auto q = test::random_queries(seed, heads, queries, dim);
  for (std::size_t i = 0; i < q.size(); i += test::size(dim)) {
    for (int d = 0; d < outlier_channels; ++d)
      q[i + test::size(d)] = d % 2 == 0 ? -4.0f : 4.0f;
  }
  return q;
}

constexpr int dim = 128, query_heads = 2, queries = 8;

}  // namespace

TEST_CASE("synthetic outlier tokens: traced below untraced", "[integration][outlier]") {
  unsigned const seed = GENERATE(1u, 2u, 3u, 4u, 5u);
  std::int64_t const tokens = GENERATE(256, 1024);
  // 4 outlier channels, 3 tokens with 0.15 times the key; same window and groups for both.
  test::layer_rows const rows = test::random_layer(seed, 1, tokens, dim, 4, 3);
  auto const q = sink_queries(seed + 100, query_heads, queries, dim, 4);
  errors const plain = measured(schemes::ott(0), rows, 128, q, query_heads, queries);
  errors const traced = measured(schemes::ott(3), rows, 128, q, query_heads, queries);
  CAPTURE(seed, tokens, plain.output, traced.output, plain.keys, traced.keys);
  CHECK(traced.output < 0.8 * plain.output);
  CHECK(traced.keys < plain.keys);
  // Groups of 32, and one pool place too few: still better than nothing.
  errors const plain32 = measured(schemes::ott<2, 32>(0), rows, 128, q, query_heads, queries);
  errors const traced32 = measured(schemes::ott<2, 32>(3), rows, 128, q, query_heads, queries);
  CAPTURE(plain32.output, traced32.output);
  CHECK(traced32.output < plain32.output);
  CHECK(traced32.keys < plain32.keys);
}

TEST_CASE("without outlier tokens tracing makes no material difference", "[integration][outlier]") {
  unsigned const seed = GENERATE(1u, 2u, 3u, 4u, 5u);
  test::layer_rows const rows = test::random_layer(seed, 1, 1024, dim, 4, 0);
  auto const q = test::random_queries(seed + 100, query_heads, queries, dim, 0.5);
  errors const plain = measured(schemes::ott(0), rows, 128, q, query_heads, queries);
  errors const traced = measured(schemes::ott(3), rows, 128, q, query_heads, queries);
  CAPTURE(seed, plain.output, traced.output, plain.keys, traced.keys);
  CHECK(std::fabs(traced.output / plain.output - 1.0) < 0.05);
  CHECK(std::fabs(traced.keys / plain.keys - 1.0) < 0.03);
}

TEST_CASE("the wrong end of the norms does not help", "[integration][outlier]") {
  // The control of the mechanism: the same pool, spent on the tokens with the largest keys.
  test::layer_rows const rows = test::random_layer(7, 1, 1024, dim, 4, 3);
  auto const q = sink_queries(107, query_heads, queries, dim, 4);
  using side_types = schemes::ott_type<2>;
  kv_scheme<side_types::key_type, side_types::value_type, token_pool<negated<l1_score>>> largest;
  largest.flush = {32, 128};
  errors const plain = measured(schemes::ott(0), rows, 128, q, query_heads, queries);
  errors const traced = measured(schemes::ott(3), rows, 128, q, query_heads, queries);
  errors const wrong = measured(largest, rows, 128, q, query_heads, queries);
  CAPTURE(plain.output, traced.output, wrong.output);
  CHECK(wrong.output > 0.9 * plain.output);
  CHECK(traced.output < wrong.output);
}

TEST_CASE("recorded GPT-2 keys: traced below untraced", "[integration][outlier]") {
  // F16 [7 layers][12 heads][21 tokens][64], keys, then values; token 0 of these layers has a small key.
  std::filesystem::path const path = std::filesystem::path{KVCRUMB_GOLDEN_DIR} / ".." / ".." / "examples" /
                                     "compare" / "sample_gpt2.safetensors";
  std::ifstream file{path, std::ios::binary};
  if (!file) KVCRUMB_TEST_SKIP("skipped: no embedded GPT-2 sample");
  std::uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), 8);
  std::size_t const per_layer = 12 * 21 * 64;
  std::vector<float16> all(2 * 7 * per_layer);
  file.seekg(static_cast<std::streamoff>(8 + header));
  file.read(reinterpret_cast<char*>(all.data()), static_cast<std::streamsize>(all.size() * 2));
  REQUIRE(file.gcount() == static_cast<std::streamsize>(all.size() * 2));
  double plain_sum = 0.0, traced_sum = 0.0;
  int better = 0;
  for (std::size_t layer = 0; layer < 7; ++layer) {
    test::layer_rows rows{12, 21, 64, {}, {}};
    for (std::size_t i = 0; i < per_layer; ++i) {
      rows.keys.push_back(to_float(all[layer * per_layer + i]));
      rows.values.push_back(to_float(all[(7 + layer) * per_layer + i]));
    }
    // No queries were recorded. GPT-2 attends to token 0: along its key against the mean of the others, plus
    // noise.
    auto q = test::random_queries(static_cast<unsigned>(layer), 12, 4, 64, 0.5);
    for (int h = 0; h < 12; ++h) {
      for (std::size_t d = 0; d < 64; ++d) {
        float mean = 0.0f;
        for (std::int64_t t = 1; t < 21; ++t)
          mean += rows.key(h, t)[d] / 20.0f;
        for (std::size_t i = 0; i < 4; ++i)
          q[(static_cast<std::size_t>(h) * 4 + i) * 64 + d] += 0.1f * (rows.key(h, 0)[d] - mean);
      }
    }
    auto const with_pool = [&](int pool) {
      using side_types = schemes::ott_type<2, 16>;
      side_types scheme = schemes::ott<2, 16>(pool);
      scheme.flush = {5, 16};
      return measured(scheme, rows, 32, q, 12, 4).output;
    };
    double const plain = with_pool(0), traced = with_pool(1);
    plain_sum += plain;
    traced_sum += traced;
    better += traced < plain ? 1 : 0;
  }
  CAPTURE(plain_sum, traced_sum, better);
  CHECK(better == 7);
  CHECK(traced_sum < 0.9 * plain_sum);
}
