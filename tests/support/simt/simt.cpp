// SPDX-License-Identifier: Apache-2.0
//! @file The scheduler of the emulator: launches, blocks, __syncthreads.
#include "support/simt/simt.hpp"

#include <algorithm>

#include "support/simt/runtime.hpp"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace simt {

namespace detail {

launch_state now;
sync_point launch_begin, launch_end;

namespace {

int waiting_at_block_barrier = 0;
unsigned block_barriers = 0;
std::int64_t idle_yields = 0;

fibre* next_lane() {
  for (;;) {
    std::size_t const flying = copies_in_flight();
    bool const copy_now =
        now.ready.empty() || (now.how.copies == copies::random && random_number() % 64 == 0);
    if (flying != 0 && copy_now) {
      finish_some_copy();
      continue;
    }
    if (now.ready.empty()) {
      if (now.live == 0) {
        return &now.main;
      }
      deadlock();
    }
    std::size_t i = random_number() % now.ready.size();
    if (now.how.order == order::priority) {  // one lane runs as far as it can; now and then it falls behind
      for (std::size_t j = 0; j < now.ready.size(); ++j) {
        if (now.ready[j]->priority > now.ready[i]->priority) {
          i = j;
        }
      }
      if (random_number() % 1024 == 0) {
        now.ready[i]->priority = random_number() >> 8;
        continue;
      }
    }
    fibre* const f = now.ready[i];
    now.ready[i] = now.ready.back();
    now.ready.pop_back();
    return f;
  }
}

void run_block(dim3 block_dim, unsigned threads) {
  now.here = &choose_world(threads);
  now.lanes.clear();
  now.ready.clear();
  now.live = static_cast<int>(threads);
  waiting_at_block_barrier = 0;
  idle_yields = 0;
  ++now.proxy_epochs;
  shared_begin_block();
  for (warp_state& w : now.warps) {
    w = {};
  }
  std::uint32_t warp_priority = 0;
  for (unsigned i = 0; i < threads; ++i) {
    fibre* const f = now.here->fibres[i].get();
    f->thread = {i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y)};
    f->index = i;
    f->warp = i / 32;
    f->lane = i % 32;
    f->fenced = false;
    f->proxy_epoch = now.proxy_epochs;
    f->first_group = f->open_group = 0;
    f->groups[0] = {0, 0};
    f->barrier = f->parity = 0;
    if (f->lane == 0) {
      warp_priority = random_number() << 16 & 0xFF000000u;
    }
    f->priority = warp_priority | (random_number() & 0xFFFFu);
    now.warps[f->warp].existing |= 1u << f->lane;
    now.lanes.push_back(f);
    wake(f);
  }
  jump(next_lane());
  shared_end_block();
  ++now.here->blocks;
}

}  // namespace

std::uint32_t random_number() {
  std::uint64_t& x = now.random_state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return static_cast<std::uint32_t>(x >> 32);
}

void wake(fibre* f) {
  f->state = state::runnable;
  now.ready.push_back(f);
}

void switch_away() { jump(next_lane()); }

}  // namespace detail

using namespace detail;

void run(dim3 grid_dim, dim3 block_dim, std::size_t dynamic_shared, options const& how, void (*thread)(void*),
         void* context) {
  std::uint64_t const threads = std::uint64_t{block_dim.x} * block_dim.y * block_dim.z;
  std::uint64_t const blocks = std::uint64_t{grid_dim.x} * grid_dim.y * grid_dim.z;
  site const nowhere{nullptr, 0};
  if (now.running != nullptr) {
    fail(nowhere, message() << "a launch within a kernel");
  }
  if (threads == 0 || threads > 1024 || blocks == 0 || blocks > 0xFFFFFFFFu) {
    fail(nowhere, message() << "a launch of " << blocks << " blocks of " << threads << " threads");
  }
  if (dynamic_shared > static_cast<std::size_t>(max_shared_per_block)) {
    fail(nowhere,
         message() << "a launch with " << std::uint64_t{dynamic_shared} << " bytes of shared memory");
  }
  now.how = how;
  now.random_state = how.seed * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u;
  now.random_state += now.random_state == 0 ? 1 : 0;
  for (int i = 0; i < 4; ++i) {
    random_number();
  }
  now.thread = thread;
  now.context = context;
  now.dynamic_bytes = dynamic_shared;
  now.running = &now.main;
  gridDim = grid_dim;
  blockDim = block_dim;
  now.lanes.reserve(threads);
  now.ready.reserve(threads);
  prepare_main_context();
  std::vector<std::uint32_t> block_order(blocks);
  for (std::uint32_t i = 0; i < blocks; ++i) {
    block_order[i] = i;
  }
  for (std::uint64_t i = blocks; i > 1; --i) {
    std::swap(block_order[i - 1], block_order[random_number() % i]);
  }
  release(launch_begin);
  for (std::uint32_t const b : block_order) {
    blockIdx = {b % grid_dim.x, b / grid_dim.x % grid_dim.y, b / grid_dim.x / grid_dim.y};
    run_block(block_dim, static_cast<unsigned>(threads));
  }
  acquire(launch_end);
  now.running = nullptr;
}

// ---- the block's barrier

int block_barrier(block_vote vote, bool predicate, site at) {
  static int sum, exact_threads;
  static block_vote kind;
  fibre& self = *now.running;
  unsigned const turn = block_barriers & 1u;
  bool const exiting = self.state == state::exited;
  if (!exiting) {
    release(now.here->block_point[turn]);
    if (waiting_at_block_barrier == 0) {
      sum = exact_threads = 0;
      kind = vote;
    } else {
      for (fibre const* f : now.lanes) {  // the first one that waits stands for all
        if (f->state == state::block_barrier) {
          if (!same(f->at, at)) {
            fail(at, message() << "__syncthreads reached at two places: thread " << f->index << " waits at "
                               << f->at);
          }
          break;
        }
      }
    }
    self.state = state::block_barrier;
    self.at = at;
    sum += predicate ? 1 : 0;
    ++waiting_at_block_barrier;
  }
  if (now.live != 0 && waiting_at_block_barrier == now.live) {
    int const n = waiting_at_block_barrier;
    int const result = kind == block_vote::any ? sum != 0 : kind == block_vote::all ? sum == n : sum;
    waiting_at_block_barrier = 0;
    ++block_barriers;
    for (fibre* f : now.lanes) {
      if (f->state == state::block_barrier) {
        f->vote = result;
        wake(f);
      }
    }
  }
  switch_away();
  if (exiting) {
    return 0;
  }
  acquire(now.here->block_point[turn]);
  return self.vote;
}

void preempt() {
  if ((random_number() & 7u) == 0) {
    wake(now.running);
    switch_away();
  }
}

void yield_lane(site at) {
  if (++idle_yields > 20'000'000) {
    fail(at, message() << "waits forever: blocks run one after another here");
  }
  now.running->priority = random_number() >> 8;  // else the highest priority would spin alone
  wake(now.running);
  switch_away();
}

void thread_fence() { now.running->fenced = true; }

void atomic_order(void const* p) {
  if (under_tsan()) {
    if (now.running->fenced) {
      __tsan_release(const_cast<void*>(p));
    }
    __tsan_acquire(const_cast<void*>(p));
  }
}

}  // namespace simt
