// SPDX-License-Identifier: Apache-2.0
//! @file workers: see workers.hpp.
#include "workers.hpp"

namespace kvcrumb_lm {

workers::workers(int threads) {
  for (int i = 1; i < threads; ++i)
    threads_.emplace_back([this] { work(); });
}

workers::~workers() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_)
    t.join();
}

void workers::take(std::function<void(std::int64_t)> const& piece, std::int64_t count) {
  for (std::int64_t i = next_.fetch_add(1); i < count; i = next_.fetch_add(1))
    piece(i);
}

void workers::run(std::int64_t count, std::function<void(std::int64_t)> const& piece) {
  if (threads_.empty() || count < 2) {
    for (std::int64_t i = 0; i < count; ++i)
      piece(i);
    return;
  }
  {
    std::lock_guard const lock(mutex_);
    piece_ = &piece;
    count_ = count;
    next_ = 0;
    busy_ = static_cast<int>(threads_.size());
    ++round_;
  }
  wake_.notify_all();
  take(piece, count);
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return busy_ == 0; });
}

void workers::work() {
  std::uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    auto const* piece = piece_;
    std::int64_t const count = count_;
    lock.unlock();
    take(*piece, count);
    lock.lock();
    if (--busy_ == 0) idle_.notify_one();
  }
}

}  // namespace kvcrumb_lm
