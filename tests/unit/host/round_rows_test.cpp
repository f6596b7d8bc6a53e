// SPDX-License-Identifier: Apache-2.0
//! @file Rows rounded with vector instructions are those that convert() gives, bit for bit.
#include <random>

#include "kvcrumb/host/vector_encoder.hpp"
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Finite values of From that To can hold, in random order.
template <class To, class From>
std::vector<From> values() {
  std::mt19937 random(7);
  std::vector<From> all;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    std::uint32_t bits = i;
    if constexpr (sizeof(From) == 4) {
      bits = static_cast<std::uint32_t>(random());
      // Every second one is near a tie, or one, of binary16 or bfloat16.
      if (i % 2 == 0)
        bits = (bits & ((i & 2) != 0 ? 0xFFFFE000u : 0xFFFF0000u)) + ((i & 2) != 0 ? 0x0FFFu : 0x7FFFu) +
               i / 4 % 3;
      if (i % 8 < 4) bits = (bits & 0x87FFFFFFu) | 0x38000000u;  // where binary16 has its numbers
    }
    From const x = stored_from_bits<From>(bits);
    if (is_finite(x) && is_finite(convert<To>(x))) all.push_back(x);
  }
  std::shuffle(all.begin(), all.end(), random);
  return all;
}

template <class To, class From>
void check_rounding(host::execution const& how) {
  CAPTURE(storage_name<From>(), storage_name<To>(), host::to_string(how.isa));
  std::vector<From> const all = values<To, From>();
  host::vector_encoder encoder{how};
  for (int const width : {128, 64, 72, 7}) {  // whole vectors, and a rest
    int const heads = 2;
    std::int64_t const rows = static_cast<std::int64_t>(all.size()) / (heads * width), gap = 3;
    To const untouched = stored_from_bits<To>(0x5A);
    std::vector<To> got(static_cast<std::size_t>(heads * rows * (width + gap)), untouched);
    encoder.round(rows_view<From const>{all.data(), rows * width, width}, heads, rows, width,
                  rows_view<To>{got.data(), rows * (width + gap), width + gap});
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < heads * rows; ++i) {
      for (std::int64_t d = 0; d < width + gap; ++d) {
        To const expected = d < width ? convert<To>(all[static_cast<std::size_t>(i * width + d)]) : untouched;
        wrong += stored_bits(got[static_cast<std::size_t>(i * (width + gap) + d)]) != stored_bits(expected);
      }
    }
    CAPTURE(width);
    CHECK(wrong == 0);
  }
}

template <class To>
void check_to(host::execution const& how) {
  check_rounding<To, float>(how);
  check_rounding<To, float16>(how);
  check_rounding<To, bfloat16>(how);
  check_rounding<To, float8_e4m3>(how);
}

}  // namespace

TEST_CASE("rows are rounded as one value at a time", "[host][encode]") {
  for (host::execution const& how : test::all_instruction_sets()) {
    check_to<float16>(how);
    check_to<bfloat16>(how);
    check_to<float>(how);
  }
}
