// SPDX-License-Identifier: Apache-2.0
//! @file How fast this machine can read memory from one end to the other, measured in the same run as the
//! benchmarks.
#pragma once

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace kvcrumb_bench {

//! Bytes of the largest cache that Linux reports for processor 0; 32 MiB where it reports none.
inline std::int64_t last_level_cache_bytes() {
  std::int64_t largest = 0;
  std::error_code ignored;
  for (auto const& entry :
       std::filesystem::directory_iterator("/sys/devices/system/cpu/cpu0/cache", ignored)) {
    std::ifstream file(entry.path() / "size");
    std::int64_t size = 0;
    char unit = ' ';
    if (!(file >> size)) continue;
    file >> unit;
    largest = std::max(largest, size * (unit == 'M' ? 1 << 20 : unit == 'K' ? 1 << 10 : 1));
  }
  return largest > 0 ? largest : std::int64_t{32} << 20;
}

//! Bytes that no cache of this machine holds: 512 MiB or four times the last-level cache, whichever is more.
inline std::int64_t uncached_bytes() {
  return std::max(std::int64_t{512} << 20, 4 * last_level_cache_bytes());
}

struct stream_bandwidth {
  double one_thread = 0.0;   //!< bytes per second of one thread
  double all_threads = 0.0;  //!< bytes per second of all hardware threads together
};

//! Sum of `words` 64-bit words, read as eight streams that run side by side, so that no single stream of the
//! prefetcher is the limit.
inline std::uint64_t read_words(std::uint64_t const* data, std::int64_t words) {
  constexpr int streams = 8, step = 8;  // a step is one cache line
  std::int64_t const length = words / streams / step * step;
  std::uint64_t sums[streams][step] = {};
  for (std::int64_t i = 0; i < length; i += step) {
    for (int s = 0; s < streams; ++s) {
      for (int j = 0; j < step; ++j)
        sums[s][j] += data[s * length + i + j];
    }
  }
  std::uint64_t total = 0;
  for (auto const& stream : sums) {
    for (std::uint64_t const sum : stream)
      total += sum;
  }
  return total;
}

//! Seconds that the calling thread has been on a processor, so that other programs' turns do not count; wall
//! time where the system does not tell.
inline double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

//! Bytes per second of `threads` threads together, each over its own part of `data`: the sum of their medians
//! of `rounds` passes, in processor time. Where others take processors away, threads that do not run at the
//! same time do not compete for memory either, and the sum is too large, never too small.
inline double read_rate(std::vector<std::uint64_t> const& data, int threads, int rounds) {
  std::int64_t const part = static_cast<std::int64_t>(data.size()) / threads;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::atomic<std::uint64_t> keep{0};
  auto const measure = [&](int t) {
    std::vector<double> passes;
    for (int round = 0; round < rounds; ++round) {
      double const begin = thread_seconds();
      keep += read_words(data.data() + t * part, part);
      passes.push_back(static_cast<double>(8 * part) / (thread_seconds() - begin));
    }
    std::sort(passes.begin(), passes.end());
    rates[static_cast<std::size_t>(t)] = passes[passes.size() / 2];
  };
  std::vector<std::thread> workers;
  for (int t = 1; t < threads; ++t)
    workers.emplace_back(measure, t);
  measure(0);
  for (std::thread& worker : workers)
    worker.join();
  double total = 0.0;
  for (double const rate : rates)
    total += rate;
  return total;
}

//! Measures both rates: the median of 9 passes over uncached_bytes().
inline stream_bandwidth measure_stream_bandwidth() {
  std::vector<std::uint64_t> data(static_cast<std::size_t>(uncached_bytes() / 8));
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i] = i;
  int const threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  double const one = read_rate(data, 1, 9);
  return {one, threads > 1 ? read_rate(data, threads, 9) : one};
}

}  // namespace kvcrumb_bench
