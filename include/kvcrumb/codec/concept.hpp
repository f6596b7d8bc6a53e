// SPDX-License-Identifier: Apache-2.0
//! @file What a codec is: scalar <-> code, given the parameters of a group.
#pragma once

#include <concepts>

#include "kvcrumb/description.hpp"
#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"

namespace kvcrumb::inline v0 {

//! Most parameters a group may store.
inline constexpr int max_planes = 2;

//! Parameters of one group as they are stored: `value[i]` is plane i after rounding to the storage type.
//! Codes are always computed against these rounded values (the ggml codecs excepted, whose published rule
//! differs; they keep what they need in `work`).
struct group_params {
  float value[max_planes] = {0.0f, 0.0f};
  float work = 0.0f;  //!< encoder scratch, never stored
};

//! Every codec decodes linearly in its parameters: x_hat = gain * unit(code) + bias. `unit` is the code
//! itself or a codebook level. That identity is what lets attention fold parameters into the query and the
//! weights.
struct linear_params {
  float gain = 1.0f;
  float bias = 0.0f;
};

//! A codec: `statistics` is a commutative monoid over the values of a group (merging is exact, or its order
//! is spelled out by `collect`), `fit` turns it into rounded parameters, `encode` and `unit` map scalars and
//! codes.
template <class C>
concept codec = requires(C const c, typename C::statistics s, group_params const p, description d) {
  { C::bits } -> std::convertible_to<int>;
  { C::planes } -> std::convertible_to<int>;
  { C::levels } -> std::convertible_to<int>;
  requires storage_float<typename C::param_type>;
  { c.lift(1.0f) } -> std::same_as<typename C::statistics>;
  { C::merge(s, s) } -> std::same_as<typename C::statistics>;
  { c.fit(s, 1) } -> std::same_as<group_params>;
  { c.encode(1.0f, p) } -> std::same_as<unsigned>;
  { c.unit(0u) } -> std::same_as<float>;
  { c.linear(p) } -> std::same_as<linear_params>;
  C::describe(d);
};

//! x_hat of one code.
template <codec C>
KVCRUMB_API float decode(C const& c, unsigned code, group_params const& p) noexcept {
  linear_params const l = c.linear(p);
  return add_rn(mul_rn(l.gain, c.unit(code)), l.bias);
}

//! Statistics of n >= 1 values in tree order; a codec whose merge is exactly associative (values kept in the
//! order of their index, grouped in any way) says so and is spared the tree.
template <codec C>
KVCRUMB_API typename C::statistics collect(C const& c, float const* x, int n) noexcept {
  if constexpr (requires { C::associative; }) {
    typename C::statistics total = c.lift(x[0]);
    for (int i = 1; i < n; ++i)
      total = C::merge(total, c.lift(x[i]));
    return total;
  } else {
    return tree_fold(
        n, [&](int i) { return c.lift(x[i]); }, [](auto a, auto b) { return C::merge(a, b); });
  }
}

//! Minimum and maximum; a NaN or infinity anywhere makes `finite` false.
struct range_statistics {
  float low = 0.0f;
  float high = 0.0f;
  bool finite = true;

  KVCRUMB_API static range_statistics of(float x) noexcept { return {x, x, is_finite_bits(x)}; }
  //! Which of two zeros is kept does not matter to `fit`; low and high mean nothing unless `finite`.
  KVCRUMB_API static range_statistics merged(range_statistics a, range_statistics b) noexcept {
    return {lesser(a.low, b.low), greater(a.high, b.high), a.finite && b.finite};
  }
};

//! Parameters of a group that held a NaN or an infinity: NaN in every plane, so that the damage stays
//! visible.
KVCRUMB_API group_params poisoned_params() noexcept {
  float const nan = float_from_bits(0x7FC00000u);
  return {{nan, nan}, nan};
}

}  // namespace kvcrumb::inline v0
