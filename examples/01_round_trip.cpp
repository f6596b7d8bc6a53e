// SPDX-License-Identifier: Apache-2.0
//! @file Append, read back, attend, measured bits: the example of the README.

// example-begin host
#include <kvcrumb/kvcrumb.hpp>
#include <vector>

using namespace kvcrumb;

//! One decode step over n cached tokens: 2 kv heads, 8 query heads, rows [head][token][128].
status decode(float const* keys, float const* values, std::int64_t n, float const* q, float* o) {
  kv_cache<schemes::ott_type<2>> cache;  // 2-bit codes; outlier tokens and the newest tokens stay exact
  cache_config const config{.kv_heads = 2, .shape = {.head_dim = 128, .tile_tokens = 128}};
  if (status const s = decltype(cache)::create(schemes::ott(), config, cache); s != status::ok) return s;
  status const s = cache.append(hnd_rows(keys, n, 128), hnd_rows(values, n, 128), n);
  if (s != status::ok) return s;
  std::vector<float> work(static_cast<std::size_t>(attend_workspace(cache.view(), 8, 1)));
  return attend(cache.view(), hnd_rows(q, 1, 128), 8, 1, hnd_rows(o, 1, 128), nullptr, {}, work);
}
// example-end host

#include <cmath>
#include <cstdio>
#include <random>

namespace {

constexpr int heads = 2, width = 128;
constexpr std::int64_t tokens = 1000;

std::vector<float> normal_rows(unsigned seed, std::int64_t rows) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(rows * width));
  for (float& v : x)
    v = to_float(from_float<float16>(normal(engine)));  // fp16 values
  return x;
}

}  // namespace

int main() {
  std::vector<float> const keys = normal_rows(1, heads * tokens), values = normal_rows(2, heads * tokens);
  std::vector<float> const queries = normal_rows(3, 8);
  std::vector<float> output(8 * width);
  status outcome = decode(keys.data(), values.data(), tokens, queries.data(), output.data());
  std::printf("decode: %s, first output %.4f\n", to_string(outcome), static_cast<double>(output[0]));
  bool good = outcome == status::ok && std::isfinite(output[0]);

  // example-begin read
  using cache_type = kv_cache<schemes::ott_type<2>>;
  cache_type cache, one_by_one;
  if (cache_type::create(schemes::ott(), {.kv_heads = heads}, cache) != status::ok) return 1;
  one_by_one = cache;
  outcome =
      cache.append(hnd_rows(keys.data(), tokens, width), hnd_rows(values.data(), tokens, width), tokens);
  good = good && outcome == status::ok;

  std::int64_t places[5] = {};  // sink, tile, pool, auxiliary, tail
  double error = 0.0, square = 0.0;
  std::vector<float> key(width), value(width);
  for (std::int64_t t = 0; t < tokens; ++t) {
    token_place place{};
    good = good && cache.read(0, t, key.data(), value.data(), &place) == status::ok;
    ++places[static_cast<int>(place)];
    for (std::size_t d = 0; d < width; ++d) {
      float const x = keys[static_cast<std::size_t>(t * width) + d];
      if (place != token_place::tile) good = good && key[d] == x;  // everything outside the tiles is exact
      error += static_cast<double>((key[d] - x) * (key[d] - x));
      square += static_cast<double>(x * x);
    }
  }
  // example-end read
  std::printf("head 0: %lld in tiles, %lld in the pool, %lld in the auxiliary pool, %lld in the tail\n",
              static_cast<long long>(places[1]), static_cast<long long>(places[2]),
              static_cast<long long>(places[3]), static_cast<long long>(places[4]));
  std::printf("keys: relative L2 error %.3f; cache: %lld bytes, %.3f bits per value\n",
              std::sqrt(error / square), static_cast<long long>(cache.bytes_used()), cache.bits_per_value());
  good = good && places[1] + places[2] + places[3] + places[4] == tokens && error < 0.3 * square;

  for (std::int64_t t = 0; t < tokens; ++t) {  // the same tokens, one call each
    rows_view<float const> const k{keys.data() + t * width, tokens * width, width};
    rows_view<float const> const v{values.data() + t * width, tokens * width, width};
    if (one_by_one.append(k, v, 1) != status::ok) return 1;
  }
  std::vector<std::byte> a(static_cast<std::size_t>(saved_bytes(cache)));
  std::vector<std::byte> b(static_cast<std::size_t>(saved_bytes(one_by_one)));
  good = save(cache, a) == status::ok && save(one_by_one, b) == status::ok && a == b && good;
  std::printf("one append of %lld tokens and %lld appends of one: %s\n", static_cast<long long>(tokens),
              static_cast<long long>(tokens), a == b ? "the same bytes" : "DIFFERENT BYTES");
  return good ? 0 : 1;
}
