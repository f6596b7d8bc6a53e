// SPDX-License-Identifier: Apache-2.0
//! @file The scalar instructions of the emulator against the library's own conversions and against
//! definitions.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "unit/simt/simt_tools.hpp"
// after the emulator
#include "kvcrumb/numeric/storage_float.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

//! Patterns spread over all exponents and both signs, with those next to the rounding boundaries of fp16.
std::vector<std::uint32_t> float_patterns() {
  std::vector<std::uint32_t> all;
  for (std::uint32_t h = 0; h < 0x7C00u; ++h) {
    std::uint32_t const exact = float_bits(to_float(float16{static_cast<std::uint16_t>(h)}));
    std::uint32_t const half_way =
        float_bits((to_float(float16{static_cast<std::uint16_t>(h)}) +
                    (h + 1 < 0x7C00u ? to_float(float16{static_cast<std::uint16_t>(h + 1)}) : 65536.0f)) /
                   2);
    for (std::uint32_t const x : {exact, half_way}) {
      for (std::uint32_t const y : {x, x + 1, x == 0 ? x : x - 1}) {
        all.push_back(y);
        all.push_back(y | 0x80000000u);
      }
    }
  }
  for (std::uint64_t x = 0; x < 0x100000000u; x += 99991) {
    all.push_back(static_cast<std::uint32_t>(x));
  }
  return all;
}

//! Equal patterns, where every NaN equals every other.
bool same_half(std::uint32_t a, std::uint32_t b) {
  bool const both_nan = (a & 0x7FFFu) > 0x7C00u && (b & 0x7FFFu) > 0x7C00u;
  return a == b || both_nan;
}

}  // namespace

TEST_CASE("fp16 patterns have the values that the library gives them", "[simt]") {
  int wrong = 0;
  for (std::uint32_t h = 0; h < 65536; ++h) {
    float const expected = to_float(float16{static_cast<std::uint16_t>(h)});
    float const low = ptx::low_half(h | 0xABCD0000u), high = ptx::high_half(h << 16 | 0x1234u);
    bool const nan = (h & 0x7FFFu) > 0x7C00u;
    wrong += nan ? !(std::isnan(low) && std::isnan(high))
                 : float_bits(low) != float_bits(expected) || float_bits(high) != float_bits(expected);
  }
  CHECK(wrong == 0);
}

TEST_CASE("pack_half2 rounds as the library does, with one NaN", "[simt]") {
  int wrong = 0;
  for (std::uint32_t const bits : float_patterns()) {
    float const x = std::bit_cast<float>(bits);
    std::uint32_t const expected = std::isnan(x) ? 0x7FFFu : std::uint32_t{from_float<float16>(x).bits};
    wrong += ptx::pack_half2(x, 1.0f) != (expected | 0x3C000000u);
    wrong += ptx::pack_half2(1.0f, x) != (expected << 16 | 0x3C00u);
  }
  CHECK(wrong == 0);
  CHECK(ptx::pack_half2(65519.996f, 65520.0f) == 0x7C007BFFu);
  CHECK(ptx::pack_half2(0x1p-25f, 0x1.000002p-25f) == 0x00010000u);
}

TEST_CASE("multiply_half2 rounds the exact product once and keeps subnormals", "[simt]") {
  int wrong = 0;
  std::uint32_t random = 1;
  for (int i = 0; i < 300000; ++i) {
    std::uint32_t const a = random = random * 1664525u + 1013904223u;
    std::uint32_t const b = random = random * 1664525u + 1013904223u;
    std::uint32_t const p = ptx::multiply_half2(a >> 3, b >> 5);
    for (int s = 0; s < 32; s += 16) {
      auto const value = [s](std::uint32_t x) {
        return static_cast<double>(to_float(float16{static_cast<std::uint16_t>(x >> s)}));
      };
      // exact in a float: 22 bits, at least 2^-48
      auto const product = static_cast<float>(value(a >> 3) * value(b >> 5));
      wrong += !same_half(from_float<float16>(product).bits, (p >> s) & 0xFFFFu);
    }
  }
  CHECK(wrong == 0);
  CHECK(ptx::multiply_half2(0x00013C00u, 0x38000001u) == 0x00000001u);  // half of the smallest: tie to even
  CHECK(ptx::multiply_half2(0x7C000400u, 0x00003800u) == 0x7FFF0200u);  // inf * 0; a subnormal result
}

TEST_CASE("E4M3 is converted exactly", "[simt]") {
  int wrong = 0;
  for (std::uint32_t x = 0; x < 65536; ++x) {
    std::uint32_t const r = ptx::half2_from_e4m3x2(x | 0xFFFF0000u);
    for (int i = 0; i < 2; ++i) {
      float const value = to_float(float8_e4m3{static_cast<std::uint8_t>(x >> (8 * i))});
      std::uint32_t const half = (r >> (16 * i)) & 0xFFFFu;
      wrong += std::isnan(value) ? half != 0x7FFFu : half != from_float<float16>(value).bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("permute_bytes is prmt in its default mode", "[simt]") {
  std::uint32_t const a = 0x83020180u, b = 0x87067F04u;
  CHECK(ptx::permute_bytes(a, b, 0x3210u) == a);
  CHECK(ptx::permute_bytes(a, b, 0x7654u) == b);
  CHECK(ptx::permute_bytes(a, b, 0x0527u) == 0x807F0287u);
  CHECK(ptx::permute_bytes(a, b, 0x8F9Du) == 0xFFFF0000u);  // the sign bits of bytes 0, 7, 1, 5
  CHECK(ptx::permute_bytes(a, b, 0xFFFF3210u) == a);        // only the low four digits count
}

TEST_CASE("exp2_approximate is 2^x without subnormal results", "[simt]") {
  CHECK(ptx::exp2_approximate(3.0f) == 8.0f);
  CHECK(ptx::exp2_approximate(-126.0f) == 0x1p-126f);
  CHECK(ptx::exp2_approximate(-126.5f) == 0.0f);
  CHECK(ptx::exp2_approximate(0x1p-149f) == 1.0f);
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(ptx::exp2_approximate(-infinity) == 0.0f);
  CHECK(ptx::exp2_approximate(128.0f) == infinity);
  CHECK(std::isnan(ptx::exp2_approximate(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("reciprocal_approximate treats subnormals as zeros", "[simt]") {
  float const infinity = std::numeric_limits<float>::infinity();
  CHECK(ptx::reciprocal_approximate(3.0f) == 1.0f / 3.0f);
  CHECK(ptx::reciprocal_approximate(0x1p-127f) == infinity);
  CHECK(ptx::reciprocal_approximate(-0.0f) == -infinity);
  CHECK(ptx::reciprocal_approximate(-0x1p127f) == 0.0f);
  CHECK(ptx::reciprocal_approximate(infinity) == 0.0f);
}

TEST_CASE("bit functions count as CUDA's do", "[simt]") {
  CHECK(__popc(0xF0F0u) == 8);
  CHECK(__popcll(0x8000000000000001u) == 2);
  CHECK(__clz(0) == 32);
  CHECK(__clz(1) == 31);
  CHECK(__ffs(0) == 0);
  CHECK(__ffs(8) == 4);
  CHECK(__brev(0x00000003u) == 0xC0000000u);
  CHECK(__float_as_uint(1.0f) == 0x3F800000u);
  CHECK(__int_as_float(__float_as_int(-2.5f)) == -2.5f);
}
