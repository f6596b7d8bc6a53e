// SPDX-License-Identifier: Apache-2.0
//! @file What the .cpp files of the emulator share. They are compiled without sanitizers: TSan, ASan and MSan
//! must not see what the scheduler does, and are told what they need to know.
//!
//! While a lane runs, nothing may be allocated and no libc function called that a sanitizer intercepts: TSan
//! would take these for accesses of the lane and report races of the runtime's own data.
#pragma once

#include <memory>
#include <vector>

#include "support/simt/simt.hpp"

// Present in the sanitizer builds only.
#define SIMT_WEAK __attribute__((weak))
extern "C" {
SIMT_WEAK void __sanitizer_start_switch_fiber(void**, void const*, std::size_t);
SIMT_WEAK void __sanitizer_finish_switch_fiber(void*, void const**, std::size_t*);
SIMT_WEAK void __sanitizer_set_death_callback(void (*)());
SIMT_WEAK void __asan_poison_memory_region(void const volatile*, std::size_t);
SIMT_WEAK void __asan_unpoison_memory_region(void const volatile*, std::size_t);
SIMT_WEAK void* __asan_region_is_poisoned(void*, std::size_t);
SIMT_WEAK void* __tsan_create_fiber(unsigned);
SIMT_WEAK void __tsan_destroy_fiber(void*);
SIMT_WEAK void* __tsan_get_current_fiber();
SIMT_WEAK void __tsan_switch_to_fiber(void*, unsigned);
SIMT_WEAK void __tsan_acquire(void*);
SIMT_WEAK void __tsan_release(void*);
SIMT_WEAK void __msan_poison(void const volatile*, std::size_t);
SIMT_WEAK void __msan_unpoison(void const volatile*, std::size_t);
SIMT_WEAK void __msan_unpoison_param(std::size_t);
}

namespace simt::detail {

inline constexpr std::size_t stack_bytes = 256 << 10, guard_bytes = 4096;
//! Shared memory of a block: static variables first, the dynamic array from static_limit on, a red zone
//! behind it.
inline constexpr std::size_t static_limit = 48 << 10;
inline constexpr std::size_t arena_bytes = static_limit + max_shared_per_block + 4096;
//! Shared addresses begin here, so that 0 is never valid.
inline constexpr std::uint32_t first_address = 0x400;
inline constexpr std::size_t granule = 16, granules = arena_bytes / granule;
inline constexpr std::size_t max_barriers = 256, max_copies = 1 << 15;
inline constexpr unsigned max_groups = 64, max_warps = 32;

enum class state : std::uint8_t { runnable, warp_operation, block_barrier, phase, exited };

//! The copy_async_16 of one lane between two copy_async_arrive.
struct copy_group {
  std::uint32_t barrier;
  int outstanding;
};

struct fibre {
  dim3 thread;
  unsigned index, warp, lane;
  // context
  void* stack_pointer = nullptr;
  void* asan_fake_stack = nullptr;
  void* tsan = nullptr;
  std::byte* stack = nullptr;
  void const* stack_bottom = nullptr;
  std::size_t stack_size = stack_bytes;
  void* ucontext = nullptr;
  // where it is
  simt::detail::state state = state::runnable;
  bool fenced = false;  //!< has executed a __threadfence()
  site at{};
  std::uint32_t priority = 0;
  // waits for a warp operation
  operation const* op = nullptr;
  std::uint32_t mask = 0;
  void const* in = nullptr;
  void* out = nullptr;
  // waits for the block, or for a phase of a barrier
  int vote = 0;
  std::uint32_t barrier = 0, parity = 0;
  // asynchronous copies
  std::uint64_t proxy_epoch = 0;             //!< new with each block and each async_proxy_fence()
  copy_group groups[max_groups];             //!< a ring
  unsigned first_group = 0, open_group = 0;  //!< the open one collects copies
};

struct warp_state {
  std::uint32_t arrived = 0;  //!< lanes that wait in a warp operation
  std::uint32_t existing = 0, exited = 0;
};

//! An mbarrier.
struct barrier_state {
  std::uint32_t address;
  int count, pending;
  std::int64_t bytes;  //!< announced and not yet there
  std::uint32_t phase;
};

struct copy {
  std::uint32_t to;
  int bytes;
  void const* from;
  std::uint32_t barrier;  //!< 0 for copy_async_16
  fibre* owner;
  unsigned group;
};

//! Where a TSan clock is stored: only the address counts.
using sync_point = std::uint64_t;

//! What blocks may not share if accesses of two blocks are to stay unordered in TSan's eyes: its threads,
//! memory and clocks. Elsewhere there is one. See choose_world().
struct world {
  std::vector<std::unique_ptr<fibre>> fibres;
  std::byte* arena = nullptr;
  unsigned blocks = 0;  //!< run so far
  sync_point block_end[2], block_point[2], warp_point[max_warps], phase_point[max_barriers][2];
  sync_point copy_point[granules];
  void* barrier_engine[max_barriers];  //!< TSan threads that copy: one for all would order the warps
  void* warp_engine[max_warps];
};

//! The running launch.
struct launch_state {
  options how;
  fibre* running = nullptr;
  fibre main;
  void (*thread)(void*) = nullptr;
  void* context = nullptr;
  std::vector<fibre*> lanes, ready;
  warp_state warps[max_warps];
  int live = 0;
  world* here = nullptr;
  std::uint64_t random_state = 1;
  std::size_t dynamic_bytes = 0;
  std::uint64_t proxy_epochs = 0;  //!< given out so far
};
extern launch_state now;
extern sync_point launch_begin, launch_end;

// ---- sanitizers

inline bool under_tsan() { return __tsan_create_fiber != nullptr; }
inline void acquire(sync_point& p) {
  if (__tsan_acquire != nullptr) {
    __tsan_acquire(&p);
  }
}
inline void release(sync_point& p) {
  if (__tsan_release != nullptr) {
    __tsan_release(&p);
  }
}
//! Does f as another of TSan's threads.
template <class F>
void as_tsan_thread(void* thread, F f) {
  if (under_tsan()) {
    void* const back = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(thread, 1);
    f();
    __tsan_switch_to_fiber(back, 1);
  } else {
    f();
  }
}

// ---- contexts (contexts.cpp)

void prepare_main_context();
world& choose_world(unsigned threads);
void jump(fibre* to);

// ---- scheduler (simt.cpp)

std::uint32_t random_number();
//! Makes a lane that waited runnable.
void wake(fibre* f);
//! Leaves the running lane, which has said in its state what it waits for.
void switch_away();

// ---- shared memory (shared_memory.cpp)

void shared_begin_block();
//! Completes what must be complete, and checks it.
void shared_end_block();
std::size_t copies_in_flight();
void finish_some_copy();
class message;
void describe_barriers(message& m);

// ---- errors: text without libc

class message {
 public:
  message& operator<<(char const* s) {
    while (*s != '\0') {
      put(*s++);
    }
    return *this;
  }
  message& operator<<(std::int64_t x) {
    if (x < 0) {
      put('-');
    }
    return number(x < 0 ? 0u - static_cast<std::uint64_t>(x) : static_cast<std::uint64_t>(x), 10);
  }
  message& operator<<(std::uint64_t x) { return number(x, 10); }
  message& operator<<(int x) { return *this << static_cast<std::int64_t>(x); }
  message& operator<<(unsigned x) { return *this << static_cast<std::uint64_t>(x); }
  message& operator<<(site at) {
    return at.file == nullptr ? *this << "?" : *this << at.file << ":" << at.line;
  }
  message& hex(std::uint64_t x) { return (*this << "0x").number(x, 16); }
  char const* text() const { return text_; }
  std::size_t size() const { return size_; }

 private:
  void put(char c) {
    if (size_ + 1 < sizeof(text_)) {
      text_[size_++] = c;
      text_[size_] = '\0';
    }
  }
  message& number(std::uint64_t x, unsigned base) {
    char digits[24];
    int n = 0;
    do {
      digits[n++] = "0123456789abcdef"[x % base];
      x /= base;
    } while (x != 0);
    while (n > 0) {
      put(digits[--n]);
    }
    return *this;
  }

  char text_[4000] = {};
  std::size_t size_ = 0;
};
[[noreturn]] void fail(site at, message const& what);
[[noreturn]] void deadlock();

inline bool same(site a, site b) {
  if (a.line != b.line) {
    return false;
  }
  char const *p = a.file, *q = b.file;
  while (p != q && *p != '\0' && *p == *q) {
    ++p, ++q;
  }
  return p == q || *p == *q;
}

}  // namespace simt::detail
