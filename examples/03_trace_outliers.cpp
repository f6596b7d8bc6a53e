// SPDX-License-Identifier: Apache-2.0
//! @file Outlier tokens: observe them with a tracer, then keep them exact with a token_pool.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

namespace {

constexpr int heads = 2, width = 128, group = 32;
constexpr std::int64_t tokens = 1024;
constexpr std::int64_t planted[] = {3, 200, 777};  // outlier tokens: keys of a tenth of the usual size

//! Keys as they are found in practice: four channels with a large mean, and tokens that lack it.
std::vector<float> make_rows(unsigned seed, bool keys) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> rows;
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      bool const outlier = keys && std::find(std::begin(planted), std::end(planted), t) != std::end(planted);
      for (int d = 0; d < width; ++d)
        rows.push_back(((keys && d < 4 ? 8.0f : 0.0f) + normal(engine)) * (outlier ? 0.1f : 1.0f));
    }
  }
  return rows;
}

//! Relative L2 error of what is in the tiles after appending everything; negative if something was refused.
template <class Scheme, class Tracer>
double encode(Scheme const& scheme, kvcrumb::kv_cache<Scheme>& cache, Tracer& norms) {
  using namespace kvcrumb;
  std::vector<float> const keys = make_rows(1, true), values = make_rows(2, false);
  if (kv_cache<Scheme>::create(scheme, {.kv_heads = heads, .shape = {width, 64}}, cache) != status::ok)
    return -1.0;
  // example-begin trace
  error_tracer errors;
  tracer_pair both{norms, errors};  // an observer is an argument; it never changes a byte
  status const s = cache.append(hnd_rows(keys.data(), tokens, width), hnd_rows(values.data(), tokens, width),
                                tokens, both);
  // example-end trace
  return s == status::ok ? std::sqrt(errors.relative(side::key)) : -1.0;
}

}  // namespace

int main() {
  using namespace kvcrumb;
  // 1. Observe: the L1 norm of every key that is encoded, isolated ones included.
  std::vector<float> norms(static_cast<std::size_t>(heads * tokens), 1e30f);
  row_norm_tracer tracer{side::key, norms.data(), tokens};
  kv_cache<schemes::kivi_type<2, group>> plain;
  double const plain_error = encode(schemes::kivi<2, group>(), plain, tracer);
  std::vector<std::int64_t> order(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < order.size(); ++t)
    order[t] = static_cast<std::int64_t>(t);
  std::partial_sort(order.begin(), order.begin() + 4, order.end(), [&](std::int64_t a, std::int64_t b) {
    return norms[static_cast<std::size_t>(a)] < norms[static_cast<std::size_t>(b)];
  });
  std::printf("smallest key norms of head 0:");
  for (std::size_t i = 0; i < 4; ++i)
    std::printf("  token %lld: %.1f", static_cast<long long>(order[i]),
                static_cast<double>(norms[static_cast<std::size_t>(order[i])]));
  std::printf("\n");

  // 2. Isolate: the same codes, but the pool of each kv head keeps the three smallest exact.
  kv_cache<schemes::ott_type<2, group>> traced;
  double const traced_error = encode(schemes::ott<2, group>(3), traced, tracer);
  bool good = plain_error > 0.0 && traced_error > 0.0 && traced_error < plain_error;
  // example-begin pool
  for (int head = 0; head < heads; ++head) {
    std::printf("head %d: pool", head);
    for (scored_token const& t : traced.pool(head))
      std::printf("  token %lld (L1 norm %.1f)", static_cast<long long>(t.position),
                  static_cast<double>(t.score));
    std::printf("; auxiliary pool: %zu tokens\n", traced.auxiliary(head).size());
    good = good && traced.pool(head).size() == 3;
    for (std::int64_t const p : planted)
      good = good && std::any_of(traced.pool(head).begin(), traced.pool(head).end(),
                                 [p](scored_token const& t) { return t.position == p; });
  }
  // example-end pool
  std::printf(
      "relative error of encoded keys: %.4f without, %.4f with isolation; %.3f and %.3f bits per value\n",
      plain_error, traced_error, plain.bits_per_value(), traced.bits_per_value());
  return good ? 0 : 1;
}
