// SPDX-License-Identifier: Apache-2.0
//! @file A batch of host caches as a batch_cache, and decode attention over it against the double reference.
#pragma once

#include <algorithm>

#include "cuda/device_cache.hpp"
// after it
#include "kvcrumb/device/decode.cuh"

namespace kvcrumb::test {

//! Memory of exactly n elements on a multiple of 64 bytes, filled with one byte, so that overruns are seen.
template <class T>
class aligned_array {
 public:
  aligned_array() = default;
  explicit aligned_array(std::int64_t n, int fill = 0xFF)
      : bytes_(size(n) * sizeof(T), static_cast<std::byte>(fill)) {}
  T* data() const { return reinterpret_cast<T*>(bytes_.data()); }
  T& operator[](std::int64_t i) const { return data()[i]; }
  std::int64_t count() const { return static_cast<std::int64_t>(bytes_.size() / sizeof(T)); }

 private:
  mutable device_vector<std::byte> bytes_;
};

//! Host caches of one scheme and their copies in the form that kernels read.
template <class Scheme>
class host_batch {
 public:
  host_batch(std::vector<kv_cache<Scheme>> caches, device_options const& options = {})
      : caches_{std::move(caches)},
        device_{device_cache<Scheme>::make(caches_.front().scheme(), caches_.front().config().shape,
                                           caches_.front().config().kv_heads, lengths(), options)} {
    for (std::size_t b = 0; b < caches_.size(); ++b)
      device_.load_from_host(static_cast<int>(b), caches_[b]);
  }
  batch_cache const& view() const { return device_.view(); }
  kv_cache<Scheme> const& cache(int b) const { return caches_[size(b)]; }
  bool intact() const { return device_.intact(); }

 private:
  std::vector<int> lengths() const {
    std::vector<int> all;
    for (auto const& c : caches_)
      all.push_back(static_cast<int>(c.size()));
    return all;
  }
  std::vector<kv_cache<Scheme>> caches_;
  device_cache<Scheme> device_;
};

//! What a launch is asked for, besides the cache.
struct decode_case {
  int query_heads = 4, queries = 1;
  attention_options options{};  //!< scale, cap, window
  int part = 0, blocks = 5;
  float query_size = 1.0f;
  float sink = 0.0f;  //!< sink logit of all heads, 0: none
  int nan_head = -1;  //!< query head of the first sequence whose first query row holds a NaN
  int fill = 0xFF;    //!< every byte of the workspace before: as floats NaN, as integers -1
};

struct decode_outcome {
  double output = 0.0;  //!< relative error of all outputs, root mean square
  double lse = 0.0;     //!< largest absolute error
  std::vector<float> o, l;
};

//! Runs decode attention and compares with the double reference on the decoded cache.
//! Fills outputs with NaN before and checks canaries.
template <class Decoder, class Scheme, class Query = float16>
decode_outcome run_decode(host_batch<Scheme>& batch, decode_case const& k, unsigned seed = 1) {
  batch_cache const& c = batch.view();
  int const dim = c.shape.head_dim;
  std::int64_t const rows = static_cast<std::int64_t>(c.sequences) * k.query_heads * k.queries;
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  device_vector<Query> q(size(rows * dim));
  for (Query& x : q)
    x = from_float<Query>(normal(engine) * k.query_size);
  if (k.nan_head >= 0) q[size(k.nan_head * k.queries * dim + 3)] = from_float<Query>(std::nanf(""));
  decode_outcome r;
  device_vector<float> o(size(rows * dim) + 2, std::nanf("")), lse(size(rows) + 2, std::nanf(""));
  o.front() = o.back() = lse.front() = lse.back() = 12345.0f;
  device_vector<float> const sinks(size(k.query_heads), k.sink);
  std::int64_t const token = dim, head = k.queries * token, sequence = k.query_heads * head;
  typename Decoder::request_type request;
  request.cache = c;
  request.q = {q.data(), sequence, head, token};
  request.o = {o.data() + 1, sequence, head, token};
  request.lse = lse.data() + 1;
  request.query_heads = k.query_heads;
  request.queries = k.queries;
  request.options = {k.options.softmax_scale,
                     k.options.soft_cap,
                     static_cast<int>(k.options.window),
                     k.sink != 0.0f ? sinks.data() : nullptr,
                     k.part,
                     0,
                     k.blocks,
                     false};
  for (int b = 0; b < c.sequences; ++b)
    request.options.max_tokens = std::max(request.options.max_tokens, c.tokens[b]);
  if (request.options.max_tokens == 0) request.options.max_tokens = 1;
  Scheme const& scheme = batch.cache(0).scheme();
  REQUIRE(Decoder::check(scheme, request) == status::ok);
  std::int64_t bytes = 0;
  REQUIRE(Decoder::workspace(request, bytes) == cudaSuccess);
  aligned_array<std::byte> workspace(bytes, k.fill);
  REQUIRE(Decoder::attend(scheme, request, workspace.data(), bytes) == cudaSuccess);
  synchronize();
  CHECK((o.front() == 12345.0f && o.back() == 12345.0f && lse.front() == 12345.0f && lse.back() == 12345.0f));
  CHECK(batch.intact());
  r.o.assign(o.begin() + 1, o.end() - 1);
  r.l.assign(lse.begin() + 1, lse.end() - 1);
  double error = 0.0, norm = 0.0;
  for (int b = 0; b < c.sequences; ++b) {
    std::vector<float> mine;
    for (std::int64_t i = b * sequence; i < (b + 1) * sequence; ++i)
      mine.push_back(to_float(q[size(i)]));
    attention_options options = k.options;
    options.sink_logits = k.sink != 0.0f ? sinks.data() : nullptr;
    if (batch.cache(b).size() < k.queries) options.first_query = 0;  // callers compare only what exists
    auto const expected = expected_attention(decode_all(batch.cache(b)), c.kv_heads, dim, mine, k.query_heads,
                                             k.queries, options);
    for (std::size_t i = 0; i < expected.output.size(); ++i) {
      double const got = static_cast<double>(r.o[size(b * sequence) + i]), d = got - expected.output[i];
      if (!std::isfinite(got)) error = std::numeric_limits<double>::infinity();
      error += d * d;
      norm += expected.output[i] * expected.output[i];
    }
    for (std::size_t i = 0; i < expected.log_sum_exp.size(); ++i) {
      double const got = static_cast<double>(r.l[size(b * k.query_heads * k.queries) + i]),
                   e = expected.log_sum_exp[i];
      double const d = got == e ? 0.0 : std::abs(got - e);  // both -inf
      r.lse = std::isnan(d) ? d : std::max(r.lse, d);
    }
  }
  r.output = norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error);
  return r;
}

//! Caches of the given lengths, filled with random rows.
template <class Scheme>
std::vector<kv_cache<Scheme>> caches_of(Scheme const& scheme, int heads, tile_shape shape,
                                        std::vector<int> const& lengths, int outlier_tokens = 5) {
  std::vector<kv_cache<Scheme>> all;
  for (int const n : lengths)
    all.push_back(filled(
        scheme, random_layer(static_cast<unsigned>(11 + n), heads, n, shape.head_dim, 4, outlier_tokens),
        shape.tile_tokens));
  return all;
}

}  // namespace kvcrumb::test
