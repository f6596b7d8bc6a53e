// SPDX-License-Identifier: Apache-2.0
//! @file The reference Hadamard matrix against its definition and its laws.
#include <cmath>
#include <cstddef>
#include <vector>

#include "kvcrumb/reference/hadamard.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;
using kvcrumb::test::Approx;

using numbers = std::vector<double>;

TEST_CASE("a block is the largest power of two that divides the dimension", "[reference][hadamard]") {
  CHECK(ref::hadamard_block(1) == 1);
  CHECK(ref::hadamard_block(7) == 1);
  CHECK(ref::hadamard_block(64) == 64);
  CHECK(ref::hadamard_block(80) == 16);
  CHECK(ref::hadamard_block(96) == 32);
  CHECK(ref::hadamard_block(192) == 64);
}

TEST_CASE("Sylvester's matrix of side 4 is the known one", "[reference][hadamard]") {
  CHECK(ref::sylvester_matrix(4) == numbers{1, 1, 1, 1,    //
                                            1, -1, 1, -1,  //
                                            1, 1, -1, -1,  //
                                            1, -1, -1, 1});
}

TEST_CASE("a dimension of 6 has three blocks of side 2", "[reference][hadamard]") {
  // (1, 3, 0, 2, -1, 1) -> (4, -2, 2, -2, 0, -2) / sqrt 2.
  auto const y = ref::hadamard_transform(numbers{1.0, 3.0, 0.0, 2.0, -1.0, 1.0});
  numbers const expected{4.0, -2.0, 2.0, -2.0, 0.0, -2.0};
  REQUIRE(y.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) { CHECK(y[i] == Approx(expected[i] / std::sqrt(2.0)).margin(1e-15)); }
  auto const matrix = ref::hadamard_matrix(6);
  CHECK(matrix[0 * 6 + 2] == 0.0);
  CHECK(matrix[5 * 6 + 5] == Approx(-1.0 / std::sqrt(2.0)));
}

TEST_CASE("the entries are the parity of the common bits of row and column", "[reference][hadamard]") {
  auto const matrix = ref::sylvester_matrix(16);
  int wrong = 0;
  for (unsigned r = 0; r < 16; ++r) {
    for (unsigned c = 0; c < 16; ++c) {
      unsigned parity = 0;
      for (unsigned common = r & c; common != 0; common >>= 1) { parity ^= common & 1u; }
      wrong += matrix[r * 16 + c] != (parity == 0 ? 1.0 : -1.0) ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("the matrix is orthonormal and its own inverse", "[reference][hadamard]") {
  auto const dim = static_cast<std::size_t>(GENERATE(1, 5, 12, 64, 80));
  CAPTURE(dim);
  auto const matrix = ref::hadamard_matrix(dim);
  double worst = 0.0;
  for (std::size_t r = 0; r < dim; ++r) {
    for (std::size_t c = 0; c < dim; ++c) {
      double times_transposed = 0.0;
      double squared = 0.0;
      for (std::size_t k = 0; k < dim; ++k) {
        times_transposed += matrix[r * dim + k] * matrix[c * dim + k];
        squared += matrix[r * dim + k] * matrix[k * dim + c];
      }
      double const unit = r == c ? 1.0 : 0.0;
      worst = std::fmax(worst, std::fmax(std::fabs(times_transposed - unit), std::fabs(squared - unit)));
    }
  }
  CHECK(worst < 1e-14);
}
