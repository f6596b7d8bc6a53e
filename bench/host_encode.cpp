// SPDX-License-Identifier: Apache-2.0
//! @file Encoding a prompt: kv_cache::prefill of 4,096 fp16 tokens into an empty cache, one thread.
//!
//! One iteration makes the cache, fills it and frees it: conversion, scores and selection of outliers, codes,
//! packing and the owner's memory. bytes_per_second counts the fp16 input (keys and values), whatever the
//! scheme. Iterations take turns on inputs that together are four times the last-level cache.

#include "support/workload.hpp"

using kvcrumb_bench::problem;

int main(int argc, char** argv) {
  for (problem const& p : {problem{0, 8, 4096}, problem{0, 32, 4096}}) {
    kvcrumb_bench::for_each_scheme([&](auto const& scheme) {
      benchmark::RegisterBenchmark(
          kvcrumb_bench::name_of("encode", scheme.name, p).c_str(),
          [scheme, p](benchmark::State& state) { kvcrumb_bench::prefill(state, scheme, p); })
          ->Unit(benchmark::kMillisecond);
    });
  }
  return kvcrumb_bench::run_benchmarks(argc, argv);
}
