// SPDX-License-Identifier: Apache-2.0
//! @file Whether the attention by ggml that is measured is the attention that we mean.

#include "host_decode/ggml_check.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <kvcrumb/reference/attention.hpp>
#include <limits>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "host_decode/ggml_side.hpp"

namespace kvcrumb_bench {
namespace {

using rows = std::vector<float>;

constexpr int query_heads = 8, kv_heads = 2, dim = ggml_attention::head_dim;

rows random_rows(std::mt19937& generator, std::size_t count, float spread, float mean) {
  std::normal_distribution<float> normal(mean, spread);
  rows made(count);
  for (float& x : made)
    x = normal(generator);
  return made;
}

std::vector<double> reference_of(rows const& keys, rows const& values, rows const& queries,
                                 std::int64_t tokens) {
  std::vector<double> const k(keys.begin(), keys.end()), v(values.begin(), values.end());
  std::vector<double> const q(queries.begin(), queries.end());
  std::vector<std::int64_t> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), std::int64_t{0});
  std::int64_t const newest = tokens - 1;
  kvcrumb::reference::grouped_attention_input input;
  input.queries = q;
  input.keys = k;
  input.values = v;
  input.query_positions = std::span<std::int64_t const>(&newest, 1);
  input.key_positions = positions;
  input.query_heads = query_heads;
  input.kv_heads = kv_heads;
  input.key_dim = input.value_dim = dim;
  return kvcrumb::reference::attend_grouped(input,
                                            {.softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))})
      .output;
}

//! The largest relative L2 error of a query head: one wrong head of many is not averaged away. Infinite where
//! an output is no number.
double error_of(float const* output, std::vector<double> const& exact) {
  double largest = 0.0;
  for (int h = 0; h < query_heads; ++h) {
    double difference = 0.0, norm = 0.0;
    for (int c = 0; c < dim; ++c) {
      std::size_t const i = static_cast<std::size_t>(h * dim + c);
      difference += (output[i] - exact[i]) * (output[i] - exact[i]);
      norm += exact[i] * exact[i];
    }
    double const error = std::sqrt(difference / norm);
    largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(largest, error);
  }
  return largest;
}

//! Relative L2 distance of stored rows from the rows that they should be.
double distance_of(rows const& stored, rows const& original) {
  double difference = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < stored.size(); ++i) {
    double const exact = original[i], d = stored[i] - exact;
    difference += d * d;
    norm += exact * exact;
  }
  return std::sqrt(difference / norm);
}

//! Bound of that distance. Half a step at most: 2^-11 of the value for f16, 2^-8 for bf16. A step of q8_0 is
//! 1 / 127 and one of q4_0 1 / 8 of the largest of 32 values, about 2.5 standard deviations; its square root
//! of a twelfth is 0.6 % and 9 %.
double rounding_of(ggml_kv type) {
  switch (type) {
    case ggml_kv::f16: return 0.0005;
    case ggml_kv::bf16: return 0.004;
    case ggml_kv::q8_0: return 0.01;
    case ggml_kv::q4_0: return 0.15;
  }
  return 0.0;
}

//! Bound of the error against attention on the stored rows with the queries that the dot product sees. What
//! is left is arithmetic. A token's logit, of size up to 10, is a sum of 128 float products, and adding a
//! token to the float accumulator rounds once more: 10 * 2^-24 * sqrt(128) + 2^-24 * sqrt(tokens) is 1e-5 for
//! 700 tokens, of which we allow ten times. With f16, ggml rounds the accumulator to f16 after each token:
//! 2^-11 / sqrt(3) * sqrt(tokens) = 0.7 % of its largest value; we allow three times.
double tolerance_of(ggml_kv type) { return type == ggml_kv::f16 ? 0.02 : 1e-4; }

struct problem_size {
  std::int64_t tokens;
  int threads;
};

bool check(std::FILE* log, ggml_kv type, ggml_order order, problem_size size) {
  std::size_t const side = static_cast<std::size_t>(kv_heads * size.tokens * dim);
  std::mt19937 generator(static_cast<std::mt19937::result_type>(7 * size.tokens + size.threads));
  rows const keys = random_rows(generator, side, 1.0f, 0.0f);
  rows const values = random_rows(generator, side, 1.0f, 0.25f);  // their mean survives the softmax's average
  rows const queries = random_rows(generator, query_heads * dim, 2.0f, 0.0f);

  auto attention = ggml_attention::create(type, order, query_heads, kv_heads, size.tokens, size.threads, 0);
  if (attention != nullptr)  // again, now that the size of a copy is known: three of them
    attention = ggml_attention::create(type, order, query_heads, kv_heads, size.tokens, size.threads,
                                       3 * attention->bytes());
  bool good =
      attention != nullptr && attention->copies() == 3 && attention->set_inputs(keys, values, queries);
  if (!good) {
    std::fprintf(log, "  %-5s %-12s could not be set up\n", to_string(type), to_string(order));
    return false;
  }
  good = attention->set_rows(1, values, keys);  // a copy that differs: run(1) must read it, others must not
  rows stored_keys(side), stored_values(side), seen(queries.size());
  attention->rounded_queries(seen);
  good = good && distance_of(seen, queries) <= rounding_of(type);

  double arithmetic = 0.0, total = 0.0;
  for (int copy = 0; copy < 3; ++copy) {
    attention->stored_rows(copy, stored_keys, stored_values);
    good = good && distance_of(stored_keys, copy == 1 ? values : keys) <= rounding_of(type) &&
           distance_of(stored_values, copy == 1 ? keys : values) <= rounding_of(type);
    auto const exact = reference_of(stored_keys, stored_values, seen, size.tokens);
    auto const ideal =
        reference_of(copy == 1 ? values : keys, copy == 1 ? keys : values, queries, size.tokens);
    for (bool const awake : {false, true}) {
      if (awake) attention->wake();  // overwrites the output: what follows is not left from before
      attention->run(copy);
      arithmetic = std::max(arithmetic, error_of(attention->output(), exact));
      total = std::max(total, error_of(attention->output(), ideal));
      attention->rest();
    }
  }
  good = good && arithmetic <= tolerance_of(type);
  std::fprintf(log, "  %-5s %-12s %6lld %8d  %11.1e  %11.1e  %s\n", to_string(type), to_string(order),
               static_cast<long long>(size.tokens), size.threads, arithmetic, total, good ? "" : "WRONG");
  return good;
}

//! A pool at rest must leave the processors to what is timed next: in 20 ms, this process may use 5 ms. (A
//! worker that spins uses all 20.)
bool check_rest(std::FILE* log) {
  auto attention =
      ggml_attention::create(ggml_kv::f16, ggml_order::contiguous, query_heads, kv_heads, 700, 2, 0);
  if (attention == nullptr) return false;
  bool good = true;
  for (bool const awake : {false, true}) {
    if (awake) attention->wake();
    attention->run(0);
    if (awake) attention->rest();
    std::clock_t const begin = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    double const used = 1e3 * static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    good = good && used <= 5.0;
    std::fprintf(log, "  after %s, 2 threads: %.1f ms of processor time in 20 ms  %s\n",
                 awake ? "wake(), run(), rest()" : "run() alone", used, used <= 5.0 ? "" : "TOO LARGE");
  }
  return good;
}

}  // namespace

bool ggml_self_check(std::FILE* log) {
  std::fprintf(log, "%s\n", ggml_description().c_str());
  bool good = check_rest(log);
  std::fprintf(log,
               "  largest relative L2 error of a head: arithmetic, against attention on the stored rows;\n");
  std::fprintf(log, "  total, against attention on the rows before they were stored\n");
  std::fprintf(log, "  type  order        tokens  threads   arithmetic        total\n");
  for (ggml_kv const type : {ggml_kv::f16, ggml_kv::bf16, ggml_kv::q8_0, ggml_kv::q4_0}) {
    for (ggml_order const order : {ggml_order::token_major, ggml_order::contiguous}) {
      // from 512 tokens on, ggml divides an f16 cache into a part for each thread
      for (problem_size const size : {problem_size{300, 1}, {300, 2}, {700, 1}, {700, 2}})
        good = check(log, type, order, size) && good;
    }
  }
  return good;
}

}  // namespace kvcrumb_bench
