// SPDX-License-Identifier: Apache-2.0
//! @file reference rounding to fp16, bf16, e4m3 and fp32 against values worked out on paper and exhaustively.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "kvcrumb/reference/storage.hpp"
#include "support/catch.hpp"

namespace ref = kvcrumb::reference;

namespace {
double const infinity = std::numeric_limits<double>::infinity();
double const not_a_number = std::numeric_limits<double>::quiet_NaN();
double power_of_two(int e) { return std::ldexp(1.0, e); }
}  // namespace

TEST_CASE("fp16 rounds to nearest with ties to even", "[reference][storage]") {
  CHECK(ref::fp16_bits(1.0) == 0x3C00);
  CHECK(ref::fp16_bits(-2.0) == 0xC000);
  CHECK(ref::fp16_bits(0.0) == 0x0000);
  CHECK(ref::fp16_bits(-0.0) == 0x8000);
  CHECK(ref::fp16_bits(0.1) == 0x2E66);  // 0.1 = 1.6 * 2^-4; 1.6 * 1024 = 1638.4 -> 1638 = 0x400 + 0x266
  CHECK(ref::to_fp16(1.0 + power_of_two(-11)) == 1.0);                            // tie, even below
  CHECK(ref::to_fp16(1.0 + 3.0 * power_of_two(-11)) == 1.0 + power_of_two(-9));   // tie, even above
  CHECK(ref::to_fp16(1.0 + 1.01 * power_of_two(-11)) == 1.0 + power_of_two(-10));  // past the tie
  CHECK(ref::fp16_bits(65504.0) == 0x7BFF);
  CHECK(ref::fp16_bits(65519.99) == 0x7BFF);
  CHECK(ref::fp16_bits(65520.0) == 0x7C00);  // middle of 65504 and 65536: infinity
  CHECK(ref::to_fp16(-65520.0) == -infinity);
  CHECK(ref::fp16_bits(power_of_two(-24)) == 0x0001);
  CHECK(ref::fp16_bits(power_of_two(-25)) == 0x0000);        // tie of 0 and 1 step
  CHECK(ref::fp16_bits(3.0 * power_of_two(-25)) == 0x0002);  // tie of 1 and 2 steps
  CHECK(ref::fp16_bits(1023.5 * power_of_two(-24)) == 0x0400);  // subnormal rounds to the first normal
  CHECK(ref::fp16_bits(2047.5 * power_of_two(-10)) == 0x4000);  // rounds into the next binade
  CHECK(ref::fp16_bits(not_a_number) == 0x7E00);
  CHECK(ref::fp16_bits(-not_a_number) == 0xFE00);
  CHECK(ref::fp16_bits(1e308) == 0x7C00);
  CHECK(ref::fp16_bits(std::numeric_limits<double>::max()) == 0x7C00);
  CHECK(ref::fp16_bits(5e-324) == 0x0000);
}

TEST_CASE("bf16 rounds to nearest with ties to even", "[reference][storage]") {
  CHECK(ref::bf16_bits(1.0) == 0x3F80);
  CHECK(ref::bf16_bits(3.14159) == 0x4049);  // 1.570795 * 2; 0.570795 * 128 = 73.06 -> 0x49
  CHECK(ref::to_bf16(1.0 + power_of_two(-8)) == 1.0);
  CHECK(ref::to_bf16(1.0 + 3.0 * power_of_two(-8)) == 1.0 + power_of_two(-6));
  CHECK(ref::bf16_bits(3.396e38) == 0x7F7F);  // below the middle, 3.39617e38
  CHECK(ref::bf16_bits(3.4e38) == 0x7F80);
  CHECK(ref::bf16_bits(power_of_two(-133)) == 0x0001);
  CHECK(ref::bf16_bits(not_a_number) == 0x7FC0);
  CHECK(ref::bf16_bits(-1.0) == 0xBF80);
}

TEST_CASE("e4m3 rounds to nearest, has no infinity and one NaN", "[reference][storage]") {
  CHECK(ref::e4m3_bits(1.0) == 0x38);
  CHECK(ref::e4m3_bits(0.1) == 0x1D);  // 1.6 * 2^-4; 0.6 * 8 = 4.8 -> 5; exponent -4 + 7 = 3
  CHECK(ref::to_e4m3(0.1) == 0.1015625);
  CHECK(ref::e4m3_bits(448.0) == 0x7E);
  CHECK(ref::e4m3_bits(464.0) == 0x7E);  // tie of 448 (even) and 480, which is not a number of the format
  CHECK(ref::e4m3_bits(464.5) == 0x7F);
  CHECK(ref::e4m3_bits(infinity) == 0x7F);
  CHECK(ref::e4m3_bits(-infinity) == 0xFF);
  CHECK(std::isnan(ref::to_e4m3(1000.0)));
  CHECK(ref::e4m3_bits(-448.0) == 0xFE);
  CHECK(ref::e4m3_bits(power_of_two(-9)) == 0x01);
  CHECK(ref::e4m3_bits(power_of_two(-10)) == 0x00);
  CHECK(ref::e4m3_bits(1.5 * power_of_two(-9)) == 0x02);
  CHECK(ref::e4m3_bits(7.5 * power_of_two(-9)) == 0x08);  // first normal, 2^-6
}

TEST_CASE("directed rounding brackets the number and saturates", "[reference][storage]") {
  auto const down = [](double x) { return ref::round_to(ref::fp16_format, x, ref::rounding::down); };
  auto const up = [](double x) { return ref::round_to(ref::fp16_format, x, ref::rounding::up); };
  CHECK(down(1.0).value == 1.0);
  CHECK(up(1.0).value == 1.0);
  CHECK(down(1.0 + power_of_two(-20)).value == 1.0);
  CHECK(up(1.0 + power_of_two(-20)).value == 1.0 + power_of_two(-10));
  CHECK(down(-1.0 - power_of_two(-20)).value == -1.0 - power_of_two(-10));
  CHECK(up(-1.0 - power_of_two(-20)).value == -1.0);
  CHECK(up(1e-30).bits == 0x0001);
  CHECK(down(1e-30).bits == 0x0000);
  CHECK(down(-1e-30).bits == 0x8001);
  CHECK(up(-1e-30).bits == 0x8000);
  CHECK(up(1e6).value == 65504.0);
  CHECK(down(infinity).value == 65504.0);
  CHECK(up(-infinity).value == -65504.0);
  CHECK(up(65504.5).value == 65504.0);
  CHECK(std::isnan(up(not_a_number).value));
  CHECK(ref::round_to(ref::e4m3_format, 500.0, ref::rounding::up).bits == 0x7E);
}

TEST_CASE("every pattern survives decoding and rounding, and ties go to even", "[reference][storage]") {
  auto const walk = [](ref::float_format const& format, std::uint32_t largest_finite,
                       std::uint32_t sign_bit) {
    int wrong = 0;
    for (std::uint32_t bits = 0; bits <= largest_finite; ++bits) {
      double const value = ref::value_of(format, bits);
      wrong += ref::round_to(format, value).bits != bits ? 1 : 0;
      wrong += ref::round_to(format, value).value != value ? 1 : 0;
      wrong += ref::round_to(format, -value).bits != (bits | sign_bit) ? 1 : 0;
      wrong += ref::value_of(format, bits | sign_bit) != -value ? 1 : 0;
      if (bits == largest_finite) { break; }
      double const above = ref::value_of(format, bits + 1);
      double const middle = 0.5 * (value + above);  // exact in double
      std::uint32_t const even = bits % 2 == 0 ? bits : bits + 1;
      wrong += value < above ? 0 : 1;
      wrong += ref::round_to(format, middle).bits != even ? 1 : 0;
      wrong += ref::round_to(format, std::nextafter(middle, -infinity)).bits != bits ? 1 : 0;
      wrong += ref::round_to(format, std::nextafter(middle, infinity)).bits != bits + 1 ? 1 : 0;
    }
    return wrong;
  };
  CHECK(walk(ref::fp16_format, 0x7BFF, 0x8000) == 0);
  CHECK(walk(ref::bf16_format, 0x7F7F, 0x8000) == 0);
  CHECK(walk(ref::e4m3_format, 0x7E, 0x80) == 0);
  CHECK(ref::value_of(ref::fp16_format, 0x7C00) == infinity);
  CHECK(std::isnan(ref::value_of(ref::fp16_format, 0x7C01)));
  CHECK(std::isnan(ref::value_of(ref::e4m3_format, 0x7F)));
  CHECK(std::isnan(ref::value_of(ref::e4m3_format, 0xFF)));
}

TEST_CASE("fp32 rounding agrees with the machine's conversion", "[reference][storage]") {
  std::mt19937_64 generator(7);
  int wrong = 0;
  for (int i = 0; i < 20000; ++i) {
    // Random significand; exponents -160 ... 139 cover underflow, subnormals and overflow of fp32.
    double const fraction = 1.0 + std::ldexp(static_cast<double>(generator() >> 12), -52);
    double const x = std::ldexp(fraction, static_cast<int>(generator() % 300) - 160);
    double const signed_x = (generator() & 1) != 0 ? -x : x;
    std::uint32_t const expected = std::bit_cast<std::uint32_t>(static_cast<float>(signed_x));
    wrong += ref::round_to(ref::fp32_format, signed_x).bits != expected ? 1 : 0;
  }
  CHECK(wrong == 0);
  CHECK(ref::to_fp32(1.0 + power_of_two(-24)) == 1.0);
  CHECK(ref::to_fp32(1.0 + 3.0 * power_of_two(-24)) == 1.0 + power_of_two(-22));
}

TEST_CASE("integers are rounded half to even and half away", "[reference][storage]") {
  CHECK(ref::round_half_even(0.5) == 0.0);
  CHECK(ref::round_half_even(1.5) == 2.0);
  CHECK(ref::round_half_even(2.5) == 2.0);
  CHECK(ref::round_half_even(-0.5) == 0.0);
  CHECK(ref::round_half_even(-1.5) == -2.0);
  CHECK(ref::round_half_even(2.49) == 2.0);
  CHECK(ref::round_half_even(2.51) == 3.0);
  CHECK(ref::round_half_away(0.5) == 1.0);
  CHECK(ref::round_half_away(2.5) == 3.0);
  CHECK(ref::round_half_away(-2.5) == -3.0);
  CHECK(ref::round_half_away(-2.49) == -2.0);
  CHECK(ref::code_half_even(-3.0, 15) == 0);
  CHECK(ref::code_half_even(2.5, 15) == 2);
  CHECK(ref::code_half_even(15.4, 15) == 15);
  CHECK(ref::code_half_even(infinity, 15) == 15);
  CHECK(ref::code_half_even(not_a_number, 15) == 0);
}
