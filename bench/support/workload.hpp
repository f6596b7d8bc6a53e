// SPDX-License-Identifier: Apache-2.0
//! @file What the host benchmarks share: the schemes, random keys and values, the program around them.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kvcrumb/kvcrumb.hpp"
#include "support/stream_bandwidth.hpp"

namespace kvcrumb_bench {

inline constexpr int head_dim = 128;

//! Query heads, kv heads and cached tokens of a benchmark.
struct problem {
  int query_heads = 0;
  int kv_heads = 0;
  std::int64_t tokens = 0;

  std::int64_t values() const { return 2 * tokens * kv_heads * head_dim; }  //!< of keys and values
};

//! Calls f(scheme, name) for every named system, at its published group size.
template <class F>
void for_each_scheme(F f) {
  using namespace kvcrumb::schemes;
  f(fp16());
  f(fp8());
  f(q8_0());
  f(q4_0());
  f(qserve4());
  f(nqkv4());
  f(kivi<4>());
  f(kivi<2>());
  f(ott<2>());
}

//! Ends the program: a benchmark of a failed call would be a number about nothing.
inline void require(kvcrumb::status s, char const* what) {
  if (s == kvcrumb::status::ok) return;
  std::fprintf(stderr, "%s failed: %s\n", what, kvcrumb::to_string(s));
  std::exit(EXIT_FAILURE);
}

//! Keys and values of at least `bytes` fp16 bytes together, nearly normal (sum of four uniform numbers), the
//! same in every run. Times of these schemes do not depend on the data, but for the number of evicted
//! outliers.
struct random_rows {
  std::vector<kvcrumb::float16> keys, values;

  explicit random_rows(std::int64_t bytes) : keys(static_cast<std::size_t>(bytes / 4)), values(keys.size()) {
    std::uint64_t state = 0x9E3779B97F4A7C15u;
    for (auto* side : {&keys, &values}) {
      for (kvcrumb::float16& x : *side) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::uint64_t const bits = state ^ (state >> 29);
        int sum = 0;
        for (int i = 0; i < 4; ++i)
          sum += static_cast<int>((bits >> (16 * i)) & 0xFFFF);
        x = kvcrumb::from_float<kvcrumb::float16>(static_cast<float>(sum - 2 * 65536) / 37837.0f);
      }
    }
  }
};

//! Keys and values for all benchmarks: four times the last-level cache and at least one problem.
inline random_rows const& rows_for(problem const& p) {
  static std::unique_ptr<random_rows> rows;
  std::int64_t const bytes = std::max(4 * last_level_cache_bytes(), 2 * p.values());
  if (!rows || static_cast<std::int64_t>(rows->keys.size()) * 4 < bytes)
    rows = std::make_unique<random_rows>(bytes);
  return *rows;
}

//! A cache that holds the first tokens of rows_for(p), starting at problem number `block` of them; `with` may
//! be an encoder.
template <class Scheme, class... With>
kvcrumb::kv_cache<Scheme> filled_cache(Scheme const& scheme, problem const& p, std::int64_t block,
                                       With&... with) {
  random_rows const& rows = rows_for(p);
  std::int64_t const begin = block * p.values() / 2;
  kvcrumb::kv_cache<Scheme> cache;
  require(kvcrumb::kv_cache<Scheme>::create(scheme, {p.kv_heads, {head_dim, 128}}, cache), "create");
  require(cache.prefill(kvcrumb::hnd_rows(rows.keys.data() + begin, p.tokens, head_dim),
                        kvcrumb::hnd_rows(rows.values.data() + begin, p.tokens, head_dim), p.tokens, with...),
          "prefill");
  return cache;
}

//! This run's bandwidth; measured by run_benchmarks.
inline stream_bandwidth& measured_stream() {
  static stream_bandwidth stream;
  return stream;
}

//! Processor seconds of this process; started where the loop of a benchmark starts.
class cpu_clock {
 public:
  double seconds() const { return static_cast<double>(std::clock() - start_) / CLOCKS_PER_SEC; }

 private:
  std::clock_t start_ = std::clock();
};

//! The counters of every benchmark, in processor time as Google Benchmark's own rates. `bytes` are those that
//! one iteration must read. percent_of_stream compares them with the streaming reads of all threads of this
//! machine, percent_of_stream_1t with those of one thread, which is what a benchmark of one thread could
//! reach.
inline void report(benchmark::State& state, problem const& p, double bytes, double bits_per_value,
                   double seconds) {
  using benchmark::Counter;
  double const rate = bytes * static_cast<double>(state.iterations()) / seconds;
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes) * state.iterations());
  state.counters["tokens_per_second"] =
      Counter(static_cast<double>(p.tokens), Counter::kIsIterationInvariantRate);
  state.counters["bits_per_value"] = bits_per_value;
  state.counters["percent_of_stream"] = 100.0 * rate / measured_stream().all_threads;
  state.counters["percent_of_stream_1t"] = 100.0 * rate / measured_stream().one_thread;
}

inline std::string name_of(char const* what, char const* scheme, problem const& p) {
  std::string name = std::string(what) + "/" + scheme;
  if (p.query_heads > 0) name += "/query_heads:" + std::to_string(p.query_heads);
  return name + "/kv_heads:" + std::to_string(p.kv_heads) + "/tokens:" + std::to_string(p.tokens);
}

inline std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

//! Fills caches with the prompts of rows_for(p) by turns; `with` as in filled_cache.
template <class Scheme, class... With>
void prefill(benchmark::State& state, Scheme const& scheme, problem const& p, With&... with) {
  std::int64_t const blocks = static_cast<std::int64_t>(rows_for(p).keys.size()) / (p.values() / 2);
  std::int64_t i = 0;
  double bits = 0.0;
  cpu_clock const clock;
  for (auto _ : state) {
    auto const cache = filled_cache(scheme, p, i++ % blocks, with...);
    bits = cache.bits_per_value();
    benchmark::DoNotOptimize(bits);
  }
  report(state, p, 2.0 * static_cast<double>(p.values()), bits, clock.seconds());
}

//! Body of main: measures the bandwidth, unless only the list is wanted, and runs the registered benchmarks.
//! Three repetitions of 0.2 s each, of which the statistics are printed, if the command line does not say
//! otherwise.
inline int run_benchmarks(int argc, char** argv) {
  bool only_list = false;
  for (int i = 1; i < argc; ++i)
    only_list |= std::string_view(argv[i]).starts_with("--benchmark_list_tests");
  std::string defaults[] = {"--benchmark_min_time=0.2", "--benchmark_repetitions=3",
                            "--benchmark_report_aggregates_only=true"};
  std::vector<char*> arguments{argv[0]};
  for (std::string& text : defaults)
    arguments.push_back(text.data());
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return EXIT_FAILURE;
  if (!only_list) {
    measured_stream() = measure_stream_bandwidth();
    char text[96];
    std::snprintf(text, sizeof text, "%.2f GB/s one thread, %.2f GB/s %u threads",
                  measured_stream().one_thread * 1e-9, measured_stream().all_threads * 1e-9,
                  std::max(1u, std::thread::hardware_concurrency()));
    benchmark::AddCustomContext("streaming_read", text);
    benchmark::AddCustomContext("streaming_read_buffer_MiB", std::to_string(uncached_bytes() >> 20));
    benchmark::AddCustomContext("cpu_model", processor_name());
#if defined(__clang__)
    benchmark::AddCustomContext("compiler", __VERSION__);
#else
    benchmark::AddCustomContext("compiler", "g++ " __VERSION__);
#endif
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return EXIT_SUCCESS;
}

}  // namespace kvcrumb_bench
