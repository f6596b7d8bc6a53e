// SPDX-License-Identifier: Apache-2.0
//! @file Encoding a prompt: kv_cache::prefill of 4,096 fp16 tokens into an empty cache, one thread.
//!
//! One iteration makes the cache, fills it and frees it: conversion, scores and selection of outliers, codes,
//! packing and the owner's memory. bytes_per_second counts the fp16 input (keys and values), whatever the
//! scheme. Iterations take turns on inputs that together are four times the last-level cache.

#include "support/workload.hpp"

namespace {

using kvcrumb_bench::problem;

template <class Scheme>
void encode(benchmark::State& state, Scheme const& scheme, problem const& p) {
  std::int64_t const blocks =
      static_cast<std::int64_t>(kvcrumb_bench::rows_for(p).keys.size()) / (p.values() / 2);
  std::int64_t i = 0;
  double bits = 0.0;
  kvcrumb_bench::cpu_clock const clock;
  for (auto _ : state) {
    auto const cache = kvcrumb_bench::filled_cache(scheme, p, i++ % blocks);
    bits = cache.bits_per_value();
    benchmark::DoNotOptimize(bits);
  }
  kvcrumb_bench::report(state, p, 2.0 * static_cast<double>(p.values()), bits, clock.seconds());
}

}  // namespace

int main(int argc, char** argv) {
  for (problem const& p : {problem{0, 8, 4096}, problem{0, 32, 4096}}) {
    kvcrumb_bench::for_each_scheme([&](auto const& scheme) {
      benchmark::RegisterBenchmark(kvcrumb_bench::name_of("encode", scheme.name, p).c_str(),
                                   [scheme, p](benchmark::State& state) { encode(state, scheme, p); })
          ->Unit(benchmark::kMillisecond);
    });
  }
  return kvcrumb_bench::run_benchmarks(argc, argv);
}
