// SPDX-License-Identifier: Apache-2.0
//! @file The order of sums that decide bytes: a balanced tree over neighbouring pairs, which a warp can
//! follow.
#include <string>
#include <vector>

#include "kvcrumb/codec/concept.hpp"
#include "support/catch.hpp"
#include "unit/codec/encoded_group.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

//! By recursion: the left part is the largest power of two below n.
std::string tree_of(int first, int n) {
  if (n == 1) return std::to_string(first);
  int left = 1;
  while (2 * left < n)
    left *= 2;
  return "(" + tree_of(first, left) + "+" + tree_of(first + left, n - left) + ")";
}

float sum_of(float const* x, int n) {
  if (n == 1) return x[0];
  int left = 1;
  while (2 * left < n)
    left *= 2;
  float const volatile a = sum_of(x, left), b = sum_of(x + left, n - left);
  float const volatile sum = a + b;
  return sum;
}

//! What lane 0 of a warp holds after a butterfly over xor 1, 2, 4, 8, 16; lanes from n on are absent.
float butterfly(std::vector<float> lanes) {
  std::size_t const n = lanes.size();
  for (std::size_t step = 1; step < 32; step *= 2) {
    std::vector<float> const before = lanes;
    for (std::size_t lane = 0; lane < n; lane += 2 * step) {
      if (lane + step < n) lanes[lane] = before[lane] + before[lane + step];
    }
  }
  return lanes[0];
}

}  // namespace

TEST_CASE("tree_fold merges neighbouring pairs", "[codec][tree]") {
  for (int n = 1; n <= 300; ++n) {
    auto const text = tree_fold(
        n, [](int i) { return std::to_string(i); },
        [](std::string const& a, std::string const& b) { return "(" + a + "+" + b + ")"; });
    if (text != tree_of(0, n)) {
      CAPTURE(n);
      CHECK(text == tree_of(0, n));
    }
  }
  CHECK(tree_of(0, 5) == "(((0+1)+(2+3))+4)");
  int const large = 65535;
  CHECK(tree_fold(
            large, [](int i) { return static_cast<long>(i); }, [](long a, long b) { return a + b; }) ==
        65535L * 65534L / 2);
}

TEST_CASE("tree_sum equals the recursion and a warp's butterfly", "[codec][tree]") {
  number_source source(51);
  int differs = 0;
  for (int n = 1; n <= 200; ++n) {
    auto const x = source.bells(static_cast<std::size_t>(n), 1.7f, 0.3f);
    CHECK(bits_of(tree_sum(x.data(), n)) == bits_of(sum_of(x.data(), n)));
    if (n <= 32) CHECK(bits_of(tree_sum(x.data(), n)) == bits_of(butterfly(x)));
    float in_order = 0.0f;
    for (float const v : x)
      in_order += v;
    differs += bits_of(in_order) != bits_of(tree_sum(x.data(), n)) ? 1 : 0;
  }
  CHECK(differs > 20);  // the order is visible in this data
}
