// SPDX-License-Identifier: Apache-2.0
//! @file result: a value, or the sentence that tells a person why there is none.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace kvcrumb_compare {

//! Why something was refused. Converts to any `result`.
struct failure {
  std::string text;
};

//! Holds a value or an error text, never both. (std::expected is C++23.)
template <class T>
struct result {
  std::optional<T> value;
  std::string error;  //!< empty if and only if `value` is there

  result(T v) : value(std::move(v)) {}             // NOLINT(google-explicit-constructor)
  result(failure f) : error(std::move(f.text)) {}  // NOLINT(google-explicit-constructor)

  explicit operator bool() const noexcept { return value.has_value(); }
  T& operator*() { return *value; }
  T const& operator*() const { return *value; }
  T* operator->() { return &*value; }
  T const* operator->() const { return &*value; }
};

}  // namespace kvcrumb_compare
