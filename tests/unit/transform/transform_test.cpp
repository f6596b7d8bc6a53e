// SPDX-License-Identifier: Apache-2.0
//! @file Transforms: the Hadamard matrix, the dual on queries, exact centering, identities of states.
#include <cmath>
#include <vector>

#include "kvcrumb/reference/hadamard.hpp"
#include "kvcrumb/transform/hadamard.hpp"
#include "kvcrumb/transform/identity.hpp"
#include "kvcrumb/transform/mean_center.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

constexpr int dims[] = {46, 64, 80, 96, 112, 128, 192, 256};

double dot_of(std::vector<float> const& a, std::vector<float> const& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

double norm_of(std::vector<float> const& a) { return std::sqrt(dot_of(a, a)); }

//! One pass of the definition with a given block: entries are parities of common bits, over sqrt(block).
std::vector<double> block_transform(std::vector<float> const& x, std::size_t block) {
  std::vector<double> y(x.size(), 0.0);
  for (std::size_t r = 0; r < x.size(); ++r) {
    for (std::size_t c = 0; c < block; ++c) {
      std::size_t common = (r % block) & c, parity = 0;
      for (; common != 0; common >>= 1)
        parity ^= common & 1;
      y[r] += (parity == 0 ? 1.0 : -1.0) * static_cast<double>(x[r / block * block + c]);
    }
    y[r] /= std::sqrt(static_cast<double>(block));
  }
  return y;
}

template <class Transform>
void check_dual(Transform const& t, int dim, int head, std::uint64_t seed) {
  number_source source(seed);
  auto q = source.bells(static_cast<std::size_t>(dim)),
       k = source.bells(static_cast<std::size_t>(dim), 2.0f, 0.5f);
  double const exact = dot_of(q, k), size = norm_of(q) * norm_of(k) + 1.0;
  auto tq = q, tk = k;
  t.forward(head, dim, tk.data());
  double const offset = static_cast<double>(t.query(head, dim, tq.data()));
  CAPTURE(dim, head);
  CHECK(std::fabs(dot_of(tq, tk) + offset - exact) < 1e-5 * size);
  auto back = tk;
  t.inverse(head, dim, back.data(), 1.0f);
  for (std::size_t i = 0; i < k.size(); ++i)
    CHECK(std::fabs(back[i] - k[i]) < 1e-5f * static_cast<float>(size));
  // A weighted sum of transformed rows comes back as the weighted sum of rows.
  auto v = source.bells(static_cast<std::size_t>(dim), 3.0f);
  auto tv = v;
  t.forward(head, dim, tv.data());
  std::vector<float> o(tk.size());
  for (std::size_t i = 0; i < o.size(); ++i)
    o[i] = 0.5f * tk[i] + 0.125f * tv[i];
  t.inverse(head, dim, o.data(), 0.625f);
  for (std::size_t i = 0; i < o.size(); ++i) {
    CHECK(std::fabs(o[i] - (0.5f * k[i] + 0.125f * v[i])) < 1e-5f * static_cast<float>(size));
  }
}

}  // namespace

TEST_CASE("the rotation is the Hadamard matrix", "[transform][hadamard]") {
  for (int const dim : dims) {
    auto const x = number_source(static_cast<std::uint64_t>(dim)).bells(static_cast<std::size_t>(dim));
    auto y = x;
    hadamard<>{}.forward(0, dim, y.data());
    auto const expected = reference::hadamard_transform(doubles(x));
    CAPTURE(dim);
    double worst = 0.0;
    for (std::size_t i = 0; i < y.size(); ++i)
      worst = std::fmax(worst, std::fabs(static_cast<double>(y[i]) - expected[i]));
    CHECK(worst < 4e-6);
    CHECK(norm_of(y) == Approx(norm_of(x)).epsilon(1e-6));
    hadamard<>{}.forward(0, dim, y.data());  // its own inverse
    for (std::size_t i = 0; i < y.size(); ++i)
      CHECK(std::fabs(y[i] - x[i]) < 4e-6f);
    CHECK(hadamard<>::block(dim) ==
          static_cast<int>(reference::hadamard_block(static_cast<std::size_t>(dim))));
  }
}

TEST_CASE("a unit vector becomes a column of signs", "[transform][hadamard]") {
  for (int const dim : {2, 4, 16, 64, 128, 512, 1024}) {
    std::vector<float> x(static_cast<std::size_t>(dim), 0.0f);
    x[static_cast<std::size_t>(dim) - 1] = 1.0f;
    hadamard<>{}.forward(0, dim, x.data());
    double const size = 1.0 / std::sqrt(static_cast<double>(dim));
    CAPTURE(dim);
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::size_t bits = i, parity = 0;
      for (; bits != 0; bits >>= 1)
        parity ^= bits & 1;
      wrong += static_cast<double>(x[i]) == reference::to_fp32(parity == 0 ? size : -size) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("odd widths are left alone and the block can be limited", "[transform][hadamard]") {
  auto const x = number_source(3).bells(46);
  for (int const dim : {1, 7, 45}) {
    auto y = x;
    hadamard<>{}.forward(0, dim, y.data());
    CHECK(y == x);
    CHECK(hadamard<>::block(dim) == 1);
  }
  CHECK(hadamard<32>::block(128) == 32);
  CHECK(hadamard<32>::block(96) == 32);
  CHECK(hadamard<32>::block(80) == 16);
  CHECK(hadamard<2>::block(46) == 2);
  auto const z = number_source(4).bells(128);
  auto y = z;
  hadamard<32>{}.forward(0, 128, y.data());
  auto const expected = block_transform(z, 32);
  for (std::size_t i = 0; i < y.size(); ++i)
    CHECK(std::fabs(static_cast<double>(y[i]) - expected[i]) < 4e-6);
  CHECK(hadamard<32>{}.id(1, 128) != hadamard<>{}.id(1, 128));
  CHECK(hadamard<32>{}.id(1, 96) == hadamard<>{}.id(1, 96));
}

TEST_CASE("transforms keep inner products and come back", "[transform]") {
  auto const means = number_source(5).bells(4 * 256, 5.0f);
  for (int const dim : dims) {
    check_dual(identity{}, dim, 0, 11);
    check_dual(hadamard<>{}, dim, 1, 12);
    check_dual(hadamard<16>{}, dim, 1, 13);
    check_dual(mean_center{}, dim, 2, 14);
    check_dual(mean_center{.means = means.data()}, dim, 3, 15);
    check_dual(centered<hadamard<>>{.means = means.data()}, dim, 2, 16);
  }
}

TEST_CASE("centering subtracts the mean of its own head and gives the score back", "[transform][center]") {
  constexpr int dim = 8;
  std::vector<float> means(3 * dim);
  for (std::size_t i = 0; i < means.size(); ++i)
    means[i] = static_cast<float>(i) * 0.25f;
  mean_center const t{.means = means.data()};
  std::vector<float> k(dim, 10.0f);
  t.forward(2, dim, k.data());
  for (std::size_t i = 0; i < dim; ++i)
    CHECK(k[i] == 10.0f - means[2 * dim + i]);
  std::vector<float> q(dim, 2.0f);
  float const offset = t.query(1, dim, q.data());
  float sum = 0.0f;
  for (std::size_t i = 0; i < dim; ++i)
    sum += 2.0f * means[dim + i];
  CHECK(offset == sum);
  CHECK(q == std::vector<float>(dim, 2.0f));
  std::vector<float> o(dim, 1.0f);
  t.inverse(1, dim, o.data(), 3.0f);
  for (std::size_t i = 0; i < dim; ++i)
    CHECK(o[i] == 1.0f + 3.0f * means[dim + i]);
  // No means: nothing happens.
  mean_center const none{};
  auto kept = k;
  none.forward(0, dim, kept.data());
  CHECK(kept == k);
  CHECK(none.query(0, dim, q.data()) == 0.0f);
}

TEST_CASE("the identity of a centering follows its means", "[transform][center]") {
  auto means = number_source(6).bells(2 * 16);
  mean_center const t{.means = means.data()};
  std::uint64_t const before = t.id(2, 16);
  CHECK(before != mean_center{}.id(2, 16));
  CHECK(before != (centered<hadamard<>>{.means = means.data()}).id(2, 16));
  CHECK(before != t.id(1, 16));
  auto copy = means;
  CHECK((mean_center{.means = copy.data()}).id(2, 16) == before);
  for (std::size_t i = 0; i < means.size(); i += 5) {
    float const kept = copy[i];
    copy[i] = std::nextafter(kept, 100.0f);
    CHECK((mean_center{.means = copy.data()}).id(2, 16) != before);
    copy[i] = kept;
  }
  CHECK(identity{}.id(3, 64) == 0);
}
