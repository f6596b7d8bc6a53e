// SPDX-License-Identifier: Apache-2.0
//! @file A key scheme that cannot decode: one sign bit per rotated channel and an fp16 norm. Cache and
//! attention take it because they see nothing but the scheme concepts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

// example-begin scheme
using namespace kvcrumb;

//! Keeps sign(H k) and |k|, D / 8 + 2 bytes a slot; score = |k| sqrt(pi / 2 / D) <H q, sign(H k)> estimates
//! <q, k> (after QJL, arXiv 2406.03482, with a Hadamard rotation instead of a Gaussian projection).
struct sign_sketch {
  static constexpr int append_tokens = 1;
  hadamard<> rotation{};

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::key || heads < 1) return status::bad_shape;
    if (shape.head_dim % 8 != 0) return status::bad_head_dim;
    return check_shape(shape);
  }
  constexpr std::int64_t section_bytes(side, tile_shape shape) const noexcept {
    return std::int64_t{shape.tile_tokens} * slot_bytes(shape);
  }
  template <class Tracer>
  void encode(side, tile_shape shape, encode_request const& r, Tracer&) const noexcept {
    for (int i = 0; i < r.heads * r.count; ++i) {
      int const head = i / r.count, slot = r.slot + i % r.count;
      float* row = r.rows + std::int64_t{i} * shape.head_dim;
      std::byte* out = r.sections[head] + slot * slot_bytes(shape);
      auto const square = [&](int d) { return mul_rn(row[d], row[d]); };
      float const norm = sqrt_rn(tree_fold(shape.head_dim, square, add_rn));
      rotation.forward(head, shape.head_dim, row);
      for (int d = 0; d < shape.head_dim; ++d)
        store_bits(out, d, 1, row[d] < 0.0f ? 1u : 0u);
      store_bits(out, shape.head_dim, 16, from_float_saturate<float16>(norm).bits);
    }
  }
  void clear(side, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    for (int i = 0; i < count * slot_bytes(shape); ++i)
      section[slot * slot_bytes(shape) + i] = std::byte{0};
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept { return rotation.id(heads, head_dim); }
  static void describe(description& d) noexcept { d << "sign_sketch(f16) hadamard"; }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      prepared[d] = q[d] * std::sqrt(1.57079633f / static_cast<float>(head_dim));
    rotation.query(head, head_dim, prepared);
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    std::byte const* in = section + slot * slot_bytes(shape);
    float sum = 0.0f;
    for (int d = 0; d < shape.head_dim; ++d)
      sum += load_bits(in, d, 1) != 0 ? -prepared[d] : prepared[d];
    auto const bits = static_cast<std::uint16_t>(load_bits(in, shape.head_dim, 16));
    return sum * to_float(float16{bits});
  }

 private:
  static constexpr int slot_bytes(tile_shape shape) noexcept { return shape.head_dim / 8 + 2; }
};
static_assert(key_scheme<sign_sketch> && !value_scheme<sign_sketch>);
static_assert(!decodable<sign_sketch> && !tile_hooks<sign_sketch>);
using sketch_type = kv_scheme<sign_sketch, schemes::q8_0_type::value_type>;
// example-end scheme

int main() {
  constexpr int width = 128;
  constexpr std::int64_t tokens = 256, wanted = 77;
  std::mt19937 engine{5};
  std::normal_distribution<float> normal;
  std::vector<float> keys(tokens * width), values(tokens * width), q(width), o(width);
  for (auto* x : {&keys, &values, &q})
    std::generate(x->begin(), x->end(), [&] { return normal(engine); });
  for (std::size_t d = 0; d < width; ++d)
    keys[wanted * width + d] = 2.0f * q[d];  // this token gets nearly all of the attention

  kv_cache<sketch_type> cache;
  if (kv_cache<sketch_type>::create({.name = "sign_sketch"}, {.kv_heads = 1}, cache) != status::ok) return 1;
  auto const rows = [](std::vector<float> const& x) { return hnd_rows(x.data(), tokens, width); };
  if (cache.append(rows(keys), rows(values), tokens) != status::ok) return 1;
  std::vector<float> work(static_cast<std::size_t>(attend_workspace(cache.view(), 1, 1)));
  status const s = attend(cache.view(), rows(q), 1, 1, hnd_rows(o.data(), 1, width), nullptr, {}, work);
  if (s != status::ok) return 1;
  double error = 0.0, square = 0.0;
  for (std::size_t d = 0; d < width; ++d) {
    double const v = static_cast<double>(values[wanted * width + d]), e = static_cast<double>(o[d]) - v;
    error += e * e;
    square += v * v;
  }
  std::printf("%.3f bits per value, output off by %.4f\n", cache.bits_per_value(), std::sqrt(error / square));
  return error < 0.01 * square ? 0 : 1;
}
