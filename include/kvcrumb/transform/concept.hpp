// SPDX-License-Identifier: Apache-2.0
//! @file What a transform is: a change of basis before encoding, with its dual on queries and outputs.
#pragma once

#include <concepts>

#include "kvcrumb/numeric/arithmetic.hpp"

namespace kvcrumb::inline v0 {

//! A transform of rows x of one kv head:
//!   forward(head, D, x)            x' = T(x), in place, before encoding (keys and values)
//!   query(head, D, q) -> offset    q' in place so that <q, x> = <q', T(x)> + offset
//!   inverse(head, D, o, sum)       o = sum_t w_t x'_t becomes sum_t w_t x_t, where sum = sum_t w_t
//! `id()` distinguishes states that change bytes; it is saved with a cache (0 for stateless transforms).
template <class T>
concept transform = requires(T const t, float* row) {
  { T::name } -> std::convertible_to<char const*>;
  t.forward(0, 128, row);
  { t.query(0, 128, row) } -> std::same_as<float>;
  t.inverse(0, 128, row, 1.0f);
  { t.id(1, 128) } -> std::same_as<std::uint64_t>;
};

}  // namespace kvcrumb::inline v0
