// SPDX-License-Identifier: Apache-2.0
//! @file Races that only the TSan build of the emulator sees; elsewhere these kernels must simply run.
#include "unit/simt/simt_tools.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

std::string const expected_race = under_tsan ? "data race" : "";

int global_cell[64];
unsigned arrived;

//! Lane 0 writes, the others read, and between them is what Order does.
enum class between { nothing, vote, syncwarp, syncthreads, mma };
template <between Order>
void write_then_read(int* out) {
  KVCRUMB_SHARED(int, cell);
  if (threadIdx.x == 0) {
    cell = 1;
  }
  if constexpr (Order == between::vote) {
    __any_sync(~0u, 1);
  } else if constexpr (Order == between::syncwarp) {
    __syncwarp();
  } else if constexpr (Order == between::syncthreads) {
    __syncthreads();
  } else if constexpr (Order == between::mma) {
    float c[4] = {};
    ptx::mma(c, 0, 0, 0, 0, 0, 0);
  }
  if (threadIdx.x == 31) {
    *out = cell;
  }
}

template <between Order>
void reuse(int* out) {
  KVCRUMB_SHARED(int, cell);
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x == 0) {
      cell = i;
    }
    __syncthreads();
    if (threadIdx.x == 33) {
      *out = cell;
    }
    if constexpr (Order == between::syncthreads) {  // without it the next round overwrites what is still read
      __syncthreads();
    }
  }
}

template <bool Fence>
void last_block(int* out) {
  if (threadIdx.x == 0) {
    global_cell[blockIdx.x] = static_cast<int>(blockIdx.x);
    if constexpr (Fence) {
      __threadfence();
    }
    if (atomicAdd(&arrived, 1u) == gridDim.x - 1) {
      int sum = 0;
      for (unsigned i = 0; i < gridDim.x; ++i) {
        sum += global_cell[i];
      }
      *out = sum;
    }
  }
}

template <class... P>
std::string failure(dim3 grid, dim3 block, void (*kernel)(P...), std::type_identity_t<P>... args) {
  arrived = 0;
  return first_failure<P...>(grid, block, 0, kernel, args...);
}

}  // namespace

TEST_CASE("__syncwarp and __syncthreads order memory; votes and mma do not", "[simt]") {
  int out = 0;
  if constexpr (under_tsan) {  // elsewhere the value would be undefined now and then
    CHECK(failure(1, 32, write_then_read<between::nothing>, &out) == expected_race);
  }
  CHECK(failure(1, 32, write_then_read<between::vote>, &out) == expected_race);
  CHECK(failure(1, 32, write_then_read<between::mma>, &out) == expected_race);
  CHECK(failure(1, 32, write_then_read<between::syncwarp>, &out) == "");
  CHECK(failure(1, 32, write_then_read<between::syncthreads>, &out) == "");
}

TEST_CASE("shared memory that is reused needs a second barrier", "[simt]") {
  int out = 0;
  CHECK(failure(1, 64, reuse<between::nothing>, &out) == expected_race);
  CHECK(failure(1, 64, reuse<between::syncthreads>, &out) == "");
}

TEST_CASE("blocks are not ordered, also after a __syncthreads", "[simt]") {
  CHECK(failure(
            2, 64,
            +[](int) {
              __syncthreads();
              global_cell[threadIdx.x] = 1;
              __syncthreads();
            },
            0) == expected_race);
  CHECK(failure(
            2, 32, +[](int) { global_cell[blockIdx.x * 32 + threadIdx.x] = 1; }, 0) == "");
}

TEST_CASE("each block has shared memory of its own", "[simt]") {
  CHECK(failure(
            16, 32,
            +[](int) {  // more blocks than sets of contexts
              KVCRUMB_SHARED(int, cell);
              KVCRUMB_SHARED(std::uint64_t, barrier);
              if (threadIdx.x == blockIdx.x) {
                cell = 1;
                ptx::barrier_init(ptx::shared_address(&barrier), 1);
                ptx::copy_async_arrive(ptx::shared_address(&barrier));
              }
            },
            0) == "");
}

TEST_CASE("the last block sees the others' results only with a __threadfence", "[simt]") {
  int out = 0;
  CHECK(failure(6, 32, last_block<false>, &out) == expected_race);
  CHECK(failure(6, 32, last_block<true>, &out) == "");
}

TEST_CASE("launches are ordered, and so is what the host does between them", "[simt]") {
  auto const text = simt::expect_error([] {
    for (int i = 0; i < 3; ++i) {
      simt::launch(
          2, 32, 0, +[](int) { ++global_cell[blockIdx.x * 32 + threadIdx.x]; }, 0);
      ++global_cell[5];
    }
  });
  CHECK(text == "");
}

#if !defined(SIMT_MSAN)  // it polls memory that is undefined at first
TEST_CASE("a barrier must be published before it is used", "[simt]") {
  CHECK(first_failure(
            1, 64, 0,
            +[](int) {
              KVCRUMB_SHARED(std::uint64_t, barrier);
              std::uint32_t const at = ptx::shared_address(&barrier);
              if (threadIdx.x == 0) {
                ptx::barrier_init(at, 1);
                ptx::copy_async_arrive(at);
              }
              if (threadIdx.x < 32) {
                __syncwarp();
              } else {
                while (!__any_sync(
                    ~0u, *static_cast<std::uint64_t volatile*>(&barrier) == simt::barrier_content)) {
                  __nanosleep(1);
                }
              }
              ptx::barrier_wait(at, 0);
            },
            0) == expected_race);
}

#endif
