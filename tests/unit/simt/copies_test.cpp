// SPDX-License-Identifier: Apache-2.0
//! @file Barriers and asynchronous copies of the emulator: phases, late bytes, and misuse.
#include "unit/simt/simt_tools.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

constexpr int stages = 2, tile_bytes = 512, tiles = 7;
using words = std::uint32_t const*;

//! What the kernels below do wrong.
enum class bug { none, no_wait, parity, no_refill_sync, short_expect, long_expect, wrong_stage };

//! Each of four warps sums its tiles, which come through a ring of stages; each barrier serves all warps.
template <bug Bug>
void ring_kernel(words from, std::uint32_t* out) {
  KVCRUMB_SHARED(std::uint64_t[stages], barriers);
  KVCRUMB_SHARED_DYNAMIC(ring);
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  std::uint32_t const mine =
      ptx::shared_address(ring) + static_cast<std::uint32_t>(warp * stages * tile_bytes);
  auto const barrier = [&](int t) {
    return ptx::shared_address(barriers) + 8 * static_cast<std::uint32_t>(t % stages);
  };
  auto const stage = [&](int t) { return mine + static_cast<std::uint32_t>(t % stages * tile_bytes); };
  if (threadIdx.x < stages) {
    ptx::barrier_init(barrier(static_cast<int>(threadIdx.x)), ptx::has_bulk_copy ? 4 : 128);
  }
  ptx::barrier_init_fence();
  __syncthreads();
  auto const issue = [&](int t) {
    if (t >= tiles) {
      return;
    }
    words const source = from + (t * 4 + warp) * (tile_bytes / 4);
    int const target = Bug == bug::wrong_stage ? t + 1 : t;
    if constexpr (ptx::has_bulk_copy) {
      if (lane == 0) {
        int const wrong = Bug == bug::short_expect ? -16 : Bug == bug::long_expect ? 16 : 0;
        ptx::barrier_expect(barrier(t), tile_bytes + wrong);
        ptx::bulk_copy(stage(target), source, tile_bytes, barrier(t));
      }
    } else {
      ptx::copy_async_16(stage(target) + static_cast<std::uint32_t>(lane * 16), source + lane * 4);
      ptx::copy_async_arrive(barrier(t));
    }
  };
  for (int t = 0; t < stages; ++t) {
    issue(t);
  }
  std::uint32_t sum = 0;
  for (int t = 0; t < tiles; ++t) {
    if constexpr (Bug != bug::no_wait) {
      ptx::barrier_wait(barrier(t),
                        static_cast<std::uint32_t>(t / stages + (Bug == bug::parity ? 1 : 0)) & 1u);
    }
    std::uint32_t r[4];
    ptx::load_shared_128(r, stage(t) + static_cast<std::uint32_t>(lane * 16 ^ 16));
    sum += r[0] + r[1] + r[2] + r[3];
    if constexpr (Bug != bug::no_refill_sync) {
      __syncwarp();
    }
    issue(t + stages);
  }
  atomicAdd(out, sum);
}

//! Runs the ring under all kinds of schedule; "sum" if the result is wrong.
template <bug Bug>
std::string ring_failure() {
  source_words const source(4 * tiles * tile_bytes / 4);
  std::uint32_t expected = 0;
  for (int i = 0; i < 4 * tiles * tile_bytes / 4; ++i) {
    expected += source.words[i];
  }
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    std::string const text = simt::expect_error([&] {
      std::uint32_t sum = 0;
      simt::options const how{.seed = seed,
                              .order = static_cast<simt::order>(seed % 2),
                              .copies = static_cast<simt::copies>(seed % 3)};
      simt::launch(1, 128, 4 * stages * tile_bytes, how, ring_kernel<Bug>, source.words, &sum);
      if (sum != expected) {
        simt::fail_at({nullptr, 0}, "sum");
      }
    });
    if (!text.empty()) {
      return text;
    }
  }
  return {};
}

}  // namespace

TEST_CASE("a ring of stages works in every schedule", "[simt]") { CHECK(ring_failure<bug::none>() == ""); }

TEST_CASE("a ring that is used wrongly is found out", "[simt]") {
  CHECK(ring_failure<bug::no_wait>() != "");
  CHECK(ring_failure<bug::parity>() != "");
  CHECK(ring_failure<bug::wrong_stage>() != "");
  CHECK(ring_failure<bug::no_refill_sync>() != "");
#if !defined(KVCRUMB_SIMT_NO_BULK_COPY)
  CHECK(ring_failure<bug::short_expect>() != "");
  CHECK(ring_failure<bug::long_expect>() != "");
#endif
}

namespace {

//! For the tests below: a barrier for `count` arrivals, and the address of the dynamic shared memory.
struct one_barrier {
  std::uint32_t barrier, data;
};
one_barrier set_up(int count) {
  KVCRUMB_SHARED(std::uint64_t, barrier);
  KVCRUMB_SHARED_DYNAMIC(data);
  one_barrier const r{ptx::shared_address(&barrier), ptx::shared_address(data)};
  if (threadIdx.x == 0) {
    ptx::barrier_init(r.barrier, count);
  }
  __syncthreads();
  return r;
}

}  // namespace

#if !defined(KVCRUMB_SIMT_NO_BULK_COPY)

namespace {

simt::options late() { return {.copies = simt::copies::late}; }
template <class... P>
std::string late_failure(void (*kernel)(P...), std::type_identity_t<P>... args) {
  return simt::expect_error([&] { simt::launch<P...>(1, 32, 1024, late(), kernel, args...); });
}

}  // namespace

TEST_CASE("a phase ends with its last arrival and its last byte", "[simt]") {
  static int order[3];
  source_words const source(64);
  simt::launch(
      1, 32, 1024, late(),
      +[](words from) {
        static int events;
        auto const s = set_up(2);
        if (threadIdx.x == 0) {
          events = 0;
          ptx::bulk_copy(s.data, from, 128, s.barrier);  // before its bytes are announced: allowed
          ptx::barrier_expect(s.barrier, 128);
        }
        __syncwarp();
        if (threadIdx.x == 1) {
          order[0] = events++;
          ptx::barrier_expect(s.barrier, 0);
        }
        ptx::barrier_wait(s.barrier, 0);
        if (threadIdx.x == 2) {
          order[1] = events++;
          order[2] = static_cast<int>(ptx::load_shared_32(s.data + 4) == from[1]);
        }
        ptx::barrier_wait(s.barrier, 0);  // a phase that is over does not block
        __syncwarp();                     // but the one after the next would
        if (threadIdx.x < 2) {
          ptx::barrier_expect(s.barrier, 0);  // the next one needs two arrivals again
        }
        ptx::barrier_wait(s.barrier, 1);
      },
      source.words);
  CHECK(order[0] == 0);
  CHECK(order[1] == 1);
  CHECK(order[2] == 1);
}

TEST_CASE("bytes on their way are gone until they arrive", "[simt]") {
  source_words const source(64);
  auto const text = late_failure(
      +[](words from) {
        auto const s = set_up(1);
        if (threadIdx.x == 0) {
          ptx::barrier_expect(s.barrier, 64);
          ptx::bulk_copy(s.data, from, 64, s.barrier);
          ptx::load_shared_32(s.data + 60);
        }
      },
      source.words);
  CHECK(contains(text, "used while a copy is still filling it"));
  CHECK(contains(text, "copies_test.cpp"));
}

TEST_CASE("misused barriers and copies are errors", "[simt]") {
#if defined(SIMT_MSAN)
  char const* const never_initialized = "sanitizer report";
#else
  char const* const never_initialized = "before barrier_init";
#endif
  source_words const source(64);
  words const from = source.words;
  CHECK(contains(late_failure(
                     +[](words p) {
                       auto const s = set_up(1);
                       if (threadIdx.x < 2) {
                         ptx::barrier_expect(s.barrier, 16);
                         ptx::bulk_copy(s.data + 16 * threadIdx.x, p, 16, s.barrier);
                       }
                     },
                     from),
                 "more arrivals than its count of 1"));
  CHECK(contains(late_failure(
                     +[](int) {
                       KVCRUMB_SHARED(std::uint64_t, raw);
                       ptx::barrier_wait(ptx::shared_address(&raw), 0);
                     },
                     0),
                 never_initialized));
  CHECK(contains(late_failure(
                     +[](int) {
                       auto const s = set_up(1);
                       ptx::barrier_wait(s.barrier, 2);
                     },
                     0),
                 "parity is not 0 or 1"));
  CHECK(contains(late_failure(
                     +[](words p) {
                       auto const s = set_up(1);
                       if (threadIdx.x == 0) {
                         ptx::barrier_expect(s.barrier, 32);
                         ptx::bulk_copy(s.data, p, 16, s.barrier);
                       }
                       ptx::barrier_wait(s.barrier, 0);
                     },
                     from),
                 "lacks 0 arrivals and 16 bytes"));
  CHECK(contains(late_failure(
                     +[](words p) {
                       auto const s = set_up(1);
                       if (threadIdx.x == 0) {
                         ptx::barrier_expect(s.barrier, 32);
                         ptx::bulk_copy(s.data, p, 16, s.barrier);
                         while (true) {  // leaves when the copy is done
                           __nanosleep(1);
                           break;
                         }
                       }
                     },
                     from),
                 "the block ended with"));
  CHECK(contains(late_failure(
                     +[](words p) {
                       auto const s = set_up(1);
                       if (threadIdx.x == 0) {
                         ptx::barrier_expect(s.barrier, 64);
                         ptx::bulk_copy(s.data, p, 32, s.barrier);
                         ptx::bulk_copy(s.data + 16, p, 32, s.barrier);
                       }
                     },
                     from),
                 "still being filled"));
  CHECK(contains(late_failure(
                     +[](words p) { ptx::bulk_copy(set_up(1).data, p, 8, set_up(1).barrier); }, from),
                 "multiple of 16"));
  CHECK(contains(late_failure(
                     +[](words p) { ptx::bulk_copy(set_up(1).data, p + 1, 16, set_up(1).barrier); }, from),
                 "the source is not a multiple of 16"));
  CHECK(contains(late_failure(
                     +[](words p) {
                       auto const s = set_up(1);
                       ptx::bulk_copy(s.data + 1024 - 16, p, 32, s.barrier);
                     },
                     from),
                 "outside every shared array"));
  CHECK(contains(late_failure(
                     +[](int) {
                       auto const s = set_up(1);
                       KVCRUMB_SHARED_DYNAMIC(data);
                       static_cast<void>(data);
                       __syncthreads();
                       *reinterpret_cast<std::uint64_t*>(&simt::shared_static<std::uint64_t>([] {})) = 5;
                       ptx::store_shared_32(s.barrier, 7);
                       ptx::barrier_wait(s.barrier, 0);
                     },
                     0),
                 "overwritten"));
}

namespace {

template <bool Fence>
void refill_kernel(words from) {
  auto const s = set_up(1);
  ptx::store_shared_16(s.data + 2 * threadIdx.x, 1);
  if constexpr (Fence) {
    ptx::async_proxy_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::barrier_expect(s.barrier, 64);
    ptx::bulk_copy(s.data, from, 64, s.barrier);
  }
  ptx::barrier_wait(s.barrier, 0);
}

}  // namespace

TEST_CASE("a bulk copy over bytes that lanes wrote needs the proxy fence", "[simt]") {
  source_words const source(64);
  CHECK(late_failure(refill_kernel<true>, source.words) == "");
  CHECK(contains(late_failure(refill_kernel<false>, source.words), "without async_proxy_fence()"));
}

#else

TEST_CASE("a target without bulk copies has none", "[simt]") {
  auto const failure = [](void (*kernel)(int)) {
    return simt::expect_error([&] { simt::launch(1, 32, 1024, kernel, 0); });
  };
  CHECK(contains(failure([](int) { ptx::barrier_expect(set_up(1).barrier, 0); }), "without bulk copies"));
}

#endif

TEST_CASE("copy_async_arrive arrives after the earlier copies of its lane", "[simt]") {
  source_words const source(256);
  CHECK(first_failure(
            1, 32, 1024,
            +[](words from) {
              auto const s = set_up(32);
              std::uint32_t const at = s.data + 16 * threadIdx.x;
              ptx::copy_async_16(at, from + 4 * threadIdx.x);
              ptx::copy_async_16(at + 512, from + 128 + 4 * threadIdx.x);
              ptx::copy_async_arrive(s.barrier);
              ptx::barrier_wait(s.barrier, 0);
              std::uint32_t const other = 16 * (31 - threadIdx.x) + 8;
              if (ptx::load_shared_32(s.data + other) != from[other / 4] ||
                  ptx::load_shared_32(s.data + 512 + other) != from[128 + other / 4]) {
                simt::fail_at({nullptr, 0}, "wrong bytes");
              }
              ptx::copy_async_arrive(s.barrier);  // nothing is pending: at once
              ptx::barrier_wait(s.barrier, 1);
            },
            source.words) == "");
}
