// SPDX-License-Identifier: Apache-2.0
//! @file A bounded text in which a scheme says what it is; saved with a cache and compared on restore.
#pragma once

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

//! Text of at most `capacity` characters; what does not fit is cut, and `overflowed` says so.
struct description {
  static constexpr int capacity = 255;
  char text[capacity + 1] = {};
  int length = 0;
  bool overflowed = false;

  constexpr description& operator<<(char const* s) noexcept {
    for (; *s != '\0'; ++s) {
      if (length < capacity) {
        text[length++] = *s;
      } else {
        overflowed = true;
      }
    }
    return *this;
  }
  constexpr description& operator<<(std::int64_t n) noexcept {
    char digits[24] = {};
    int at = 23;
    std::uint64_t m =
        n < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(n) : static_cast<std::uint64_t>(n);
    do {
      digits[--at] = static_cast<char>('0' + m % 10);
      m /= 10;
    } while (m != 0);
    if (n < 0) digits[--at] = '-';
    return *this << digits + at;
  }
  friend constexpr bool operator==(description const& a, description const& b) noexcept {
    if (a.length != b.length) return false;
    for (int i = 0; i < a.length; ++i) {
      if (a.text[i] != b.text[i]) return false;
    }
    return true;
  }
};

//! Adds what T says of itself: T::describe(d) if it has one, else T::name.
template <class T>
constexpr void describe_as(description& d) noexcept {
  if constexpr (requires { T::describe(d); }) {
    T::describe(d);
  } else {
    d << T::name;
  }
}

}  // namespace kvcrumb::inline v0
