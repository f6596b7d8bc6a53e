// SPDX-License-Identifier: Apache-2.0
//! @file Warp operations of the emulator: what they compute, and who must come to them.
#include "unit/simt/simt_tools.hpp"
// after the emulator
#include <cmath>

#include "kvcrumb/numeric/storage_float.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

float half_value(std::uint32_t h) { return to_float(float16{static_cast<std::uint16_t>(h)}); }

struct matrices {
  std::uint16_t a[16][16];
  std::uint16_t b[16][8];
  float c[16][8], d[16][8];
};

//! Loads and stores by the table of PTX, element by element.
void mma_kernel(matrices* m) {
  int const g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  auto const pair = [](std::uint16_t low, std::uint16_t high) {
    return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
  };
  std::uint32_t a[4];
  for (int r = 0; r < 4; ++r) {
    int const row = g + (r == 1 || r == 3 ? 8 : 0), column = 2 * t + (r >= 2 ? 8 : 0);
    a[r] = pair(m->a[row][column], m->a[row][column + 1]);
  }
  std::uint32_t const b0 = pair(m->b[2 * t][g], m->b[2 * t + 1][g]);
  std::uint32_t const b1 = pair(m->b[2 * t + 8][g], m->b[2 * t + 9][g]);
  float c[4] = {m->c[g][2 * t], m->c[g][2 * t + 1], m->c[g + 8][2 * t], m->c[g + 8][2 * t + 1]};
  ptx::mma(c, a[0], a[1], a[2], a[3], b0, b1);
  m->d[g][2 * t] = c[0];
  m->d[g][2 * t + 1] = c[1];
  m->d[g + 8][2 * t] = c[2];
  m->d[g + 8][2 * t + 1] = c[3];
}

std::uint32_t next(std::uint32_t& state) { return (state = state * 1664525u + 1013904223u) >> 8; }

}  // namespace

TEST_CASE("mma is the product of matrices, subnormal codes included", "[simt]") {
  bool const subnormal = GENERATE(false, true);
  std::uint32_t state = 5;
  matrices m;
  for (int trial = 0; trial < 20; ++trial) {
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) {
        m.a[i][k] = static_cast<std::uint16_t>(subnormal ? next(state) & 0x83FFu : (next(state) & 0xBFFFu));
      }
      for (int n = 0; n < 8; ++n) {
        m.b[i][n] = static_cast<std::uint16_t>(next(state) & 0xBFFFu);
        m.c[i][n] = subnormal ? 0.0f : static_cast<float>(next(state) % 2001) / 1000.0f - 1.0f;
      }
    }
    simt::launch(1, 32, 0, mma_kernel, &m);
    int wrong = 0;
    for (int i = 0; i < 16; ++i) {
      for (int n = 0; n < 8; ++n) {
        double sum = static_cast<double>(m.c[i][n]);
        for (int k = 0; k < 16; ++k) {
          sum += static_cast<double>(half_value(m.a[i][k])) * static_cast<double>(half_value(m.b[k][n]));
        }
        wrong += static_cast<float>(sum) != m.d[i][n];
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("mma carries infinities and NaN", "[simt]") {
  matrices m{};
  m.a[3][5] = 0x7C00u;
  m.b[5][2] = 0x3C00u;
  m.a[9][1] = 0xFC00u;  // times zeros
  m.a[12][4] = 0x7E01u;
  simt::launch(1, 32, 0, mma_kernel, &m);
  CHECK(m.d[3][2] == HUGE_VALF);
  CHECK(std::isnan(m.d[3][1]));
  CHECK(std::isnan(m.d[9][7]));
  CHECK(std::isnan(m.d[12][0]));
  CHECK(m.d[0][0] == 0.0f);
}

TEST_CASE("transpose_8x8 transposes", "[simt]") {
  static std::uint32_t result[32];
  simt::launch(
      1, 32, 0,
      +[](int) {
        std::uint32_t const row = threadIdx.x / 4, column = 2 * (threadIdx.x % 4);
        result[threadIdx.x] = ptx::transpose_8x8((row * 256 + column) | (row * 256 + column + 1) << 16);
      },
      0);
  int wrong = 0;
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    std::uint32_t const row = lane / 4, column = 2 * (lane % 4);
    wrong += result[lane] != ((column * 256 + row) | ((column + 1) * 256 + row) << 16);
  }
  CHECK(wrong == 0);
}

namespace {

void shuffle_kernel(int* r) {
  int const i = static_cast<int>(threadIdx.x);
  r[i] = __shfl_sync(~0u, i, i + 3);
  r[32 + i] = __shfl_xor_sync(~0u, i, 5);
  r[64 + i] = __shfl_up_sync(~0u, i, 2);
  r[96 + i] = __shfl_down_sync(~0u, i, 2);
  r[128 + i] = __shfl_sync(~0u, i, 9, 8);
  r[160 + i] = __shfl_up_sync(~0u, i, 3, 8);
  r[192 + i] = __shfl_down_sync(~0u, i, 3, 8);
  double const wide = __shfl_xor_sync(~0u, i * 0x1.000001p20, 1);
  r[224 + i] = wide == (i ^ 1) * 0x1.000001p20;
  if (i < 16) {
    r[256 + i] = __shfl_xor_sync(0xFFFFu, i, 1);
  }
}

}  // namespace

TEST_CASE("shuffles move values as CUDA's do", "[simt]") {
  static int r[288];
  simt::launch(1, 32, 0, shuffle_kernel, r);
  int wrong = 0;
  for (int i = 0; i < 32; ++i) {
    wrong += r[i] != (i + 3) % 32;
    wrong += r[32 + i] != (i ^ 5);
    wrong += r[64 + i] != (i < 2 ? i : i - 2);
    wrong += r[96 + i] != (i > 29 ? i : i + 2);
    wrong += r[128 + i] != i / 8 * 8 + 1;
    wrong += r[160 + i] != (i % 8 < 3 ? i : i - 3);
    wrong += r[192 + i] != (i % 8 > 4 ? i : i + 3);
    wrong += r[224 + i] != 1;
    wrong += i < 16 && r[256 + i] != (i ^ 1);
  }
  CHECK(wrong == 0);
}

TEST_CASE("votes count the lanes of their mask", "[simt]") {
  static unsigned ballots[32];
  static int votes[32];
  simt::launch(
      1, 32, 0,
      +[](int) {
        unsigned const i = threadIdx.x;
        ballots[i] = i < 20 ? __ballot_sync(0xFFFFFu, i % 3 == 0) : 0;
        votes[i] = __any_sync(~0u, i == 7) + 2 * __any_sync(~0u, 0) + 4 * __all_sync(~0u, 9) +
                   8 * __all_sync(~0u, i != 7);
      },
      0);
  CHECK(ballots[0] == 0x00049249u);
  CHECK(ballots[19] == 0x00049249u);
  CHECK(votes[31] == 5);
}

TEST_CASE("half a warp may synchronize while the other half waits for all", "[simt]") {
  CHECK(first_failure(
            1, 32, 0,
            +[](int) {
              if (threadIdx.x < 16) {
                __syncwarp(0xFFFFu);
              }
              __syncwarp();
            },
            0)
            .empty());
}

TEST_CASE("a warp need not be full, but for tensor cores it must", "[simt]") {
  CHECK(first_failure(
            1, 40, 0, +[](int) { __syncwarp(); }, 0)
            .empty());
  CHECK(contains(first_failure(
                     1, 40, 0, +[](int) { ptx::transpose_8x8(0); }, 0),
                 "needs all 32 lanes"));
}

namespace {

//! Not in one line: equal operations there are not told apart.
void two_places_kernel(int* unused) {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else {
    __syncwarp();
  }
  static_cast<void>(unused);
}

}  // namespace

TEST_CASE("lanes that diverge are an error", "[simt]") {
  SECTION("two operations") {
    CHECK(contains(first_failure(
                       1, 32, 0,
                       +[](int) {
                         if (threadIdx.x < 16) {
                           __syncwarp();
                         } else {
                           __any_sync(~0u, 1);
                         }
                       },
                       0),
                   "lanes diverged"));
  }
  SECTION("two places") {
    CHECK(contains(first_failure(1, 32, 0, two_places_kernel, nullptr), "lanes diverged"));
  }
  SECTION("two masks") {
    CHECK(contains(first_failure(
                       1, 32, 0, +[](int) { __syncwarp(threadIdx.x < 16 ? ~0u : 0xFFFFFFFEu); }, 0),
                   "lanes diverged"));
  }
  SECTION("a lane outside of its mask") {
    CHECK(contains(first_failure(
                       1, 32, 0, +[](int) { __syncwarp(0x7FFFFFFFu); }, 0),
                   "is not in its mask"));
  }
  SECTION("a lane that has exited") {
    std::string const text = first_failure(
        1, 32, 0,
        +[](int) {
          if (threadIdx.x != 7) {
            __any_sync(~0u, 1);
          }
        },
        0);
    CHECK((contains(text, "exits while") || contains(text, "has exited")));
    CHECK(contains(text, "warp_test.cpp"));
  }
}
