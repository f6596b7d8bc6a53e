// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention: one query token per query head over a filled cache, one thread; fp16 is the
//! baseline.
//!
//! bytes_per_second counts kv_cache::bytes_used(): everything the format makes attention read, once. A cache
//! smaller than four times the last-level cache is copied until the copies together are larger, and
//! iterations take turns on the copies, so that packed bytes come from memory as in a model of many layers.

#include "support/workload.hpp"

namespace {

using kvcrumb_bench::head_dim;
using kvcrumb_bench::problem;

template <class Scheme>
using caches = std::vector<kvcrumb::kv_cache<Scheme>>;

//! The caches of the benchmark that runs now. The framework calls a benchmark several times: they are made
//! once, and freed when the next benchmark asks for its own.
template <class Scheme>
caches<Scheme> const& caches_of(Scheme const& scheme, problem const& p) {
  static std::shared_ptr<void> held;
  static std::string held_name;
  std::string const name = kvcrumb_bench::name_of("attend", scheme.name, p);
  if (name != held_name) {
    held.reset();
    auto made = std::make_shared<caches<Scheme>>();
    made->push_back(kvcrumb_bench::filled_cache(scheme, p, 0));
    std::int64_t const bytes = made->front().bytes_used();
    std::int64_t const copies = (4 * kvcrumb_bench::last_level_cache_bytes() + bytes - 1) / bytes;
    made->reserve(static_cast<std::size_t>(copies));
    while (static_cast<std::int64_t>(made->size()) < copies)
      made->push_back(made->front());
    held = made;
    held_name = name;
  }
  return *static_cast<caches<Scheme> const*>(held.get());
}

template <class Scheme>
void attend(benchmark::State& state, Scheme const& scheme, problem const& p) {
  caches<Scheme> const& all = caches_of(scheme, p);
  std::vector<kvcrumb::float16> const& random = kvcrumb_bench::rows_for(p).keys;
  std::size_t const width = static_cast<std::size_t>(p.query_heads * head_dim);
  std::vector<float> q(width), o(width), lse(static_cast<std::size_t>(p.query_heads));
  for (std::size_t i = 0; i < width; ++i)
    q[i] = kvcrumb::to_float(random[random.size() - 1 - i]);
  std::vector<float> work(
      static_cast<std::size_t>(kvcrumb::attend_workspace(all.front().view(), p.query_heads, 1)));

  std::size_t i = 0;
  kvcrumb_bench::cpu_clock const clock;
  for (auto _ : state) {
    auto const& cache = all[i++ % all.size()];
    kvcrumb_bench::require(
        kvcrumb::attend(cache.view(), kvcrumb::hnd_rows<float const>(q.data(), 1, head_dim), p.query_heads, 1,
                        kvcrumb::hnd_rows(o.data(), 1, head_dim), lse.data(), {}, std::span<float>(work)),
        "attend");
    benchmark::DoNotOptimize(o.data());
    benchmark::ClobberMemory();
  }
  kvcrumb_bench::report(state, p, static_cast<double>(all.front().bytes_used()), all.front().bits_per_value(),
                        clock.seconds());
}

}  // namespace

int main(int argc, char** argv) {
  for (problem const& p : {problem{32, 8, 4096}, problem{32, 8, 16384}, problem{32, 32, 4096}}) {
    kvcrumb_bench::for_each_scheme([&](auto const& scheme) {
      benchmark::RegisterBenchmark(kvcrumb_bench::name_of("attend", scheme.name, p).c_str(),
                                   [scheme, p](benchmark::State& state) { attend(state, scheme, p); })
          ->Unit(benchmark::kMillisecond);
    });
  }
  return kvcrumb_bench::run_benchmarks(argc, argv);
}
