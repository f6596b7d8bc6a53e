// SPDX-License-Identifier: Apache-2.0
//! @file Fibres of the emulator: how a lane is entered and left, and what the sanitizers are told about it.
#include <sys/mman.h>

#include "support/simt/runtime.hpp"

#if !defined(__x86_64__) || defined(KVCRUMB_SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#include <ucontext.h>
#endif

namespace simt::detail {

namespace {

// ---- contexts

#if !defined(SIMT_UCONTEXT)
extern "C" void kvcrumb_simt_switch(void** save, void* to);
__asm__(R"(
.text
.p2align 4
.type kvcrumb_simt_switch,@function
kvcrumb_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kvcrumb_simt_switch, .-kvcrumb_simt_switch
)");
#endif

void finish_switch(fibre* came_from, void* fake_stack) {
  if (__sanitizer_finish_switch_fiber != nullptr) {
    // the bounds of the main stack are only known when it has been left
    bool const from_main = came_from == &now.main;
    __sanitizer_finish_switch_fiber(fake_stack, from_main ? &now.main.stack_bottom : nullptr,
                                    from_main ? &now.main.stack_size : nullptr);
  }
}

fibre* left = nullptr;  //!< the fibre before the last switch

}  // namespace

void jump(fibre* to) {
  fibre* const from = now.running;
  if (from == to) {
    return;
  }
  left = from;
  now.running = to;
  threadIdx = to->thread;
  if (under_tsan()) {
    __tsan_switch_to_fiber(to->tsan, 1);
  }
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(&from->asan_fake_stack, to->stack_bottom, to->stack_size);
  }
#if defined(SIMT_UCONTEXT)
  ::swapcontext(static_cast<ucontext_t*>(from->ucontext), static_cast<ucontext_t*>(to->ucontext));
#else
  kvcrumb_simt_switch(&from->stack_pointer, to->stack_pointer);
#endif
  finish_switch(left, from->asan_fake_stack);
}

namespace {

//! Runs lane after lane of this fibre's index, one for each block.
void fibre_main() {
  finish_switch(left, nullptr);
  for (;;) {
    fibre& self = *now.running;
    world& w = *now.here;
    unsigned const turn = w.blocks & 1u;
    acquire(launch_begin);
    acquire(w.block_end[1 - turn]);
    if (__msan_unpoison_param != nullptr) {
      __msan_unpoison_param(1);
    }
    now.thread(now.context);
    release(w.block_end[turn]);
    release(launch_end);
    self.state = state::exited;
    warp_state& warp = now.warps[self.warp];
    warp.exited |= 1u << self.lane;
    for (unsigned i = 0; i < 32; ++i) {
      if ((warp.arrived >> i & 1u) != 0) {
        fibre const& other = *now.lanes[self.warp * 32 + i];
        if ((other.mask >> self.lane & 1u) != 0) {
          fail(other.at, message() << "the thread exits while lane " << other.lane << " waits for it in "
                                   << other.op->name);
        }
      }
    }
    --now.live;
    block_barrier(block_vote::none, false, {nullptr, 0});
  }
}

void* map_pages(std::size_t bytes) {
  void* const p =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    fail({nullptr, 0}, message() << "the emulator is out of memory");
  }
  return p;
}

std::unique_ptr<fibre> make_fibre() {
  auto f = std::make_unique<fibre>();
  auto* const pages = static_cast<std::byte*>(map_pages(stack_bytes + guard_bytes));
  ::mprotect(pages, guard_bytes, PROT_NONE);
  f->stack = pages + guard_bytes;
  f->stack_bottom = f->stack;
#if defined(SIMT_UCONTEXT)
  auto* const u = new ucontext_t;
  ::getcontext(u);
  u->uc_stack.ss_sp = f->stack;
  u->uc_stack.ss_size = stack_bytes;
  u->uc_link = nullptr;
  ::makecontext(u, fibre_main, 0);
  f->ucontext = u;
#else
  auto** top = reinterpret_cast<void**>(f->stack + stack_bytes - 64);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(fibre_main);
  f->stack_pointer = top - 6;  // six registers, zero in fresh pages
#endif
  if (under_tsan()) {
    f->tsan = __tsan_create_fiber(0);
  }
  return f;
}

}  // namespace

//! Two blocks in the same world are ordered in TSan's eyes, so there are some, chosen at random; fresh ones
//! for each block would cost 50 ms.
world& choose_world(unsigned threads) {
  static std::vector<std::unique_ptr<world>> worlds;
  static std::size_t last = 0;
  std::size_t const wanted = under_tsan() ? (threads <= 256 ? 4 : 2) : 1;
  while (worlds.size() < wanted) {
    auto w = std::unique_ptr<world>(new world());
    w->arena = static_cast<std::byte*>(map_pages(arena_bytes));
    worlds.push_back(std::move(w));
  }
  if (wanted > 1) {
    last = (last + 1 + random_number() % (wanted - 1)) % wanted;
  } else {
    last = 0;
  }
  world& w = *worlds[last];
  while (w.fibres.size() < threads) {
    w.fibres.push_back(make_fibre());
  }
  for (unsigned i = 0; under_tsan() && i < max_warps; ++i) {
    if (w.warp_engine[i] == nullptr && i * 32 < threads) {
      w.warp_engine[i] = __tsan_create_fiber(0);
    }
  }
  return w;
}

void prepare_main_context() {
  if (under_tsan()) {
    now.main.tsan = __tsan_get_current_fiber();
  }
#if defined(SIMT_UCONTEXT)
  static ucontext_t main_context;
  now.main.ucontext = &main_context;
#endif
}

}  // namespace simt::detail
