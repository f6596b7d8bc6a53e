// SPDX-License-Identifier: Apache-2.0
//! @file Eigenvalues of small symmetric matrices, equal to the bit everywhere.
#pragma once

#include <cmath>

#include "kvcrumb/numeric/arithmetic.hpp"

namespace kvcrumb::inline v0 {

//! Eigenvalues, largest first, and their unit eigenvectors; the component of largest magnitude (the first of
//! equals) is positive.
template <int N>
struct eigen_pairs {
  double value[N] = {};
  double vector[N][N] = {};  //!< vector[j] belongs to value[j]
};

namespace detail {

inline double square_root_step(double x) noexcept { return hidden_step(::sqrt(hidden_step(x))); }
inline double divide_step(double a, double b) noexcept {
  return hidden_step(hidden_step(a) / hidden_step(b));
}
inline double multiply_step(double a, double b) noexcept { return hidden_step(hidden_step(a) * b); }
inline double magnitude(double x) noexcept { return x < 0.0 ? -x : x; }

//! (a, b) becomes (c a - s b, s a + c b).
inline void rotate_pair(double c, double s, double& a, double& b) noexcept {
  double const x = hidden_step(multiply_step(c, a) - multiply_step(s, b));
  b = hidden_step(multiply_step(s, a) + multiply_step(c, b));
  a = x;
}

}  // namespace detail

//! Cyclic Jacobi iteration (Golub and Van Loan, Matrix Computations, 4th ed., 8.5) of a symmetric positive
//! semidefinite matrix with finite elements: 12 sweeps in row order, every step one IEEE operation in double.
//! An element below 2^-70 of the trace counts as zero. Cost: about N^3 / 2 pair rotations in all of the six
//! or seven sweeps that it usually takes; no memory.
template <int N>
eigen_pairs<N> symmetric_eigen(double const (&matrix)[N][N]) noexcept {
  constexpr int sweeps = 12;
  double a[N][N], v[N][N], trace = 0.0;
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < N; ++j) {
      a[i][j] = matrix[i][j];
      v[i][j] = i == j ? 1.0 : 0.0;
    }
    trace = detail::hidden_step(trace + detail::magnitude(a[i][i]));
  }
  double const least = trace * 0x1p-70;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (int p = 0; p < N; ++p) {
      for (int q = p + 1; q < N; ++q) {
        double const off = a[p][q];
        a[p][q] = a[q][p] = 0.0;
        if (!(detail::magnitude(off) > least)) continue;
        double const theta = detail::divide_step(detail::hidden_step(a[q][q] - a[p][p]), 2.0 * off);
        double const size = detail::magnitude(theta);
        double const root =
            detail::square_root_step(detail::hidden_step(detail::multiply_step(size, size) + 1.0));
        double const tangent =
            detail::divide_step(theta < 0.0 ? -1.0 : 1.0, detail::hidden_step(size + root));
        double const square = detail::multiply_step(tangent, tangent);
        double const c =
            detail::divide_step(1.0, detail::square_root_step(detail::hidden_step(square + 1.0)));
        double const s = detail::multiply_step(tangent, c);
        double const shift = detail::multiply_step(tangent, off);
        a[p][p] = detail::hidden_step(a[p][p] - shift);
        a[q][q] = detail::hidden_step(a[q][q] + shift);
        for (int k = 0; k < N; ++k) {
          if (k != p && k != q) {
            detail::rotate_pair(c, s, a[k][p], a[k][q]);
            a[p][k] = a[k][p];
            a[q][k] = a[k][q];
          }
          detail::rotate_pair(c, s, v[p][k], v[q][k]);
        }
      }
    }
  }
  eigen_pairs<N> result;
  for (int i = 0; i < N; ++i) {
    int place = 0, top = 0;  // how many are larger; of equals the earlier one comes first
    for (int j = 0; j < N; ++j) {
      place += a[j][j] > a[i][i] || (a[j][j] == a[i][i] && j < i) ? 1 : 0;
      if (detail::magnitude(v[i][j]) > detail::magnitude(v[i][top])) top = j;
    }
    result.value[place] = a[i][i];
    for (int j = 0; j < N; ++j)
      result.vector[place][j] = v[i][top] < 0.0 ? -v[i][j] : v[i][j];
  }
  return result;
}

}  // namespace kvcrumb::inline v0
