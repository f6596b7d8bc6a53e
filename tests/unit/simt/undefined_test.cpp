// SPDX-License-Identifier: Apache-2.0
//! @file Undefined registers and shared memory, which only the MSan build of the emulator sees.
#include "unit/simt/simt_tools.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

#if defined(SIMT_MSAN)

namespace {

std::string failure(void (*kernel)(int)) { return first_failure(2, 32, 256, kernel, 0); }
std::string const report = "sanitizer report";
int volatile sink;

}  // namespace

TEST_CASE("undefined values are found where they are used", "[simt]") {
  CHECK(failure([](int) {
          float c[4];
          ptx::mma(c, 0, 0, 0, 0, 0, 0);
        }) == report);
  CHECK(failure([](int) {
          std::uint32_t x[2];  // an array, or clang++ 14 sees it
          sink = static_cast<int>(__shfl_xor_sync(~0u, x[0], 1));
        }) == report);
  CHECK(failure([](int) {
          KVCRUMB_SHARED(int, x);
          if (x == 3) {
            sink = 1;
          }
        }) == report);
  CHECK(failure([](int) {
          KVCRUMB_SHARED_DYNAMIC(bytes);
          if (ptx::load_shared_32(ptx::shared_address(bytes) + 252) == 3) {
            sink = 1;
          }
        }) == report);
}

TEST_CASE("a block finds shared memory undefined that the block before has written", "[simt]") {
  CHECK(failure([](int) {
          KVCRUMB_SHARED_DYNAMIC(bytes);
          std::uint32_t const at = ptx::shared_address(bytes) + 4 * threadIdx.x;
          static int blocks = 0;
          if (threadIdx.x == 0) {
            ++blocks;
          }
          __syncthreads();
          if (blocks == 1) {
            ptx::store_shared_32(at, 1);
          }
          if (ptx::load_shared_32(at) == 1) {
            sink = 1;
          }
        }) == report);
}

TEST_CASE("what was defined stays so on its way through the emulator", "[simt]") {
  source_words const source(64);
  CHECK(first_failure(
            2, 32, 256,
            +[](std::uint32_t const* from) {
              KVCRUMB_SHARED(std::uint64_t, barrier);
              KVCRUMB_SHARED_DYNAMIC(bytes);
              std::uint32_t const at = ptx::shared_address(bytes), b = ptx::shared_address(&barrier);
              if (threadIdx.x == 0) {
                ptx::barrier_init(b, 32);
              }
              __syncthreads();
              if (threadIdx.x < 16) {
                ptx::copy_async_16(at + 16 * threadIdx.x, from + 4 * threadIdx.x);
              }
              ptx::copy_async_arrive(b);
              ptx::barrier_wait(b, 0);
              std::uint32_t r[4];
              ptx::load_shared_128(r, at + 16 * (threadIdx.x % 16));
              float c[4] = {};
              ptx::mma(c, r[0], r[1], r[2], r[3], ptx::transpose_8x8(r[0]), __shfl_sync(~0u, r[1], 3));
              sink = c[0] + ptx::exp2_approximate(c[1]) > 1.0f ? 1 : __syncthreads_count(c[2] > 0.0f);
            },
            source.words) == "");
}

#endif
