// SPDX-License-Identifier: Apache-2.0
//! @file Threads that wait for work by spinning, and the clocks by which a timing is accepted.
#pragma once

#include <atomic>
#include <chrono>
#include <ctime>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace kvcrumb_bench {

inline double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
//! Of all threads of the process.
inline double processor_seconds() {
  std::timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

//! One timed run. Accepted if every thread had its processor all the time.
struct timing {
  double wall = 0.0, processor = 0.0;
  bool accepted(int threads) const { return processor >= 0.95 * threads * wall; }
};

template <class F>
timing timed(F&& run) {
  double const p = processor_seconds(), w = wall_seconds();
  run();
  double const wall = wall_seconds() - w;
  return {wall, processor_seconds() - p};
}

//! `threads` threads, the caller among them. Between wake() and rest() the others spin, so that run() starts
//! at once; at rest they sleep.
class workers {
 public:
  explicit workers(int threads) : threads_{threads} {
    for (int i = 1; i < threads; ++i)
      others_.emplace_back([this, i] { serve(i); });
  }
  workers(workers const&) = delete;
  workers& operator=(workers const&) = delete;
  ~workers() {
    stop_ = true;
    wake();
    for (std::thread& t : others_)
      t.join();
  }

  int threads() const { return threads_; }
  void wake() {
    awake_ = true;
    awake_.notify_all();
  }
  void rest() { awake_ = false; }

  //! f(i) on thread i of all; returns when all are done.
  void run(std::function<void(int)> const& f) {
    work_ = &f;
    done_.store(0, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    f(0);
    while (done_.load(std::memory_order_acquire) != threads_ - 1)
      pause();
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  void serve(int i) {
    for (int seen = 0;;) {
      while (round_.load(std::memory_order_acquire) == seen) {
        if (stop_) return;
        if (!awake_) awake_.wait(false);
        pause();
      }
      ++seen;
      (*work_)(i);
      done_.fetch_add(1, std::memory_order_release);
    }
  }

  int threads_;
  std::vector<std::thread> others_;
  std::function<void(int)> const* work_ = nullptr;
  std::atomic<int> round_{0}, done_{0};
  std::atomic<bool> awake_{false}, stop_{false};
};

}  // namespace kvcrumb_bench
