// SPDX-License-Identifier: Apache-2.0
//! @file Attention on a packed cache: grouped queries, two draft tokens, exact first tokens, a window and
//! learned sinks; then the same in two parts joined by merge_outputs, and both against double precision.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/reference/attention.hpp>

namespace {

constexpr int kv_heads = 2, query_heads = 8, width = 64, drafts = 2;
constexpr std::int64_t tokens = 500;
constexpr auto count(std::int64_t n) { return static_cast<std::size_t>(n); }
std::vector<float> normal_rows(unsigned seed, std::int64_t rows) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> x(count(rows * width));
  for (float& v : x)
    v = normal(engine);
  return x;
}

}  // namespace

int main() {
  using namespace kvcrumb;
  std::vector<float> const keys = normal_rows(1, kv_heads * tokens);
  std::vector<float> const values = normal_rows(2, kv_heads * tokens);
  std::vector<float> const q = normal_rows(3, query_heads * drafts);
  // The first four tokens stay exact; everything else is QServe's 4-bit code, one scale and zero per row.
  using rows_type = schemes::qserve4_type<>;
  using scheme_type = kv_scheme<rows_type::key_type, rows_type::value_type, prefix<4>>;
  kv_cache<scheme_type> cache;
  cache_config const config{.kv_heads = kv_heads, .shape = {.head_dim = width, .tile_tokens = 64}};
  if (kv_cache<scheme_type>::create({.name = "qserve4+4"}, config, cache) != status::ok) return 1;
  status s =
      cache.append(hnd_rows(keys.data(), tokens, width), hnd_rows(values.data(), tokens, width), tokens);
  if (s != status::ok) return 1;

  // example-begin attend
  // The two drafts are the newest tokens, positions 498 and 499; the first does not see the second.
  std::vector<float> const sinks(query_heads, 0.5f);  // a learned logit per query head, denominator only
  attention_options options;
  options.window = 256;  // a query at p sees positions p - 255 to p
  options.sink_logits = sinks.data();

  auto const view = cache.view();
  std::vector<float> work(count(attend_workspace(view, query_heads, drafts)));
  std::vector<float> o(count(query_heads * drafts * width)), lse(count(query_heads * drafts));
  rows_view<float const> const queries = hnd_rows(q.data(), drafts, width);
  auto const out = [](std::vector<float>& x) { return hnd_rows(x.data(), drafts, width); };
  s = attend(view, queries, query_heads, drafts, out(o), lse.data(), options, work);
  // example-end attend
  if (s != status::ok) return 1;

  // example-begin parts
  // Two workers; the learned sink and the exact rows belong to exactly one of them.
  std::vector<float> o_b(o.size()), lse_b(lse.size()), joined(o.size()), joined_lse(lse.size());
  options.part = {.first_tile = 0, .end_tile = 5, .exact_rows = true};
  s = attend(view, queries, query_heads, drafts, out(joined), joined_lse.data(), options, work);
  if (s != status::ok) return 1;
  options.part = {.first_tile = 5, .end_tile = view.tiles(), .exact_rows = false};
  s = attend(view, queries, query_heads, drafts, out(o_b), lse_b.data(), options, work);
  if (s != status::ok) return 1;
  for (std::size_t i = 0; i < lse.size(); ++i)
    merge_outputs(joined.data() + i * width, joined_lse[i], o_b.data() + i * width, lse_b[i], width);
  // example-end parts

  // Double precision on what the cache reads back: only the rounding of attention itself is left.
  std::vector<double> k, v, qd(q.begin(), q.end()), sink(sinks.begin(), sinks.end());
  std::vector<float> key(width), value(width);
  std::vector<std::int64_t> positions(tokens), query_positions{tokens - 2, tokens - 1};
  for (std::int64_t row = 0; row < kv_heads * tokens; ++row) {
    positions[count(row % tokens)] = row % tokens;
    int const head = static_cast<int>(row / tokens);
    if (cache.read(head, row % tokens, key.data(), value.data()) != status::ok) return 1;
    k.insert(k.end(), key.begin(), key.end());
    v.insert(v.end(), value.begin(), value.end());
  }
  auto const exact = reference::attend_grouped(
      {qd, k, v, query_positions, positions, sink, query_heads, kv_heads, width, width},
      {.softmax_scale = 1.0 / std::sqrt(double{width}), .window = 256});
  auto const difference = [](std::vector<float> const& x, std::vector<double> const& y) {
    double worst = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i)
      worst = std::fmax(worst, std::fabs(static_cast<double>(x[i]) - y[i]));
    return worst;
  };
  double const whole = difference(o, exact.output), parts = difference(joined, exact.output);
  double const of_lse = difference(lse, exact.log_sum_exp);
  std::printf("largest difference from double precision: output %.2g, in two parts %.2g, log-sum-exp %.2g\n",
              whole, parts, of_lse);
  return whole < 1e-5 && parts < 1e-5 && of_lse < 1e-5 ? 0 : 1;
}
