// SPDX-License-Identifier: Apache-2.0
//! @file What the CUDA examples share: device memory, random numbers, and the same caches on the host to
//! compare with. Nothing of it is part of the library.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/view/batch_cache.hpp>

namespace example {

using namespace kvcrumb;

constexpr std::size_t count(std::int64_t n) { return static_cast<std::size_t>(n); }

//! Ends the program on a CUDA error.
inline void must(cudaError_t e) {
  if (e == cudaSuccess) return;
  std::printf("%s\n", cudaGetErrorString(e));
  std::exit(1);
}

//! An array in device memory; all bytes are `fill` at first.
template <class T>
class device_array {
 public:
  explicit device_array(std::int64_t n, int fill = 0) : count_{count(n)} {
    must(cudaMalloc(&data_, count_ * sizeof(T)));
    must(cudaMemset(data_, fill, count_ * sizeof(T)));
  }
  explicit device_array(std::vector<T> const& x) : device_array(static_cast<std::int64_t>(x.size())) {
    set(x);
  }
  ~device_array() { static_cast<void>(cudaFree(data_)); }
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;

  T* data() const { return data_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(count_ * sizeof(T)); }
  void set(std::vector<T> const& x) const {
    must(cudaMemcpy(data_, x.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  //! Waits for the device.
  std::vector<T> get() const {
    std::vector<T> x(count_);
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(x.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return x;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

//! [sequence][head][row][width] in one piece.
template <class T>
batch_rows<T> rows_of(T* data, int heads, std::int64_t rows, int width) {
  return {data, heads * rows * width, rows * width, width};
}

//! The rows of an outlier pool with their positions, scores and counts.
struct pool_memory {
  device_array<float16> keys, values;
  device_array<std::int32_t> positions, counts;
  device_array<float> scores;
  batch_isolated view;

  pool_memory(int sequences, int heads, int capacity, int width)
      : keys(sequences * heads * capacity * width),
        values(sequences * heads * capacity * width),
        positions(sequences * heads * capacity),
        counts(sequences * heads),
        scores(sequences * heads * capacity),
        view{rows_of(keys.data(), heads, capacity, width),
             rows_of(values.data(), heads, capacity, width),
             positions.data(),
             scores.data(),
             counts.data(),
             capacity} {}
};

inline std::vector<float16> normal_numbers(unsigned seed, std::int64_t n) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float16> x(count(n));
  for (float16& v : x)
    v = from_float<float16>(normal(engine));
  return x;
}

//! Root mean square of got - expected, over that of expected.
template <class Got>
double relative_difference(Got const* got, std::vector<float> const& expected) {
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    double const e = static_cast<double>(expected[i]), d = static_cast<double>(to_float(got[i])) - e;
    error += d * d;
    norm += e * e;
  }
  return norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error);
}

//! The blobs of a host cache, [tile][head], `stride` bytes apart.
template <class View>
std::vector<std::byte> blobs_of(View const& view, std::int64_t bytes, std::int64_t stride) {
  std::vector<std::byte> x(count(view.tiles() * view.kv_heads * stride));
  for (std::int64_t i = 0; i < view.tiles() * view.kv_heads; ++i)
    std::memcpy(x.data() + i * stride, view.keys.section(i % view.kv_heads, i / view.kv_heads), count(bytes));
  return x;
}

//! Caches of the host library, one for each sequence, that grow as those on the device do.
template <class Scheme>
struct host_batch {
  std::vector<kv_cache<Scheme>> caches;
  int kv_heads, width;

  host_batch(Scheme const& scheme, int sequences, int heads, tile_shape shape)
      : caches(count(sequences)), kv_heads{heads}, width{shape.head_dim} {
    for (auto& c : caches) {
      if (kv_cache<Scheme>::create(scheme, {.kv_heads = heads, .shape = shape}, c) != status::ok)
        std::exit(1);
    }
  }
  //! The first `added` rows of each sequence; keys and values are [sequence][kv head][rows][width].
  void append(std::vector<float16> const& keys, std::vector<float16> const& values, std::int64_t rows,
              std::vector<std::int32_t> const& added, bool prefill = false) {
    for (std::size_t s = 0; s < caches.size(); ++s) {
      std::int64_t const at = static_cast<std::int64_t>(s) * kv_heads * rows * width;
      auto const k = hnd_rows(keys.data() + at, rows, width), v = hnd_rows(values.data() + at, rows, width);
      status const result = prefill ? caches[s].prefill(k, v, added[s]) : caches[s].append(k, v, added[s]);
      if (result != status::ok) std::exit(1);
    }
  }
  //! Largest relative difference of a sequence's outputs from those of attend(); one query token for each
  //! query head, outputs and queries are [sequence][query head][width].
  template <class Output>
  double difference(std::vector<Output> const& o, std::vector<float16> const& q, int query_heads) const {
    double worst = 0.0;
    for (std::size_t s = 0; s < caches.size(); ++s) {
      auto const view = caches[s].view();
      std::int64_t const at = static_cast<std::int64_t>(s) * query_heads * width;
      std::vector<float> work(count(attend_workspace(view, query_heads, 1))),
          expected(count(query_heads * width));
      auto const mine = hnd_rows(q.data() + at, 1, width);
      auto const out = hnd_rows(expected.data(), 1, width);
      if (attend(view, mine, query_heads, 1, out, nullptr, {}, work) != status::ok) std::exit(1);
      worst = std::fmax(worst, relative_difference(o.data() + at, expected));
    }
    return worst;
  }
};

}  // namespace example
