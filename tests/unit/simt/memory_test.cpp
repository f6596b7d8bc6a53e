// SPDX-License-Identifier: Apache-2.0
//! @file Shared memory, launches, atomics and block barriers of the emulator, and the stand-ins for the CUDA
//! runtime.
#include "unit/simt/simt_tools.hpp"
// after the emulator
#include <algorithm>

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

using no_argument = int;
std::string failure(void (*kernel)(no_argument), std::size_t shared = 256) {
  return first_failure(1, 64, shared, kernel, 0);
}

template <int I>
std::uint32_t* variable() {
  KVCRUMB_SHARED(std::uint32_t[4], x);
  return x;
}

}  // namespace

TEST_CASE("each declaration and template instance is a variable of its own, full of ones", "[simt]") {
#if !defined(SIMT_MSAN)  // reading what was never written is what MSan is for
  static std::uint32_t seen[2];
  simt::launch(
      2, 1, 256,
      +[](int) {
        KVCRUMB_SHARED(std::uint32_t, here);
        KVCRUMB_SHARED_DYNAMIC(bytes);
        seen[blockIdx.x] = here & variable<0>()[3] & *reinterpret_cast<std::uint32_t*>(bytes + 252);
        here = variable<0>()[3] = 0;  // not seen by the next block
        *reinterpret_cast<std::uint32_t*>(bytes + 252) = 0;
      },
      0);
  CHECK(seen[0] == ~0u);
  CHECK(seen[1] == ~0u);
#endif
  static bool distinct, shared, aligned;
  simt::launch(
      1, 64, 256,
      +[](int) {
        KVCRUMB_SHARED(int, a);
        KVCRUMB_SHARED(int, b);
        KVCRUMB_SHARED_DYNAMIC(bytes);
        if (threadIdx.x == 0) {
          a = 1;
          b = 2;
          *variable<0>() = 3;
          *variable<1>() = 4;
        }
        __syncthreads();
        if (threadIdx.x == 63) {
          distinct = a == 1 && b == 2 && *variable<0>() == 3 && *variable<1>() == 4;
          shared = ptx::load_shared_32(ptx::shared_address(variable<0>())) == 3;
          aligned = ptx::shared_address(bytes) % 128 == 0 && ptx::shared_address(&b) % 16 == 0;
        }
      },
      0);
  CHECK(distinct);
  CHECK(shared);
  CHECK(aligned);
}

TEST_CASE("loads and stores of shared memory move words", "[simt]") {
  static std::uint32_t r[7];
  simt::launch(
      1, 1, 64,
      +[](int) {
        KVCRUMB_SHARED_DYNAMIC(bytes);
        std::uint32_t const at = ptx::shared_address(bytes);
        for (std::uint32_t i = 0; i < 16; ++i) {
          ptx::store_shared_32(at + 4 * i, 0x10001u * i);
        }
        ptx::store_shared_16(at + 6, 0xABCD);
        std::uint32_t four[4], two[2];
        ptx::load_shared_128(four, at);
        ptx::load_shared_64(two, at + 24);
        std::copy(four, four + 4, r);
        std::copy(two, two + 2, r + 4);
        r[6] = ptx::load_shared_32(at + 60);
      },
      0);
  CHECK(r[0] == 0u);
  CHECK(r[1] == 0xABCD0001u);
  CHECK(r[3] == 0x30003u);
  CHECK(r[4] == 0x60006u);
  CHECK(r[5] == 0x70007u);
  CHECK(r[6] == 0xF000Fu);
}

TEST_CASE("wrong shared addresses are errors", "[simt]") {
  auto const misaligned = failure([](int) {
    KVCRUMB_SHARED_DYNAMIC(bytes);
    std::uint32_t r[4];
    ptx::load_shared_128(r, ptx::shared_address(bytes) + 8);
  });
  CHECK(contains(misaligned, "misaligned"));
  CHECK(contains(misaligned, "memory_test.cpp:"));
  CHECK(contains(misaligned, "block (0,0,0) thread "));
  CHECK(contains(misaligned, "seed 1"));
  CHECK(contains(failure([](int) {
                   KVCRUMB_SHARED_DYNAMIC(bytes);
                   ptx::store_shared_16(ptx::shared_address(bytes) + 256, 0);
                 }),
                 "outside every shared array"));
  CHECK(contains(failure([](int) { ptx::load_shared_32(ptx::shared_address(variable<2>()) + 16); }),
                 "outside every shared array"));
  CHECK(contains(failure([](int) { ptx::load_shared_32(0); }), "outside every shared array"));
  CHECK(contains(failure([](int) {
                   int local = 0;
                   ptx::shared_address(&local);
                 }),
                 "not shared"));
  CHECK(contains(failure([](int) {
                   alignas(16) static std::uint32_t const table[8] = {};
                   std::uint32_t r[4];
                   ptx::load_global_128(r, table + 2);
                 }),
                 "not a multiple of 16"));
}

TEST_CASE("a launch runs every thread of every block once, in any order", "[simt]") {
  static int count[3 * 4 * 5][6];
  static unsigned order[60], started;
  std::fill(&count[0][0], &count[0][0] + 60 * 6, 0);
  std::vector<std::vector<unsigned>> orders;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    started = 0;
    simt::launch(
        {3, 4, 5}, {1, 2, 3}, 0, {.seed = seed},
        +[](int) {
          unsigned const b = blockIdx.x + 3 * (blockIdx.y + 4 * blockIdx.z);
          ++count[b][threadIdx.x + threadIdx.y + 2 * threadIdx.z];
          if (threadIdx.y + threadIdx.z == 0) {
            order[atomicAdd(&started, 1u)] = b;
          }
          if (gridDim.z != 5 || blockDim.y != 2) {
            simt::fail_at({nullptr, 0}, "dimensions");
          }
        },
        0);
    orders.emplace_back(order, order + 60);
  }
  CHECK(std::all_of(&count[0][0], &count[0][0] + 60 * 6, [](int n) { return n == 3; }));
  CHECK(orders[0] != orders[1]);
  CHECK(orders[1] != orders[2]);
}

TEST_CASE("equal options give equal schedules", "[simt]") {
  static std::vector<unsigned> order;
  auto const schedule = [](simt::options const& how) {
    order.clear();
    order.reserve(256);
    simt::launch(
        2, 64, 0, how,
        +[](int) {
          simt::preempt();
          order.push_back(threadIdx.x);
        },
        0);
    return order;
  };
  if (under_tsan) {
    return;  // `order` is a race, which this test is about
  }
  CHECK(schedule({.seed = 3}) == schedule({.seed = 3}));
  CHECK(schedule({.seed = 3}) != schedule({.seed = 4}));
  CHECK(schedule({.seed = 3}) != schedule({.seed = 3, .order = simt::order::priority}));
}

TEST_CASE("large grids and large blocks run", "[simt]") {
  static unsigned blocks, threads;
  blocks = threads = 0;
  simt::launch(
      under_tsan ? 1000 : 100000, 1, 0, +[](int) { atomicAdd(&blocks, 1u); }, 0);
  simt::launch(
      2, 1024, 232448,
      +[](int) {
        __syncthreads();
        atomicAdd(&threads, 1u);
      },
      0);
  CHECK(blocks == (under_tsan ? 1000 : 100000));
  CHECK(threads == 2048);
}

namespace {

struct large {
  int values[200];
};
void take_copy(large x, int* sum) {
  x.values[0] += 1;  // its own copy
  atomicAdd(sum, x.values[0] + x.values[199]);
}

}  // namespace

TEST_CASE("kernel arguments are copies", "[simt]") {
  large x{};
  x.values[199] = 10;
  int sum = 0;
  simt::launch(2, 32, 0, take_copy, x, &sum);
  CHECK(sum == 64 * 11);
}

TEST_CASE("__syncthreads waits for all that have not exited and votes", "[simt]") {
  static int votes[96];
  simt::launch(
      1, 96, 0,
      +[](int) {
        int const i = static_cast<int>(threadIdx.x);
        votes[i] = 0;
        if (i >= 64) {
          return;
        }
        votes[i] += __syncthreads_or(i == 40);
        votes[i] += 2 * __syncthreads_and(i != 40);
        votes[i] += 4 * __syncthreads_and(1);
        votes[i] += 8 * __syncthreads_count(i % 2);
      },
      0);
  CHECK(votes[0] == 5 + 8 * 32);
  CHECK(votes[63] == 5 + 8 * 32);
}

namespace {

void two_barriers(int) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

}  // namespace

TEST_CASE("__syncthreads in two places, and waiting for what never comes, are errors", "[simt]") {
  CHECK(contains(failure(two_barriers), "__syncthreads reached at two places"));
  auto const text = failure([](int) {
    if (threadIdx.x / 16 == 2) {
      __any_sync(~0u, 1);
    }
    __syncthreads();
  });
  CHECK(contains(text, "deadlock"));
  CHECK(contains(text, "threads 0-31 wait in __syncthreads at "));
  CHECK(contains(text, "threads 32-47 wait in __any_sync at "));
}

TEST_CASE("atomics return what was there", "[simt]") {
  static unsigned u[8];
  static int s[2];
  static unsigned long long wide;
  static float f;
  simt::launch(
      1, 64, 0,
      +[](int) {
        if (threadIdx.x == 0) {
          u[3] = 1000;
          u[0] = u[1] = u[2] = u[4] = u[5] = 0;
          s[0] = s[1] = 0;
          wide = 0xFFFFFFFFu;
          f = 0;
        }
        __syncthreads();
        atomicAdd(&u[0], atomicAdd(&u[1], 1u));  // 0 + ... + 63
        atomicMax(&u[2], threadIdx.x);
        atomicMin(&u[3], threadIdx.x + 5);
        atomicOr(&u[4], 1u << (threadIdx.x & 31u));
        atomicCAS(&u[5], threadIdx.x == 0 ? 0u : ~0u, 9u);
        atomicMin(&s[0], -static_cast<int>(threadIdx.x));
        atomicExch(&s[1], 3);
        atomicAdd(&wide, 1ull);
        atomicAdd(&f, 0.5f);
      },
      0);
  CHECK(u[0] == 63 * 64 / 2);
  CHECK(u[2] == 63);
  CHECK(u[3] == 5);
  CHECK(u[4] == ~0u);
  CHECK(u[5] == 9);
  CHECK(s[0] == -63);
  CHECK(s[1] == 3);
  CHECK(wide == 0xFFFFFFFFull + 64);
  CHECK(f == 32.0f);
}

namespace {

void uses_shared(int* out) {
  KVCRUMB_SHARED_DYNAMIC(bytes);
  bytes[60000] = std::byte{7};
  *out = static_cast<int>(bytes[60000]);
}

}  // namespace

TEST_CASE("launchers find the device that the settings describe", "[simt]") {
  int value = 0;
  simt::settings().multiprocessors = 3;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess);
  CHECK(value == 3);
  simt::settings().multiprocessors = 4;
  CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 1) == cudaErrorInvalidDevice);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, uses_shared, 128, 100000) == cudaSuccess);
  CHECK(value == 2);
}

TEST_CASE("more than 48 KB of shared memory must be asked for", "[simt]") {
  int out = 0;
  cudaLaunchConfig_t config{};
  config.gridDim = 1;
  config.blockDim = 1;
  config.dynamicSmemBytes = 65536;
  CHECK(cudaLaunchKernelEx(&config, uses_shared, &out) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(uses_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 232449) ==
        cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(uses_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536) == cudaSuccess);
  CHECK(cudaLaunchKernelEx(&config, uses_shared, &out) == cudaSuccess);
  CHECK(out == 7);
  config.blockDim = 1025;
  CHECK(cudaLaunchKernelEx(&config, uses_shared, &out) == cudaErrorInvalidConfiguration);
  cudaGetLastError();
}

TEST_CASE("expect_error tells of errors, signals and nothing", "[simt]") {
  CHECK(simt::expect_error([] {}) == "");
  CHECK(contains(simt::expect_error([] { simt::fail_at({"file", 3}, "what"); }), "what, at file:3"));
  CHECK(simt::expect_error([] { _Exit(3); }) == "exit status 3");
  CHECK(contains(simt::expect_error([] {
                   simt::launch(
                       1, 1025, 0, +[](int) {}, 0);
                 }),
                 "1025 threads"));
  CHECK(contains(simt::expect_error([] {
                   simt::launch(
                       0, 1, 0, +[](int) {}, 0);
                 }),
                 "0 blocks"));
}
