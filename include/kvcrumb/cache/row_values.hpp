// SPDX-License-Identifier: Apache-2.0
//! @file Which rows a cache accepts, finite values that its type of rows can hold, and what it makes of them.
#pragma once

#include <cstring>
#include <type_traits>

#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/view/rows_view.hpp"

namespace kvcrumb::inline v0::detail {

//! Ok if a value is finite and its magnitude, rounded to Row, at most max_row_magnitude.
template <storage_float Row, storage_float T>
constexpr status check_row_value(T value) noexcept {
  if (!is_finite(value)) return status::not_finite;
  float const kept = to_float(convert<Row>(value));
  return kept > max_row_magnitude || kept < -max_row_magnitude ? status::out_of_range : status::ok;
}

//! The largest pattern without a sign that check_row_value accepts. Patterns grow with the magnitude, and
//! infinities and NaN are beyond all others.
template <storage_float Row, storage_float T>
constexpr std::uint32_t largest_row_bits() noexcept {
  std::uint32_t accepted = 0, refused = float_format<T>::sign_bit;  // that is one more than any pattern
  while (refused - accepted > 1) {
    std::uint32_t const middle = accepted + (refused - accepted) / 2;
    (check_row_value<Row>(stored_from_bits<T>(middle)) == status::ok ? accepted : refused) = middle;
  }
  return accepted;
}

//! Whether a row has a value that check_row_value refuses. Eight bytes at a time: to each pattern without its
//! sign is added what brings the first refused one to the sign bit, so nothing is carried to a neighbour.
template <storage_float Row, storage_float T>
bool has_refused_value(T const* row, int head_dim) noexcept {
  constexpr int lanes = static_cast<int>(8 / sizeof(T));
  constexpr std::uint64_t ones = ~std::uint64_t{0} / (2 * std::uint64_t{float_format<T>::sign_bit} - 1);
  constexpr std::uint64_t sign = float_format<T>::sign_bit;
  constexpr std::uint64_t magnitudes = ones * (sign - 1),
                          add = ones * (sign - 1 - largest_row_bits<Row, T>());
  std::uint64_t sums = 0;
  int d = 0;
  for (; d + lanes <= head_dim; d += lanes) {
    std::uint64_t values = 0;
    std::memcpy(&values, row + d, sizeof values);
    sums |= (values & magnitudes) + add;
  }
  bool refused = (sums & (ones * sign)) != 0;
  for (; d < head_dim; ++d)
    refused |= (stored_bits(row[d]) & (sign - 1)) > largest_row_bits<Row, T>();
  return refused;
}

//! Ok if every value passes check_row_value; else what is wrong with the largest of the first bad row. Cost:
//! one pass.
template <storage_float Row, row_element T>
status check_row_values(rows_view<T> const& rows, int heads, std::int64_t count, int head_dim) noexcept {
  using type = std::remove_const_t<T>;
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < count; ++i) {
      type const* const row = rows.row(head, i);
      if (!has_refused_value<Row>(row, head_dim)) continue;
      std::uint32_t largest = 0;
      for (int d = 0; d < head_dim; ++d) {
        std::uint32_t const m = stored_bits(row[d]) & (float_format<type>::sign_bit - 1u);
        largest = m > largest ? m : largest;
      }
      return check_row_value<Row>(stored_from_bits<type>(largest));
    }
  }
  return status::ok;
}

//! Ok if keys and values [heads][count][head_dim] can be appended to a cache of `tokens` with rows of Row.
template <storage_float Row, row_element K, row_element V>
status check_new_rows(rows_view<K> const& keys, rows_view<V> const& values, int heads, std::int64_t tokens,
                      std::int64_t count, int head_dim) noexcept {
  constexpr std::int64_t limit = std::int64_t{1} << 40;
  if (count < 0) return status::bad_shape;
  if (count > limit || tokens > limit) return status::size_overflow;
  if (status const s = check_rows(keys, heads, count, head_dim); s != status::ok) return s;
  if (status const s = check_rows(values, heads, count, head_dim); s != status::ok) return s;
  if (status const s = check_row_values<Row>(keys, heads, count, head_dim); s != status::ok) return s;
  return check_row_values<Row>(values, heads, count, head_dim);
}

//! to.row(head, i) = from.row(head, i) as convert() rounds it.
template <storage_float To, row_element From>
void round_rows(rows_view<From> const& from, int heads, std::int64_t count, int head_dim,
                rows_view<To> const& to) noexcept {
  for (int head = 0; head < heads; ++head) {
    for (std::int64_t i = 0; i < count; ++i) {
      From* const x = from.row(head, i);
      if constexpr (std::is_same_v<From const, To const>) {
        std::memcpy(to.row(head, i), x, static_cast<std::size_t>(head_dim) * sizeof(To));
      } else {
        for (int d = 0; d < head_dim; ++d)
          to.row(head, i)[d] = convert<To>(x[d]);
      }
    }
  }
}

}  // namespace kvcrumb::inline v0::detail
