// SPDX-License-Identifier: Apache-2.0
//! @file Written to be compiled with -O3 -march=native -ffast-math -ffp-contract=fast (it passes without them
//! too): the results must be those of plain IEEE arithmetic. Expectations go through volatile doubles, one
//! operation each.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

//! Normal floats in (-4, 4): no denormal turns up, so the test does not depend on the flush modes that a link
//! with -ffast-math switches on.
std::vector<float> normal_values(std::size_t count, std::uint64_t seed) {
  std::vector<float> values(count);
  for (float& value : values) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    std::uint32_t const random = static_cast<std::uint32_t>(seed >> 32);
    std::uint32_t const bits = (random & 0x807FFFFFu) | ((122u + (random >> 24) % 7u) << 23);
    std::memcpy(&value, &bits, sizeof value);
  }
  return values;
}

//! One rounding to float of an exact or harmlessly rounded double.
float once(double x) {
  double volatile value = x;  // or the compiler narrows the operation that gave x to float
  float volatile rounded = static_cast<float>(value);
  return rounded;
}

constexpr std::size_t count = 20000;

}  // namespace

TEST_CASE("products and sums are not contracted in a loop", "[numeric][fast_math]") {
  std::vector<float> const a = normal_values(count, 1);
  std::vector<float> const b = normal_values(count, 2);
  std::vector<float> const c = normal_values(count, 3);
  std::vector<float> sums(count), differences(count), reordered(count);
  for (std::size_t i = 0; i < count; ++i)
    sums[i] = add_rn(mul_rn(a[i], b[i]), c[i]);
  for (std::size_t i = 0; i < count; ++i)
    differences[i] = sub_rn(mul_rn(a[i], b[i]), c[i]);
  for (std::size_t i = 0; i < count; ++i)
    reordered[i] = sub_rn(add_rn(a[i], c[i]), c[i]);
  std::size_t wrong = 0;
  std::size_t telling = 0;
  for (std::size_t i = 0; i < count; ++i) {
    double const product = static_cast<double>(once(static_cast<double>(a[i]) * static_cast<double>(b[i])));
    wrong += bits_of(sums[i]) != bits_of(once(product + static_cast<double>(c[i])));
    wrong += bits_of(differences[i]) != bits_of(once(product - static_cast<double>(c[i])));
    double const sum = static_cast<double>(once(static_cast<double>(a[i]) + static_cast<double>(c[i])));
    wrong += bits_of(reordered[i]) != bits_of(once(sum - static_cast<double>(c[i])));
    // The sum in double has too few bits for a rare tie only, and there is none in this data.
    double const exact = static_cast<double>(a[i]) * static_cast<double>(b[i]) + static_cast<double>(c[i]);
    float const fused = fma_rn(a[i], b[i], c[i]);
    wrong += bits_of(fused) != bits_of(once(exact));
    telling += bits_of(sums[i]) != bits_of(fused);
  }
  CHECK(wrong == 0);
  CHECK(telling > count / 20);  // contraction would have been seen
}

TEST_CASE("a division by a loop constant stays a division", "[numeric][fast_math]") {
  std::vector<float> const a = normal_values(count, 4);
  std::vector<float> const divisors = normal_values(16, 5);
  std::vector<float> quotients(count);
  std::size_t wrong = 0;
  std::size_t telling = 0;
  for (float const divisor : divisors) {
    for (std::size_t i = 0; i < count; ++i)
      quotients[i] = div_rn(a[i], divisor);
    float const reciprocal = div_rn(1.0f, divisor);
    for (std::size_t i = 0; i < count; ++i) {
      wrong +=
          bits_of(quotients[i]) != bits_of(once(static_cast<double>(a[i]) / static_cast<double>(divisor)));
      telling += bits_of(quotients[i]) != bits_of(mul_rn(a[i], reciprocal));
    }
  }
  CHECK(wrong == 0);
  CHECK(telling > count / 20);
}

TEST_CASE("sums of signed zeros and of equal values keep the rules of IEEE 754", "[numeric][fast_math]") {
  CHECK(bits_of(add_rn(-0.0f, 0.0f)) == 0u);
  CHECK(bits_of(add_rn(-0.0f, -0.0f)) == 0x80000000u);
  CHECK(bits_of(sub_rn(0.0f, 0.0f)) == 0u);
  CHECK(bits_of(mul_rn(-0.0f, 2.0f)) == 0x80000000u);
  CHECK(bits_of(sub_rn(0.0f, 3.0f)) == 0xC0400000u);
  CHECK(bits_of(div_rn(1.0f, 0.0f)) == 0x7F800000u);
  CHECK(bits_of(add_rn(add_rn(0x1p24f, 1.0f), -0x1p24f)) == 0u);
}

TEST_CASE("NaN and infinity are seen under finite-math-only", "[numeric][fast_math]") {
  std::uint32_t volatile nan_bits = 0x7FC00000u;
  std::uint32_t volatile inf_bits = 0x7F800000u;
  float const nan = float_from_bits(nan_bits);
  float const inf = float_from_bits(inf_bits);
  CHECK(is_nan_bits(nan));
  CHECK(is_nan(nan));
  CHECK(!is_nan_bits(inf));
  CHECK(!is_finite_bits(inf));
  CHECK(!is_finite(nan));
  CHECK(from_float<float16>(nan).bits == 0x7E00);
  CHECK(from_float<float16>(inf).bits == 0x7C00);
  CHECK(from_float<float8_e4m3>(nan).bits == 0x7F);
  CHECK(bits_of(minimum(1.0f, nan)) == 0x7FC00000u);
  CHECK(bits_of(maximum(nan, 1.0f)) == 0x7FC00000u);
  CHECK(bits_of(maximum(inf, 1.0f)) == 0x7F800000u);
}

TEST_CASE("conversions and roundings do not depend on the floating-point modes", "[numeric][fast_math]") {
  std::uint32_t volatile smallest = 1u;
  float const tiny = float_from_bits(smallest);
  CHECK(from_float_up<float16>(tiny).bits == 1);
  CHECK(from_float<bfloat16>(float_from_bits(smallest * 0x8001u)).bits == 1);
  CHECK(bits_of(to_float(bfloat16{1})) == 0x00010000u);
  std::size_t wrong = 0;
  for (std::uint32_t p = 0; p < 65536u; ++p) {
    float16 const h{static_cast<std::uint16_t>(p)};
    bfloat16 const b{static_cast<std::uint16_t>(p)};
    wrong += !is_nan(h) && from_float<float16>(to_float(h)) != h;
    wrong += !is_nan(b) && from_float<bfloat16>(to_float(b)) != b;
  }
  CHECK(wrong == 0);
  for (int k = -2000; k <= 2000; ++k) {  // x = k / 2
    float const x = static_cast<float>(k) * 0.5f;
    int const down = (k - (k & 1)) / 2;  // floor
    int const even = (k & 1) == 0 ? down : down + (down & 1);
    int const up = (k & 1) == 0 ? down : down + 1;
    int const away = (k & 1) == 0 ? down : (k > 0 ? down + 1 : down);
    wrong += round_half_even(x) != static_cast<float>(even);
    wrong += round_half_up(x) != static_cast<float>(up);
    wrong += round_half_away(x) != static_cast<float>(away);
  }
  CHECK(wrong == 0);
}
