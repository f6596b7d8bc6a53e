// SPDX-License-Identifier: Apache-2.0
//! @file workers: a few threads that share the pieces of one loop after another.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kvcrumb_lm {

class workers {
 public:
  //! The caller is one of `threads` (at least 1).
  explicit workers(int threads);
  ~workers();
  workers(workers const&) = delete;
  workers& operator=(workers const&) = delete;

  //! Calls piece(i) for i in [0, count), each once, in any order, on any of the threads; returns when all are
  //! done. `piece` must not throw. Not reentrant.
  void run(std::int64_t count, std::function<void(std::int64_t)> const& piece);

 private:
  void work();
  void take(std::function<void(std::int64_t)> const& piece, std::int64_t count);

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::function<void(std::int64_t)> const* piece_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::uint64_t round_ = 0;
  int busy_ = 0;
  bool stop_ = false;
};

}  // namespace kvcrumb_lm
