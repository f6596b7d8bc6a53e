// SPDX-License-Identifier: Apache-2.0
//! @file matrix: see matrix.hpp.
#include "matrix.hpp"

#include <algorithm>
#include <cstring>

namespace kvcrumb_lm {
namespace {

constexpr int width = matrix::panel;
constexpr int block = 6;  // rows of x that share a load of the weights

// Sixteen floats that the compiler keeps in as many registers as the processor needs for them.
using lanes [[gnu::vector_size(width * sizeof(float))]] = float;

// What one call computes: `rows` <= block rows times one panel.
struct tile {
  float const* x;  // [rows][inputs]
  float const* w;  // [inputs][width]
  float const* bias;
  float* y;  // [rows][stride]
  std::int64_t stride;
  int inputs, columns;
};

template <int Rows>
[[gnu::always_inline]] inline void product(tile const& t) {
  lanes sum[Rows];
  for (int r = 0; r < Rows; ++r)
    std::memcpy(&sum[r], t.bias, sizeof(lanes));
  float const *x = t.x, *w = t.w;
  std::int64_t const inputs = t.inputs;
  for (std::int64_t i = 0; i < inputs; ++i) {
    lanes row;
    std::memcpy(&row, w + i * width, sizeof row);
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r)
      sum[r] += row * x[r * inputs + i];
  }
  for (int r = 0; r < Rows; ++r)
    std::memcpy(t.y + r * t.stride, &sum[r], static_cast<std::size_t>(t.columns) * sizeof(float));
}

[[gnu::always_inline]] inline void any_rows(tile const& t, int rows) {
  switch (rows) {
    case 1: return product<1>(t);
    case 2: return product<2>(t);
    case 3: return product<3>(t);
    case 4: return product<4>(t);
    case 5: return product<5>(t);
    default: return product<block>(t);
  }
}

using kernel = void(tile const&, int);

void baseline(tile const& t, int rows) { any_rows(t, rows); }
#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] void avx2(tile const& t, int rows) { any_rows(t, rows); }
[[gnu::target("avx512f,avx2,fma")]] void avx512(tile const& t, int rows) { any_rows(t, rows); }

kernel* best() {
  if (__builtin_cpu_supports("avx512f")) return avx512;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? avx2 : baseline;
}
#else
kernel* best() { return baseline; }
#endif

}  // namespace

void matrix::add_rows(std::span<float const> rows, std::span<float const> biases) {
  int const count = static_cast<int>(rows.size()) / inputs_;
  std::size_t const all = static_cast<std::size_t>((outputs_ + count + panel - 1) / panel);
  panels_.resize(all * static_cast<std::size_t>(panel * inputs_));
  biases_.resize(all * panel);
  for (int o = 0; o < count; ++o) {
    int const at = outputs_ + o;
    float* const to = panels_.data() + static_cast<std::int64_t>(at / panel) * panel * inputs_ + at % panel;
    for (int i = 0; i < inputs_; ++i)
      to[static_cast<std::int64_t>(i) * panel] =
          rows[static_cast<std::size_t>(o) * static_cast<std::size_t>(inputs_) + static_cast<std::size_t>(i)];
    if (!biases.empty()) biases_[static_cast<std::size_t>(at)] = biases[static_cast<std::size_t>(o)];
  }
  outputs_ += count;
}

void matrix::read_row(int o, float* row) const {
  float const* from = panels_.data() + static_cast<std::int64_t>(o / panel) * panel * inputs_ + o % panel;
  for (int i = 0; i < inputs_; ++i)
    row[i] = from[static_cast<std::int64_t>(i) * panel];
}

void matrix::multiply(float const* x, std::int64_t rows, float* y, workers& threads) const {
  static kernel* const run = best();
  threads.run((outputs_ + panel - 1) / panel, [&](std::int64_t p) {
    tile t{.x = x,
           .w = panels_.data() + p * panel * inputs_,
           .bias = biases_.data() + p * panel,
           .y = y + p * panel,
           .stride = outputs_,
           .inputs = inputs_,
           .columns = std::min(panel, outputs_ - static_cast<int>(p) * panel)};
    for (std::int64_t r = 0; r < rows; r += block) {
      t.x = x + r * inputs_;
      t.y = y + r * outputs_ + p * panel;
      run(t, static_cast<int>(std::min<std::int64_t>(block, rows - r)));
    }
  });
}

}  // namespace kvcrumb_lm
