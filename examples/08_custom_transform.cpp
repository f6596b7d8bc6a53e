// SPDX-License-Identifier: Apache-2.0
//! @file A transform and a grouping of one's own: fixed factors per channel, and groups of half a head.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

using namespace kvcrumb;

// example-begin transform
//! x' = x * factor[head][channel]; factors are powers of two, so nothing is rounded. The dual: queries are
//! divided by them, and so are outputs. The factors are the caller's and must outlive the transform.
struct channel_factors {
  static constexpr char const* name = "channel_factors";
  float const* factors = nullptr;  //!< [kv_heads][head_dim]

  void forward(int head, int head_dim, float* x) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      x[d] *= factors[head * head_dim + d];
  }
  //! <q, x> = <q', x'> + offset; returns the offset.
  float query(int head, int head_dim, float* q) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      q[d] /= factors[head * head_dim + d];
    return 0.0f;
  }
  //! From sum of w_t x'_t to sum of w_t x_t; the sum of the weights matters to transforms that shift.
  void inverse(int head, int head_dim, float* o, float /*sum*/) const noexcept { query(head, head_dim, o); }
  //! What else decides the bytes: a cache saved with other factors is refused.
  std::uint64_t id(int kv_heads, int head_dim) const noexcept {
    return crc32(std::as_bytes(std::span(factors, static_cast<std::size_t>(kv_heads * head_dim))));
  }
};
static_assert(transform<channel_factors>);
// example-end transform

// example-begin grouping
//! Two parameter sets per token and head, whatever head_dim is.
struct per_half_row {
  static constexpr char const* name = "per_half_row";
  static constexpr bool channelwise = false;  // a group belongs to a token and runs along channels
  static constexpr int size = 0;              // no fixed length; only described and limited by `composed`
  static constexpr int append_tokens = 1;     // row-independent
  static constexpr int group_length(int head_dim) noexcept { return head_dim / 2; }
  static constexpr int head_span(int /*head_dim*/) noexcept { return 1; }
  static constexpr bool fits(int head_dim, int /*tile_tokens*/) noexcept { return head_dim % 2 == 0; }
};
static_assert(grouping<per_half_row>);

template <class Transform>
using half_row_type =
    kv_scheme<composed<affine<4>, per_half_row, Transform>, composed<affine<4>, per_half_row>>;
// example-end grouping

namespace {

constexpr int heads = 2, width = 64;
constexpr std::int64_t tokens = 256;

template <class Scheme>
double key_error(Scheme const& scheme, std::vector<float> const& rows) {
  kv_cache<Scheme> cache;
  if (kv_cache<Scheme>::create(scheme, {.kv_heads = heads, .shape = {width, 64}}, cache) != status::ok)
    return -1.0;
  auto const view = hnd_rows(rows.data(), tokens, width);
  if (cache.append(view, view, tokens) != status::ok) return -1.0;
  double error = 0.0, square = 0.0;
  std::vector<float> key(width), value(width);
  for (std::int64_t i = 0; i < heads * tokens; ++i) {
    if (cache.read(static_cast<int>(i / tokens), i % tokens, key.data(), value.data()) != status::ok)
      return -1.0;
    for (std::size_t d = 1; d < width; ++d) {  // all channels but the large one
      double const x = static_cast<double>(rows[static_cast<std::size_t>(i) * width + d]);
      error += (static_cast<double>(key[d]) - x) * (static_cast<double>(key[d]) - x);
      square += x * x;
    }
  }
  return std::sqrt(error / square);
}

}  // namespace

int main() {
  std::mt19937 engine{11};
  std::normal_distribution<float> normal;
  std::vector<float> rows(heads * tokens * width), factors(heads * width, 1.0f);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = normal(engine) * (i % width == 0 ? 16.0f : 1.0f);  // channel 0 is sixteen times as large
  for (std::size_t head = 0; head < heads; ++head)
    factors[head * width] = 1.0f / 16.0f;

  double const plain = key_error(half_row_type<identity>{}, rows);
  double const scaled =
      key_error(half_row_type<channel_factors>{.key = {.codec = {}, .transform = {factors.data()}}}, rows);
  std::printf("relative error of the other channels: %.4f plain, %.4f with channel factors\n", plain, scaled);
  return plain > 0.0 && scaled > 0.0 && scaled < 0.5 * plain ? 0 : 1;
}
