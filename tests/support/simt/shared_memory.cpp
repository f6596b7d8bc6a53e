// SPDX-License-Identifier: Apache-2.0
//! @file Shared memory of the emulator: arrays and their bounds, mbarriers, asynchronous copies.
#include <cstring>

#include "support/simt/runtime.hpp"

namespace simt {

using namespace detail;

namespace {

struct static_variable {
  void const* key;
  std::uint32_t offset, bytes;
};
// nothing of this grows while a lane runs: see runtime.hpp
std::vector<static_variable> statics;
std::size_t static_used = 0;
std::vector<barrier_state> barriers;
std::vector<copy> in_flight;
std::uint8_t filling[granules];  //!< a copy will write here
//! Who wrote these two bytes last through store_shared_*, and his proxy_epoch then: (epoch << 10 | thread).
std::uint64_t written[arena_bytes / 2];
bool any_written = false;

std::byte* bytes_at(std::uint32_t address) { return now.here->arena + (address - first_address); }

//! Ones, undefined for MSan; not memset, which sanitizers would take for an access of the running lane.
void destroy(std::byte* p, std::size_t n) {
  std::size_t i = 0;
  for (; i < n && (reinterpret_cast<std::uintptr_t>(p + i) & 7u) != 0; ++i) {
    const_cast<std::byte volatile*>(p)[i] = std::byte{0xFF};
  }
  for (; i + 8 <= n; i += 8) {
    *reinterpret_cast<any_u64 volatile*>(p + i) = ~std::uint64_t{0};
  }
  for (; i < n; ++i) {
    const_cast<std::byte volatile*>(p)[i] = std::byte{0xFF};
  }
  if (__msan_poison != nullptr) {
    __msan_poison(p, n);
  }
}

void begin_array(std::byte* p, std::size_t n) {
  if (__asan_unpoison_memory_region != nullptr) {
    __asan_unpoison_memory_region(p, n);
  }
  destroy(p, n);
}

//! Whether [offset, offset + bytes) lies in one array.
bool in_an_array(std::size_t offset, std::size_t bytes) {
  if (offset >= static_limit) {
    return offset + bytes <= static_limit + now.dynamic_bytes;
  }
  for (static_variable const& s : statics) {
    if (offset >= s.offset && offset + bytes <= s.offset + s.bytes) {
      return true;
    }
  }
  return false;
}

[[noreturn]] void bad_address(site at, std::uint32_t address, std::uint64_t bytes, char const* what) {
  fail(at, (message() << "shared address ").hex(address) << ", " << bytes << " bytes: " << what);
}

void check_address(std::uint32_t address, std::uint32_t bytes, std::uint32_t alignment, site at) {
  if (address % alignment != 0) {
    bad_address(at, address, bytes, "misaligned");
  }
  if (address < first_address || !in_an_array(address - first_address, bytes)) {
    bad_address(at, address, bytes, "outside every shared array");
  }
}

barrier_state* find(std::uint32_t address) {
  for (barrier_state& b : barriers) {
    if (b.address == address) {
      return &b;
    }
  }
  return nullptr;
}
barrier_state& barrier_at(std::uint32_t address, site at) {
  barrier_state* const b = find(address);
  if (b == nullptr) {
    fail_at(at, "barrier used before barrier_init");
  }
  return *b;
}
sync_point& phase_point(barrier_state const& b) {
  return now.here->phase_point[&b - barriers.data()][b.phase & 1u];
}
void* engine_of(barrier_state const& b) {
  void*& engine = now.here->barrier_engine[&b - barriers.data()];
  if (under_tsan() && engine == nullptr) {
    engine = __tsan_create_fiber(0);
  }
  return engine;
}

void end_phase_if_complete(barrier_state& b) {
  if (b.pending != 0 || b.bytes != 0) {
    return;
  }
  sync_point& point = phase_point(b);
  ++b.phase;
  b.pending = b.count;
  for (fibre* f : now.lanes) {
    if (f->state == state::phase && f->barrier == b.address && (b.phase & 1u) != f->parity) {
      if (under_tsan()) {  // here and not when it runs: by then later phases may have been released
        as_tsan_thread(f->tsan, [&] { acquire(point); });
      }
      wake(f);
    }
  }
}

void arrive(barrier_state& b, site at) {
  if (b.pending == 0) {
    fail(at, (message() << "barrier ").hex(b.address) << ": more arrivals than its count of " << b.count);
  }
  release(phase_point(b));
  --b.pending;
}

//! Arrivals that copy_async_arrive() promised and whose copies, and all earlier ones of this lane, are
//! complete.
void arrive_for(fibre& owner, site at) {
  while (owner.first_group != owner.open_group &&
         owner.groups[owner.first_group % max_groups].outstanding == 0) {
    barrier_state& b = barrier_at(owner.groups[owner.first_group % max_groups].barrier, at);
    ++owner.first_group;
    arrive(b, at);
    end_phase_if_complete(b);
  }
}

void start(copy const& c, site at) {
  if (in_flight.size() == max_copies) {
    fail_at(at, "too many copies in flight for the emulator");
  }
  auto const bytes = static_cast<std::size_t>(c.bytes);
  if (reinterpret_cast<std::uintptr_t>(c.from) % 16 != 0) {
    fail_at(at, "copy: the source is not a multiple of 16");
  }
  check_address(c.to, static_cast<std::uint32_t>(c.bytes), 16, at);
  if (__asan_region_is_poisoned != nullptr &&
      __asan_region_is_poisoned(const_cast<void*>(c.from), bytes) != nullptr) {
    fail_at(at, "copy: the source reaches beyond its array");
  }
  std::size_t const first = (c.to - first_address) / granule;
  for (std::size_t i = first; i < first + bytes / granule; ++i) {
    if (filling[i] != 0) {
      bad_address(at, c.to, bytes, "a copy into a destination that is still being filled");
    }
    const_cast<std::uint8_t volatile&>(filling[i]) = 1;  // volatile: no memset, which TSan would intercept
  }
  for (std::size_t i = first * 8; any_written && c.barrier != 0 && i < first * 8 + bytes / 2; ++i) {
    auto const writer = static_cast<std::size_t>(written[i] & 1023u);
    if (written[i] != 0 && writer < now.lanes.size() && now.lanes[writer]->proxy_epoch == written[i] >> 10) {
      bad_address(at, c.to, bytes,
                  "a bulk copy over bytes of store_shared_* without async_proxy_fence() since");
    }
  }
  destroy(bytes_at(c.to), bytes);  // from here on the old bytes are gone
  release(now.here->copy_point[first]);
  in_flight.push_back(c);
}

void finish(std::size_t i) {
  copy const c = in_flight[i];
  in_flight[i] = in_flight.back();
  in_flight.pop_back();
  std::size_t const first = (c.to - first_address) / granule;
  world& w = *now.here;
  auto const move = [&] {
    acquire(w.copy_point[first]);
    std::memcpy(bytes_at(c.to), c.from, static_cast<std::size_t>(c.bytes));  // the sanitizers intercept it
    release(w.block_end[w.blocks & 1u]);
    for (std::size_t j = first; j < first + static_cast<std::size_t>(c.bytes) / granule; ++j) {
      const_cast<std::uint8_t volatile&>(filling[j]) = 0;
    }
  };
  if (c.barrier != 0) {
    barrier_state& b = *find(c.barrier);
    as_tsan_thread(engine_of(b), [&] {
      move();
      release(phase_point(b));
    });
    b.bytes -= c.bytes;
    end_phase_if_complete(b);
  } else {
    as_tsan_thread(w.warp_engine[c.owner->warp], [&] {
      move();
      --c.owner->groups[c.group % max_groups].outstanding;
      arrive_for(*c.owner, {nullptr, 0});
    });
  }
}

void start_or_do(copy const& c, site at) {
  start(c, at);
  if (now.how.copies == copies::immediate) {
    finish(in_flight.size() - 1);
  }
}

}  // namespace

// ---- a block

namespace detail {

void shared_begin_block() {
  statics.reserve(64);
  barriers.reserve(max_barriers);
  in_flight.reserve(max_copies);
  statics.clear();
  barriers.clear();
  static_used = 0;
  any_written = false;
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(now.here->arena, arena_bytes);
  }
  begin_array(now.here->arena + static_limit, now.dynamic_bytes);
}

void shared_end_block() {
  site const nowhere{nullptr, 0};
  if (!in_flight.empty()) {
    fail(nowhere, (message() << "the block ended with a copy to shared address ").hex(in_flight[0].to)
                      << " that nothing waited for");
  }
  for (barrier_state const& b : barriers) {
    if (b.bytes != 0) {
      fail(nowhere, (message() << "the block ended with ").operator<<(b.bytes)
                        << " bytes announced and not copied on a barrier");
    }
  }
  for (fibre const* f : now.lanes) {
    if (f->first_group != f->open_group) {
      fail(nowhere, message() << "the block ended with an arrival outstanding");
    }
  }
}

std::size_t copies_in_flight() { return in_flight.size(); }
void finish_some_copy() { finish(random_number() % in_flight.size()); }

void describe_barriers(message& m) {
  for (barrier_state const& b : barriers) {
    (m << "; barrier ").hex(b.address)
        << " in phase " << b.phase << " lacks " << b.pending << " arrivals and " << b.bytes << " bytes";
  }
}

}  // namespace detail

void* shared_allocate(void const* key, std::size_t bytes, std::size_t alignment) {
  for (static_variable const& s : statics) {
    if (s.key == key) {
      return now.here->arena + s.offset;
    }
  }
  std::size_t const red_zone = 64;
  std::size_t const offset = (static_used + alignment - 1) / alignment * alignment;
  if (offset + bytes > static_limit || statics.size() == statics.capacity()) {
    fail_at({nullptr, 0}, "static shared memory over 48 KB, or too many variables");
  }
  static_used = offset + bytes + red_zone;
  statics.push_back({key, static_cast<std::uint32_t>(offset), static_cast<std::uint32_t>(bytes)});
  begin_array(now.here->arena + offset, bytes);
  return now.here->arena + offset;
}

std::byte* shared_dynamic() { return now.here->arena + static_limit; }

std::uint32_t address_of_shared(void const* p, site at) {
  auto const offset = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(now.here->arena);
  if (offset >= arena_bytes) {
    fail_at(at, "shared_address of memory that is not shared");
  }
  return static_cast<std::uint32_t>(offset) + first_address;
}

void* shared_at(std::uint32_t address, std::uint32_t bytes, access kind, site at) {
  check_address(address, bytes, bytes, at);
  std::uint32_t const offset = address - first_address;
  if (filling[offset / granule] != 0) {
    bad_address(at, address, bytes, "used while a copy is still filling it");
  }
  if (kind == access::store) {
    any_written = true;
    for (std::uint32_t i = offset / 2; i < (offset + bytes) / 2; ++i) {
      written[i] = now.running->proxy_epoch << 10 | now.running->index;
    }
  }
  return now.here->arena + offset;
}

// ---- barriers

void barrier_create(std::uint32_t address, int count, site at) {
  if (count < 1 || count >= 1 << 20) {
    fail_at(at, "barrier_init: a count that is not in 1 ... 2^20 - 1");
  }
  barrier_state const fresh{address, count, count, 0, 0};
  if (barrier_state* const old = find(address)) {
    *old = fresh;
  } else if (barriers.size() == max_barriers) {
    fail_at(at, "too many barriers for the emulator");
  } else {
    barriers.push_back(fresh);
  }
}

void barrier_arrive_expect(std::uint32_t barrier, int bytes, site at) {
  barrier_state& b = barrier_at(barrier, at);
  if (bytes < 0 || bytes >= 1 << 20) {
    fail_at(at, "barrier_expect: a number of bytes that is not in 0 ... 2^20 - 1");
  }
  arrive(b, at);
  b.bytes += bytes;
  end_phase_if_complete(b);
}

void barrier_block(std::uint32_t barrier, std::uint32_t parity, site at) {
  barrier_state& b = barrier_at(barrier, at);
  if (parity > 1) {
    fail_at(at, "barrier_wait: the parity is not 0 or 1");
  }
  if ((b.phase & 1u) != parity) {
    acquire(now.here->phase_point[&b - barriers.data()][parity]);
  }
  while ((b.phase & 1u) ==
         parity) {  // again after waking: a lane can be late and miss a phase, as in a real poll
    fibre& self = *now.running;
    self.state = state::phase;
    self.barrier = barrier;
    self.parity = parity;
    self.at = at;
    switch_away();
  }
}

// ---- copies

void copy_bulk(std::uint32_t to, void const* from, int bytes, std::uint32_t barrier, site at) {
  if (bytes <= 0 || bytes % 16 != 0) {
    fail_at(at, "bulk_copy: the size is not a positive multiple of 16");
  }
  barrier_at(barrier, at);
  start_or_do({to, bytes, from, barrier, now.running, 0}, at);
}

void proxy_fence() { now.running->proxy_epoch = ++now.proxy_epochs; }

void copy_16(std::uint32_t to, void const* from, site at) {
  fibre& self = *now.running;
  ++self.groups[self.open_group % max_groups].outstanding;
  start_or_do({to, 16, from, 0, &self, self.open_group}, at);
}

void copy_arrive(std::uint32_t barrier, site at) {
  fibre& self = *now.running;
  barrier_at(barrier, at);
  self.groups[self.open_group % max_groups].barrier = barrier;
  ++self.open_group;
  if (self.open_group - self.first_group == max_groups) {
    fail_at(at, "too many copy_async_arrive outstanding for the emulator");
  }
  self.groups[self.open_group % max_groups] = {0, 0};
  as_tsan_thread(now.here->warp_engine[self.warp], [&] { arrive_for(self, at); });
}

}  // namespace simt
