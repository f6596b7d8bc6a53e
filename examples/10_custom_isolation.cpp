// SPDX-License-Identifier: Apache-2.0
//! @file A score, an isolation policy and a tracer of one's own.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

using namespace kvcrumb;

// example-begin score
//! Magnitude of one channel: finds tokens that lack the value of a known outlier channel. Small means
//! outlier.
struct channel_score {
  static constexpr char const* name = "channel";
  int channel = 0;
  float operator()(float const* row, int /*head_dim*/) const noexcept {
    return row[channel] < 0.0f ? -row[channel] : row[channel];
  }
};
static_assert(token_score<channel_score>);
// example-end score

// example-begin isolation
//! The two first tokens are sinks, then a pool of the smallest L2 norms over the whole layer.
struct sinks_and_pool {
  static constexpr char const* name = "sinks_and_pool";
  static constexpr selection how = selection::smallest;
  int sink_tokens() const noexcept { return 2; }
  int pool_capacity() const noexcept { return 4; }
  int aux_capacity() const noexcept { return 16; }
  pool_scope scope() const noexcept { return pool_scope::per_layer; }
  float score(float const* row, int head_dim) const noexcept { return l2_score{}(row, head_dim); }
};
static_assert(isolation<sinks_and_pool>);
// example-end isolation

// example-begin tracer
//! Counts encoded values of one side that are off by more than a limit; only on_element, so rows and scores
//! cost nothing.
struct large_error_tracer {
  side which = side::key;
  float limit = 0.0f;
  std::int64_t count = 0;

  void on_element(element_coordinate c, float x, float x_hat) noexcept {
    float const e = x - x_hat;
    if (c.which == which && (e > limit || e < -limit)) ++count;
  }
};
static_assert(tracer<large_error_tracer>);
// example-end tracer

namespace {

constexpr int heads = 2, width = 64;
constexpr std::int64_t tokens = 512, odd_one = 300;

template <class Isolation>
bool run(char const* name, Isolation const& isolate) {
  std::mt19937 engine{17};
  std::normal_distribution<float> normal;
  std::vector<float> keys, values;
  for (std::int64_t i = 0; i < heads * tokens; ++i) {
    for (int d = 0; d < width; ++d) {  // channel 5 is near 10, but not in token 300
      bool const odd = i % tokens == odd_one;
      keys.push_back(odd ? 0.1f * normal(engine) : (d == 5 ? 10.0f : 0.0f) + normal(engine));
      values.push_back(normal(engine));
    }
  }
  using rows_type = schemes::kivi_type<2, 32>;
  using scheme_type = kv_scheme<rows_type::key_type, rows_type::value_type, Isolation>;
  scheme_type const scheme{.name = "mine", .flush = {0, 32}, .isolate = isolate};
  kv_cache<scheme_type> cache;
  large_error_tracer errors{.which = side::key, .limit = 1.0f};
  if (kv_cache<scheme_type>::create(scheme, {.kv_heads = heads, .shape = {width, 64}}, cache) != status::ok)
    return false;
  status const s = cache.append(hnd_rows(keys.data(), tokens, width), hnd_rows(values.data(), tokens, width),
                                tokens, errors);
  bool found = s == status::ok;
  for (int head = 0; head < heads; ++head)
    found = found && std::any_of(cache.pool(head).begin(), cache.pool(head).end(),
                                 [](scored_token const& t) { return t.position == odd_one; });
  std::printf(
      "%-16s %lld sinks, %zu in the pool of head 0, %lld key values off by more than 1: token 300 %s\n", name,
      static_cast<long long>(cache.sink_tokens()), cache.pool(0).size(), static_cast<long long>(errors.count),
      found ? "isolated" : "MISSED");
  return found;
}

}  // namespace

int main() {
  bool const by_channel =
      run("channel_score", token_pool<channel_score>{.capacity = 2, .measure = {.channel = 5}});
  bool const by_policy = run("sinks_and_pool", sinks_and_pool{});
  return by_channel && by_policy ? 0 : 1;
}
