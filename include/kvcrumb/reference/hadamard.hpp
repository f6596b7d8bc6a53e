// SPDX-License-Identifier: Apache-2.0
//! @file The orthonormal block-diagonal Hadamard matrix, written out in full.
#pragma once

#include <cassert>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrumb::inline v0::reference {

//! Side of one block: the largest power of two that divides `dim`. Requires dim > 0.
[[nodiscard]] inline std::size_t hadamard_block(std::size_t dim) {
  assert(dim > 0);
  std::size_t block = 1;
  while (dim % (2 * block) == 0) { block *= 2; }
  return block;
}

//! Sylvester's matrix [n][n] of +1 and -1: H(1) = [1], H(2n) = [H(n) H(n); H(n) -H(n)]. Requires n a power of
//! two.
[[nodiscard]] inline std::vector<double> sylvester_matrix(std::size_t n) {
  assert(n > 0 && (n & (n - 1)) == 0);
  if (n == 1) { return {1.0}; }
  std::size_t const half = n / 2;
  std::vector<double> const quarter = sylvester_matrix(half);
  std::vector<double> matrix(n * n);
  for (std::size_t r = 0; r < half; ++r) {
    for (std::size_t c = 0; c < half; ++c) {
      double const entry = quarter[r * half + c];
      matrix[r * n + c] = entry;
      matrix[r * n + half + c] = entry;
      matrix[(half + r) * n + c] = entry;
      matrix[(half + r) * n + half + c] = -entry;
    }
  }
  return matrix;
}

//! The transform matrix [dim][dim]: hadamard_block(dim)-sized Sylvester blocks on the diagonal, each divided
//! by the square root of its side; zero elsewhere. Symmetric and orthonormal, so it is its own inverse.
[[nodiscard]] inline std::vector<double> hadamard_matrix(std::size_t dim) {
  std::size_t const block = hadamard_block(dim);
  std::vector<double> const sylvester = sylvester_matrix(block);
  double const norm = std::sqrt(static_cast<double>(block));
  std::vector<double> matrix(dim * dim, 0.0);
  for (std::size_t first = 0; first < dim; first += block) {
    for (std::size_t r = 0; r < block; ++r) {
      for (std::size_t c = 0; c < block; ++c) {
        matrix[(first + r) * dim + first + c] = sylvester[r * block + c] / norm;
      }
    }
  }
  return matrix;
}

//! hadamard_matrix(x.size()) times x, by the definition; cost dim^2.
[[nodiscard]] inline std::vector<double> hadamard_transform(std::span<double const> x) {
  std::size_t const dim = x.size();
  std::vector<double> const matrix = hadamard_matrix(dim);
  std::vector<double> result(dim, 0.0);
  for (std::size_t r = 0; r < dim; ++r) {
    for (std::size_t c = 0; c < dim; ++c) { result[r] += matrix[r * dim + c] * x[c]; }
  }
  return result;
}

}  // namespace kvcrumb::inline v0::reference
