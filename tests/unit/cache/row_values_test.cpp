// SPDX-License-Identifier: Apache-2.0
//! @file Which rows a cache accepts: eight bytes at a time the same as one value at a time.
#include "kvcrumb/cache/row_values.hpp"

#include <random>
#include <vector>

#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

//! Patterns of T: all of them, or for floats the neighbourhood of every power of two.
template <class T>
std::vector<std::uint32_t> patterns() {
  std::vector<std::uint32_t> all;
  if constexpr (sizeof(T) <= 2) {
    for (std::uint32_t p = 0; p < 2 * float_format<T>::sign_bit; ++p)
      all.push_back(p);
  } else {
    for (std::uint32_t exponent = 0; exponent < 512; ++exponent) {
      for (std::uint32_t near = 0; near < 8; ++near)
        all.push_back((exponent << 23) + near - 4);  // below zero: the largest NaN
    }
    std::uint32_t const limit = detail::largest_row_bits<float16, float>();
    for (std::uint32_t near = 0; near < 8; ++near)
      all.push_back(limit + near - 4);
  }
  return all;
}

template <class Row, class T>
void check_pair() {
  CAPTURE(storage_name<Row>(), storage_name<T>());
  constexpr int width = 19;  // whole words and what is left over
  std::vector<std::uint32_t> const all = patterns<T>();
  std::vector<T> row(width);
  for (T& x : row)
    x = from_float<T>(-1.5f);
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    T const value = stored_from_bits<T>(all[i]);
    T& at = row[i % width];
    T const before = at;
    at = value;
    status const expected = detail::check_row_value<Row>(value);
    wrong += detail::has_refused_value<Row>(row.data(), width) != (expected != status::ok);
    rows_view<T const> const view{row.data(), 0, width};
    wrong += detail::check_row_values<Row>(view, 1, 1, width) != expected;
    at = before;
  }
  CHECK(wrong == 0);
}

template <class Row>
void check_row_type() {
  check_pair<Row, float>();
  check_pair<Row, float16>();
  check_pair<Row, bfloat16>();
  check_pair<Row, float8_e4m3>();
}

}  // namespace

TEST_CASE("a value is refused at every place of a row, and only if it must be", "[cache][checks]") {
  check_row_type<float>();
  check_row_type<float16>();
  check_row_type<bfloat16>();
  check_row_type<float8_e4m3>();
}

TEST_CASE("the largest accepted value is the largest that fits", "[cache][checks]") {
  CHECK(detail::largest_row_bits<float16, float16>() == 0x7BFF);
  CHECK(detail::largest_row_bits<float16, float>() == float_bits(65519.996f));  // 65520 rounds to infinity
  CHECK(detail::largest_row_bits<float, float>() == float_bits(max_row_magnitude));
  CHECK(detail::largest_row_bits<float, bfloat16>() == from_float<bfloat16>(max_row_magnitude).bits);
}

TEST_CASE("of the first bad row the largest value says what is wrong", "[cache][checks]") {
  std::vector<float> rows(4 * 24, 1.0f);
  auto const check = [&] {
    return detail::check_row_values<float16>(hnd_rows(rows.data(), 2, 24), 2, 2, 24);
  };
  CHECK(check() == status::ok);
  rows[90] = -float_from_bits(0x7F800000);  // second head, second row
  CHECK(check() == status::not_finite);
  rows[60] = 1.0e6f;  // the row before it
  CHECK(check() == status::out_of_range);
  rows[61] = float_from_bits(0x7FC00000);
  CHECK(check() == status::not_finite);
}
