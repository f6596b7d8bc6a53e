// SPDX-License-Identifier: Apache-2.0
//! @file Errors of codebooks on normal data against exact integrals.
#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "kvcrumb/reference/codebooks.hpp"
#include "kvcrumb/reference/quantize_nf4.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;
namespace ref = kvcrumb::reference;

namespace {

double density(double x) { return std::exp(-0.5 * x * x) * 0.3989422804014327; }
double below(double x) { return 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))); }

//! Integral of (x - level)^2 times the normal density from a to b.
double cell_error(double a, double b, double level) {
  double const mass = below(b) - below(a);
  double const first = density(a) - density(b);                  // integral of x
  double const second = mass + a * density(a) - b * density(b);  // integral of x^2
  return second - 2.0 * level * first + level * level * mass;
}

//! Error of nearest-level rounding of a normal number that lies in [-m, m]; levels ascending.
double error_between(std::vector<double> const& levels, double m) {
  double sum = 0.0;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    double const a = i == 0 ? -m : 0.5 * (levels[i - 1] + levels[i]);
    double const b = i + 1 == levels.size() ? m : 0.5 * (levels[i] + levels[i + 1]);
    if (a < b) sum += cell_error(std::max(a, -m), std::min(b, m), levels[i]);
  }
  return sum;
}

//! Expected squared error per value of blocks of n normal numbers whose levels are `unit` times the largest
//! magnitude m: the integral over the density of m of the error of the n - 1 others, which lie in [-m, m].
//! The largest one is exact.
double absmax_error(std::vector<double> const& unit, int n) {
  double const step = 1e-3;
  double expected = 0.0;
  for (double m = 0.5 * step; m < 8.0; m += step) {
    double const inside = std::erf(m / std::sqrt(2.0));
    double const density_of_m = n * std::pow(inside, n - 1) * 2.0 * density(m);
    if (density_of_m < 1e-14) continue;
    std::vector<double> levels = unit;
    for (double& level : levels)
      level *= m;
    expected += step * density_of_m * (n - 1.0) / n * error_between(levels, m) / inside;
  }
  return expected;
}

template <class Codec>
double measured_error(Codec const& codec, int n, int blocks, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  double sum = 0.0;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (int block = 0; block < blocks; ++block) {
    for (float& v : x)
      v = normal(generator);
    auto const g = encode_group(codec, x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      double const e = static_cast<double>(g.decoded[i]) - static_cast<double>(x[i]);
      sum += e * e;
    }
  }
  return sum / (static_cast<double>(n) * blocks);
}

//! Levels and bounds as the shipped table uses them, the bounds found by bisection.
template <int Bits>
double shipped_error() {
  lloyd_max_table<Bits> const table;
  unsigned const count = 1u << Bits;
  double error = 0.0, from = -40.0;
  for (unsigned code = 0; code < count; ++code) {
    double low = from, high = 40.0;
    for (int i = 0; i < 80 && code + 1 < count; ++i) {
      double const middle = 0.5 * (low + high);
      (table.nearest(static_cast<float>(middle)) <= code ? low : high) = middle;
    }
    double const to = code + 1 < count ? low : 40.0;
    error += cell_error(from, to, static_cast<double>(table.level(code)));
    from = to;
  }
  return error;
}

template <int Bits>
void check_lloyd_max(double published, double last_digit) {
  CAPTURE(Bits, published);
  auto const book = ref::lloyd_max_normal(Bits);
  lloyd_max_table<Bits> const table;
  for (unsigned code = 0; code < book.levels.size(); ++code) {
    CHECK(std::fabs(static_cast<double>(table.level(code)) - book.levels[code]) < 2e-7);
    if (code > 0) {
      double const bound = book.bounds[code - 1];
      CHECK(table.nearest(static_cast<float>(bound - 1e-6)) == code - 1);
      CHECK(table.nearest(static_cast<float>(bound + 1e-6)) == code);
    }
  }
  CHECK(table.max_level() == table.level((1u << Bits) - 1));
  CHECK(std::fabs(shipped_error<Bits>() - book.mean_squared_error) < 1e-9);
  CHECK(std::fabs(shipped_error<Bits>() - published) < 0.6 * last_digit);
}

}  // namespace

TEST_CASE("Lloyd-Max tables have the published errors", "[codec][codebook][lloyd_max]") {
  check_lloyd_max<1>(0.36338, 1e-5);
  check_lloyd_max<2>(0.117482, 1e-6);
  check_lloyd_max<3>(0.034548, 1e-6);
  check_lloyd_max<4>(0.009501, 1e-6);
}

TEST_CASE("Lloyd-Max codes of a million normal values have the published errors",
          "[codec][codebook][lloyd_max]") {
  // x_i = the quantile of (i + 1/2) / n: normal data without sampling noise. Newton steps from the one
  // before.
  constexpr int n = 1000000;
  std::vector<float> x;
  x.reserve(n);
  double at = 0.0;
  for (int i = 0; i < n / 2; ++i) {
    double const tail = 0.5 - (i + 0.5) / n;
    for (int step = 0; step < 3; ++step)
      at += (ref::normal_upper_tail(at) - tail) / density(at);
    x.push_back(static_cast<float>(at));
    x.push_back(static_cast<float>(-at));
  }
  auto const error = [&](auto codec) {
    group_params const unit{{1.0f, 0.0f}, 0.0f};
    double sum = 0.0;
    for (float const v : x) {
      double const e =
          static_cast<double>(decode(codec, codec.encode(v, unit), unit)) - static_cast<double>(v);
      sum += e * e;
    }
    return sum / n;
  };
  CHECK(std::fabs(error(lloyd_max<1>{}) / 0.36338 - 1.0) < 1e-4);
  CHECK(std::fabs(error(lloyd_max<2>{}) / 0.117482 - 1.0) < 1e-4);
  CHECK(std::fabs(error(lloyd_max<3>{}) / 0.034548 - 1.0) < 1e-4);
  CHECK(std::fabs(error(lloyd_max<4>{}) / 0.009501 - 1.0) < 2e-4);  // 0.009501 itself has four digits
}

TEST_CASE("Lloyd-Max codes keep their error when groups are scaled by their root mean square",
          "[codec][codebook]") {
  // 256 groups of 4096 values: the scale of a group is off by 1%, which costs 1e-4 of the error at most.
  CHECK(std::fabs(measured_error(lloyd_max<2>{}, 4096, 64, 1) / 0.117482 - 1.0) < 0.01);
  CHECK(std::fabs(measured_error(lloyd_max<4>{}, 4096, 64, 2) / 0.009501 - 1.0) < 0.02);
  // Another standard deviation changes the error by its square and nothing else.
  number_source source(3);
  auto x = source.bells(1024);
  auto const one = encode_group(lloyd_max<3, float>{}, x);
  for (float& v : x)
    v *= 16.0f;
  CHECK(encode_group(lloyd_max<3, float>{}, x).codes == one.codes);
}

TEST_CASE("NF4 beats uniform codes of equal bits and blocks on normal data by the integral's margin",
          "[codec][codebook][nf4]") {
  int const n = GENERATE(32, 64, 256);
  std::vector<double> const nf4_unit(ref::nf4_levels.begin(), ref::nf4_levels.end());
  std::vector<double> uniform_unit;
  for (int code = -7; code <= 7; ++code)
    uniform_unit.push_back(code / 7.0);
  double const nf4_expected = absmax_error(nf4_unit, n), uniform_expected = absmax_error(uniform_unit, n);
  int const blocks = (1 << 19) / n;
  double const nf4_measured = measured_error(nf4<>{}, n, blocks, 7),
               uniform_measured = measured_error(symmetric<4>{}, n, blocks, 7);
  CAPTURE(n, nf4_expected, nf4_measured, uniform_expected, uniform_measured);
  // fp16 scales move both by less than 0.1 %, sampling of 2^19 values by 0.5 %.
  CHECK(std::fabs(nf4_measured / nf4_expected - 1.0) < 0.015);
  CHECK(std::fabs(uniform_measured / uniform_expected - 1.0) < 0.015);
  double const margin = uniform_expected / nf4_expected;
  CHECK(margin > 1.2);
  CHECK(std::fabs(uniform_measured / nf4_measured / margin - 1.0) < 0.015);
}

TEST_CASE("the expected margins of NF4 are 1.25 to 1.6", "[codec][codebook][nf4]") {
  // The integral itself, against a simulation with the reference quantizer.
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  double sum = 0.0;
  std::vector<double> x(64);
  for (int block = 0; block < 3000; ++block) {
    for (double& v : x)
      v = ref::to_fp32(normal(generator));
    auto const coded = ref::nf4_block(x);
    for (std::size_t i = 0; i < x.size(); ++i)
      sum += (coded.xhat[i] - x[i]) * (coded.xhat[i] - x[i]);
  }
  std::vector<double> const unit(ref::nf4_levels.begin(), ref::nf4_levels.end());
  CHECK(std::fabs(sum / (64.0 * 3000.0) / absmax_error(unit, 64) - 1.0) < 0.02);
}
