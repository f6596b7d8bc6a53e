// SPDX-License-Identifier: Apache-2.0
//! @file The computed Lloyd-Max and NormalFloat levels against published values.
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

#include "kvcrumb/reference/codebooks.hpp"
#include "kvcrumb/reference/quantize_nf4.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;
using kvcrumb::test::Approx;

namespace {

// The printed values have six digits after the point.
void check_symmetric(std::vector<double> const& actual, std::vector<double> const& positive) {
  std::size_t const n = actual.size();
  REQUIRE(n == 2 * positive.size() + n % 2);
  for (std::size_t i = 0; i < positive.size(); ++i) {
    CAPTURE(i, actual[n - positive.size() + i], positive[i]);
    CHECK(std::fabs(actual[n - positive.size() + i] - positive[i]) < 6e-7);
    CHECK(actual[positive.size() - 1 - i] == -actual[n - positive.size() + i]);
  }
  if (n % 2 == 1) { CHECK(actual[n / 2] == 0.0); }
}

}  // namespace

TEST_CASE("normal quantiles invert the normal distribution", "[reference][codebooks]") {
  CHECK(ref::normal_quantile(0.5) == Approx(0.0).margin(1e-15));
  CHECK(ref::normal_quantile(0.975) == Approx(1.9599639845400545).epsilon(1e-13));
  CHECK(ref::normal_quantile(0.025) == Approx(-1.9599639845400545).epsilon(1e-13));
  CHECK(ref::normal_quantile(0.8413447460685429) == Approx(1.0).epsilon(1e-13));
  CHECK(ref::normal_upper_tail(1.0) == Approx(0.15865525393145705).epsilon(1e-13));
  CHECK(ref::normal_density(0.0) == Approx(0.3989422804014327).epsilon(1e-13));
}

TEST_CASE("the one-bit quantizer of the normal distribution has a closed form", "[reference][codebooks]") {
  // The mean of |X| is sqrt(2 / pi); the error 1 - 2 / pi; both indices are equally likely.
  auto const book = ref::lloyd_max_normal(1);
  REQUIRE(book.levels.size() == 2);
  CHECK(book.levels[1] == Approx(std::sqrt(2.0 / std::numbers::pi)).epsilon(1e-13));
  CHECK(book.levels[0] == -book.levels[1]);
  CHECK(book.bounds == std::vector<double>{0.0});
  CHECK(book.mean_squared_error == Approx(1.0 - 2.0 / std::numbers::pi).epsilon(1e-13));
  CHECK(book.index_entropy == Approx(1.0).epsilon(1e-13));
}

TEST_CASE("Lloyd-Max levels, bounds, errors and entropies match the tables", "[reference][codebooks]") {
  auto const two = ref::lloyd_max_normal(2);
  check_symmetric(two.levels, {0.452780, 1.510418});
  check_symmetric(two.bounds, {0.981599});
  CHECK(std::fabs(two.mean_squared_error - 0.117482) < 6e-7);
  CHECK(std::fabs(two.index_entropy - 1.911) < 6e-4);

  auto const three = ref::lloyd_max_normal(3);
  check_symmetric(three.levels, {0.245094, 0.756005, 1.343909, 2.151946});
  check_symmetric(three.bounds, {0.500550, 1.049957, 1.747927});
  CHECK(std::fabs(three.mean_squared_error - 0.034548) < 6e-7);
  CHECK(std::fabs(three.index_entropy - 2.825) < 6e-4);

  auto const four = ref::lloyd_max_normal(4);
  check_symmetric(four.levels,
                  {0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732590});
  check_symmetric(four.bounds, {0.258222, 0.522404, 0.799550, 1.099286, 1.437139, 1.843532, 2.400803});
  CHECK(std::fabs(four.mean_squared_error - 0.009501) < 6e-7);
  CHECK(std::fabs(four.index_entropy - 3.765) < 6e-4);
}

TEST_CASE("the construction of NormalFloat gives the published NF4 levels", "[reference][codebooks]") {
  auto const levels = ref::normal_float_levels(4);
  REQUIRE(levels.size() == 16);
  for (std::size_t i = 0; i < 16; ++i) {
    CAPTURE(i, levels[i]);
    CHECK(std::fabs(levels[i] - ref::nf4_levels[i]) < 1e-6);
  }
  CHECK(levels[0] == -1.0);
  CHECK(levels[7] == 0.0);
  CHECK(levels[15] == 1.0);
}

TEST_CASE("NF3 and NF2 share quantiles with NF4", "[reference][codebooks]") {
  // Positive probabilities start at the offset and go down in 8, 4 or 2 steps: NF3 has every second positive
  // level of NF4 and NF2 every fourth. The negative ones go down in 3 steps or 1.
  auto const four = ref::normal_float_levels(4);
  auto const three = ref::normal_float_levels(3);
  auto const two = ref::normal_float_levels(2);
  REQUIRE(three.size() == 8);
  REQUIRE(two.size() == 4);
  for (std::size_t i = 1; i <= 4; ++i) { CHECK(three[3 + i] == Approx(four[7 + 2 * i]).epsilon(1e-12)); }
  for (std::size_t i = 1; i <= 2; ++i) { CHECK(two[1 + i] == Approx(four[7 + 4 * i]).epsilon(1e-12)); }
  CHECK(three[3] == 0.0);
  CHECK(two[1] == 0.0);
  CHECK(three[0] == -1.0);
  CHECK(two[0] == -1.0);
  // 0.9677083 - 0.4677083 / 3 = 0.8118055: quantile 0.88455..., over 1.84813... = 0.47863; two thirds:
  // 0.21714.
  CHECK(three[1] == Approx(-0.4786).margin(1e-4));
  CHECK(three[2] == Approx(-0.2171).margin(1e-4));
}
