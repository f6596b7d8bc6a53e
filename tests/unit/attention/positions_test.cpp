// SPDX-License-Identifier: Apache-2.0
//! @file Keys whose score depends on the position, and caches that hold only some tokens of a sequence.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using rows4 = composed<affine<4>, per_row>;

//! Scores fall by a hundredth for each position: an additive bias inside the key scheme.
struct fading : rows4 {
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return rows4::query_floats(head_dim); }
  float score_at(tile_shape shape, float const* q, std::byte const* section, int slot,
                 std::int64_t position) const noexcept {
    return rows4::score(shape, q, section, slot) + bias(position);
  }
  float score_row_at(int head_dim, float const* q, float const* row, std::int64_t position) const noexcept {
    return dot(q, row, head_dim) + bias(position);
  }
  static float bias(std::int64_t position) noexcept { return 0.05f * static_cast<float>(position % 97); }
};
static_assert(positional_key<fading> && key_scheme<fading> && !positional_key<rows4>);

using fading_scheme = kv_scheme<fading, rows4, token_pool<>>;

//! The tokens of a layer that are held: every one for which keep(t) is true.
test::layer_rows some_of(test::layer_rows const& all, std::vector<std::int64_t> const& held) {
  test::layer_rows r{all.heads, static_cast<std::int64_t>(held.size()), all.dim, {}, {}};
  for (int h = 0; h < all.heads; ++h) {
    for (std::int64_t const t : held) {
      r.keys.insert(r.keys.end(), all.key(h, t), all.key(h, t) + all.dim);
      r.values.insert(r.values.end(), all.value(h, t), all.value(h, t) + all.dim);
    }
  }
  return r;
}

//! Attention in double over decoded rows at these positions, one query head for each kv head.
double worst_error(test::decoded_rows const& rows, int heads, int dim, std::vector<std::int64_t> const& at,
                   std::vector<float> const& q, int queries, std::int64_t first_query, std::int64_t window,
                   bool biased, std::vector<float> const& got) {
  double worst = 0.0;
  std::int64_t const n = static_cast<std::int64_t>(at.size());
  for (int h = 0; h < heads; ++h) {
    for (int j = 0; j < queries; ++j) {
      std::int64_t const position = first_query + j;
      std::vector<double> o(test::size(dim), 0.0);
      double sum = 0.0;
      for (std::int64_t t = 0; t < n; ++t) {
        std::int64_t const key = at[test::size(t)];
        if (key > position || (window > 0 && key <= position - window)) continue;
        double s = biased ? static_cast<double>(fading::bias(key)) : 0.0;
        for (int d = 0; d < dim; ++d)
          s += static_cast<double>(q[test::size((h * queries + j) * dim + d)]) *
               rows.keys[test::size((h * n + t) * dim + d)];
        double const w = std::exp(s / std::sqrt(static_cast<double>(dim)));
        sum += w;
        for (int d = 0; d < dim; ++d)
          o[test::size(d)] += w * rows.values[test::size((h * n + t) * dim + d)];
      }
      for (int d = 0; d < dim; ++d) {
        double const expected = sum > 0.0 ? o[test::size(d)] / sum : 0.0;
        worst = std::max(
            worst, std::fabs(expected - static_cast<double>(got[test::size((h * queries + j) * dim + d)])));
      }
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("a positional key scheme is told where slots and exact rows stand", "[attention][positions]") {
  std::int64_t const tokens = GENERATE(1, 40, 130);
  test::layer_rows const rows = test::random_layer(7, 2, tokens, 64, 0, 4);
  fading_scheme scheme;
  scheme.flush = {6, 1};
  scheme.isolate = {.capacity = 2, .auxiliary = 3, .sinks = 2};
  auto const cache = test::filled(scheme, rows, 32);
  std::vector<std::int64_t> at(test::size(tokens));
  for (std::int64_t t = 0; t < tokens; ++t)
    at[test::size(t)] = t;
  auto const q = test::random_queries(3, 2, 1, 64);
  auto const got = test::run_attention(cache.view(), q, 2, 1);
  REQUIRE(got.outcome == status::ok);
  CHECK(worst_error(test::decode_all(cache), 2, 64, at, q, 1, tokens - 1, 0, true, got.output) < 1e-5);
}

TEST_CASE("held tokens have the positions that the view says", "[attention][positions]") {
  test::layer_rows const all = test::random_layer(9, 2, 300, 64, 0, 4);
  std::vector<std::int64_t> held{0, 1, 2};
  for (std::int64_t t = 5; t < 290; t += 3)
    held.push_back(t);
  for (std::int64_t t = 295; t < 300; ++t)
    held.push_back(t);
  auto const n = static_cast<std::int64_t>(held.size());
  fading_scheme biased;
  biased.flush = {4, 1};
  biased.isolate = {.capacity = 2, .auxiliary = 3, .sinks = 2};
  kv_scheme<rows4, rows4, token_pool<>> plain;
  plain.flush = biased.flush;
  plain.isolate = biased.isolate;
  auto const q = test::random_queries(3, 2, 3, 64);
  auto const check = [&](auto const& scheme, bool with_bias) {
    auto const cache = test::filled(scheme, some_of(all, held), 32);
    auto view = cache.view();
    std::vector<std::int64_t> twice(held);  // one list for each head
    twice.insert(twice.end(), held.begin(), held.end());
    view.where = {twice.data(), n};
    view.sequence = 300;
    for (std::int64_t const window : {0, 40}) {
      attention_options options;
      options.window = window;
      auto const got = test::run_attention(view, q, 2, 3, options);
      REQUIRE(got.outcome == status::ok);
      CHECK(worst_error(test::decode_all(cache), 2, 64, held, q, 3, 297, window, with_bias, got.output) <
            1e-5);
    }
  };
  check(plain, false);
  check(biased, true);
}
