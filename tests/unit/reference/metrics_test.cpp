// SPDX-License-Identifier: Apache-2.0
//! @file The reference metrics against values worked out on paper.
#include <cmath>
#include <limits>
#include <vector>

#include "kvcrumb/reference/metrics.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;
using kvcrumb::test::Approx;

using numbers = std::vector<double>;
namespace {
double const infinity = std::numeric_limits<double>::infinity();
}

TEST_CASE("relative L2 error divides by the norm of the exact vector", "[reference][metrics]") {
  // |(3, 4)| = 5; the difference (0, 1) has norm 1: 0.2. The other way round |(3, 5)| = sqrt(34).
  CHECK(ref::relative_l2(numbers{3.0, 5.0}, numbers{3.0, 4.0}) == Approx(0.2));
  CHECK(ref::relative_l2(numbers{3.0, 4.0}, numbers{3.0, 5.0}) == Approx(1.0 / std::sqrt(34.0)));
  CHECK(ref::relative_l2(numbers{-3.0, -4.0}, numbers{3.0, 4.0}) == Approx(2.0));
  CHECK(ref::relative_l2(numbers{0.0, 0.0}, numbers{0.0, 0.0}) == 0.0);
  CHECK(ref::relative_l2(numbers{1.0, 0.0}, numbers{0.0, 0.0}) == infinity);
  CHECK(ref::relative_l2(numbers{}, numbers{}) == 0.0);
}

TEST_CASE("the KL divergence is in nats and not symmetric", "[reference][metrics]") {
  // 1/2 ln((1/2) / (1/4)) + 1/2 ln((1/2) / (3/4)) = 1/2 ln(4/3).
  // 1/4 ln(1/2) + 3/4 ln(3/2) = 3/4 ln 3 - ln 2.
  numbers const p{0.5, 0.5};
  numbers const q{0.25, 0.75};
  CHECK(ref::kl_divergence(p, q) == Approx(0.5 * std::log(4.0 / 3.0)).epsilon(1e-14));
  CHECK(ref::kl_divergence(q, p) == Approx(0.75 * std::log(3.0) - std::log(2.0)).epsilon(1e-14));
  CHECK(ref::kl_divergence(p, p) == 0.0);
}

TEST_CASE("zeros in the KL divergence follow its definition", "[reference][metrics]") {
  CHECK(ref::kl_divergence(numbers{0.0, 1.0}, numbers{0.5, 0.5}) == Approx(std::log(2.0)));
  CHECK(ref::kl_divergence(numbers{0.5, 0.5}, numbers{0.0, 1.0}) == infinity);
  CHECK(ref::kl_divergence(numbers{0.0, 1.0}, numbers{0.0, 1.0}) == 0.0);
}

TEST_CASE("top-1 agreement counts the rows with the same largest element", "[reference][metrics]") {
  CHECK(ref::index_of_largest(numbers{1.0, 5.0, 5.0, 2.0}) == 1);
  // Rows of 3: same (0, 0), different (2, 1), same through the first of equals (1, 1), same (2, 2): 3 of 4.
  numbers const actual{9, 1, 1, 0, 1, 2, 1, 7, 7, 0, 0, 1};
  numbers const expected{5, 4, 3, 0, 2, 1, 0, 1, 0, 3, 4, 5};
  CHECK(ref::top1_agreement(actual, expected, 3) == 0.75);
  CHECK(std::isnan(ref::top1_agreement(numbers{}, numbers{}, 3)));
}

TEST_CASE("percentiles are interpolated along straight lines", "[reference][metrics]") {
  // Sorted 1 2 3 4: index 3 * p / 100; 50 -> 1.5 -> 2.5; 25 -> 0.75 -> 1.75; 99 -> 2.97 -> 3.97.
  numbers const values{4.0, 1.0, 3.0, 2.0};
  CHECK(ref::percentile(values, 0.0) == 1.0);
  CHECK(ref::percentile(values, 25.0) == Approx(1.75));
  CHECK(ref::percentile(values, 50.0) == Approx(2.5));
  CHECK(ref::percentile(values, 99.0) == Approx(3.97));
  CHECK(ref::percentile(values, 100.0) == 4.0);
  CHECK(ref::percentile(numbers{7.0}, 99.0) == 7.0);
  CHECK(std::isnan(ref::percentile(numbers{}, 50.0)));
}
