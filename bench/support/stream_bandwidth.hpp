// SPDX-License-Identifier: Apache-2.0
//! @file How fast this machine can read memory from one end to the other, measured in the same run as the benchmarks.
#pragma once

#include <algorithm>
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
  for (auto const& entry : std::filesystem::directory_iterator("/sys/devices/system/cpu/cpu0/cache", ignored)) {
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
inline std::int64_t uncached_bytes() { return std::max(std::int64_t{512} << 20, 4 * last_level_cache_bytes()); }

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
      for (int j = 0; j < step; ++j) sums[s][j] += data[s * length + i + j];
    }
  }
  std::uint64_t total = 0;
  for (auto const& stream : sums) {
    for (std::uint64_t const sum : stream) total += sum;
  }
  return total;
}

//! Median bytes per second of `rounds` passes of `threads` threads, each over its own part of `data`. Wall time,
//! starting and joining the threads included (some 10 us of some 10 ms).
inline double read_rate(std::vector<std::uint64_t> const& data, int threads, int rounds) {
  std::int64_t const part = static_cast<std::int64_t>(data.size()) / threads;
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
  std::vector<double> rates;
  for (int round = 0; round < rounds; ++round) {
    auto const begin = std::chrono::steady_clock::now();
    if (threads == 1) {
      sums[0] += read_words(data.data(), part);
    } else {
      std::vector<std::thread> workers;
      for (int t = 0; t < threads; ++t) {
        workers.emplace_back([&, t] { sums[static_cast<std::size_t>(t)] += read_words(data.data() + t * part, part); });
      }
      for (std::thread& worker : workers) worker.join();
    }
    std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
    rates.push_back(static_cast<double>(part * threads * 8) / seconds.count());
  }
  std::uint64_t volatile keep = 0;
  for (std::uint64_t const sum : sums) keep = keep + sum;
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

//! Measures both rates: the median of 9 passes over uncached_bytes().
inline stream_bandwidth measure_stream_bandwidth() {
  std::vector<std::uint64_t> data(static_cast<std::size_t>(uncached_bytes() / 8));
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = i;
  int const threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  double const one = read_rate(data, 1, 9);
  return {one, threads > 1 ? read_rate(data, threads, 9) : one};
}

}  // namespace kvcrumb_bench
