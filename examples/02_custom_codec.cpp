// SPDX-License-Identifier: Apache-2.0
//! @file A codec of one's own inside `composed`: 4-bit codes whose levels are signed powers of two.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

// example-begin codec
//! code = sign << 3 | e, level = +-2^-e for e in [0, 7]; the scale is max|x|. Multiplying by a level is a
//! shift.
struct power_of_two {
  static constexpr int bits = 4, planes = 1, levels = 15;
  using param_type = kvcrumb::float16;

  struct statistics {
    float largest = 0.0f;
    bool finite = true;
  };
  statistics lift(float x) const noexcept { return {x < 0.0f ? -x : x, kvcrumb::is_finite_bits(x)}; }
  static statistics merge(statistics a, statistics b) noexcept {
    return {a.largest < b.largest ? b.largest : a.largest, a.finite && b.finite};
  }

  //! Parameters as they are stored: rounded here, so that encode() and every reader see the same value.
  kvcrumb::group_params fit(statistics s, int /*n*/) const noexcept {
    if (!s.finite) return kvcrumb::poisoned_params();
    return {{kvcrumb::to_float(kvcrumb::from_float_up<param_type>(s.largest)), 0.0f}, 0.0f};
  }
  unsigned encode(float x, kvcrumb::group_params const& p) const noexcept {
    if (!(p.value[0] > 0.0f)) return 7u;  // all values are zero, or the group holds a NaN
    float const magnitude = kvcrumb::div_rn(x < 0.0f ? -x : x, p.value[0]);
    unsigned e = 0;
    while (e < 7 && magnitude < 0.75f * level(e))  // 0.75 * 2^-e lies halfway between 2^-e and 2^-(e+1)
      ++e;
    return x < 0.0f ? e | 8u : e;
  }
  //! x_hat = gain * unit(code) + bias
  float unit(unsigned code) const noexcept { return (code & 8u) != 0 ? -level(code & 7u) : level(code & 7u); }
  kvcrumb::linear_params linear(kvcrumb::group_params const& p) const noexcept { return {p.value[0], 0.0f}; }
  static constexpr void describe(kvcrumb::description& d) noexcept { d << "power_of_two4(f16)"; }

 private:
  static float level(unsigned e) noexcept { return 1.0f / static_cast<float>(1u << e); }
};
static_assert(kvcrumb::codec<power_of_two>);

using power_of_two_scheme = kvcrumb::kv_scheme<kvcrumb::composed<power_of_two, kvcrumb::per_token<32>>,
                                               kvcrumb::composed<power_of_two, kvcrumb::per_token<32>>>;
static_assert(power_of_two_scheme::row_independent);
// example-end codec

namespace {

//! Relative L2 error of the keys of 512 normal tokens, read back; negative if something was refused.
template <class Scheme>
double key_error(Scheme const& scheme) {
  using namespace kvcrumb;
  constexpr int width = 96;
  constexpr std::int64_t tokens = 512;
  std::mt19937 engine{7};
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<std::size_t>(tokens * width));
  for (float& x : rows)
    x = normal(engine);
  auto const view = hnd_rows(rows.data(), tokens, width);

  kv_cache<Scheme> cache;
  error_tracer errors;
  cache_config const config{.kv_heads = 1, .shape = {.head_dim = width, .tile_tokens = 64}};
  if (kv_cache<Scheme>::create(scheme, config, cache) != status::ok) return -1.0;
  if (cache.append(view, view, tokens, errors) != status::ok) return -1.0;
  std::printf("%-14s %.3f bits per value, relative error of keys %.4f\n", scheme.name, cache.bits_per_value(),
              std::sqrt(errors.relative(side::key)));
  return std::sqrt(errors.relative(side::key));
}

}  // namespace

int main() {
  power_of_two_scheme mine{.name = "power_of_two"};
  double const error = key_error(mine);
  double const uniform = key_error(kvcrumb::schemes::q4_0());
  // A magnitude between 0.75 * 2^-e and 1.5 * 2^-e becomes 2^-e: off by at most a third.
  return error > 0.0 && error < 1.0 / 3.0 && uniform > 0.0 ? 0 : 1;
}
