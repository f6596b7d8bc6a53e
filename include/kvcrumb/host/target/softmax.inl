// SPDX-License-Identifier: Apache-2.0
//! @file Scores to weights, and rows that are not packed. Included once per target by targets.hpp.

//! Scores below the cap, and -infinity where a key is not visible; `seen` holds -1 for visible keys, null:
//! all are. Then raises the state to the largest; factor is what earlier sums and outputs must be
//! multiplied with. False: no key is visible.
KVCRUMB_TARGET_INLINE bool raise(float* scores, int n, std::int32_t const* seen, float soft_cap,
                                 row_state& state, float& factor) noexcept {
  f32x16 top = splat(negative_infinity);
  float const cap = soft_cap * log2_e;
  for (int t = 0; t < n; t += 16) {
    f32x16 s = load(scores + t);
    if (cap > 0.0f) s = capped(s, cap);
    if (seen != nullptr) s = select(load(seen + t), s, splat(negative_infinity));
    store(scores + t, s);
    top = ops::maximum(top, s);
  }
  float const most = ops::largest(top);
  if (most == negative_infinity) return false;
  factor = state.raise(most);
  return true;
}
//! Scores become weights.
KVCRUMB_TARGET_INLINE void weigh(float* scores, int n, row_state& state) noexcept {
  f32x16 const base = splat(state.max);
  f32x16 sum{};
  for (int t = 0; t < n; t += 16) {
    f32x16 const weight = power_of_two(load(scores + t) - base);  // NaN of a NaN, so that it reaches the sum
    store(scores + t, weight);
    sum += weight;
  }
  state.sum += ops::sum(sum);
}

KVCRUMB_TARGET_INLINE void scale_row(float* row, int width, float factor) noexcept {
  for (int d = 0; d < width; d += 16)
    store(row + d, load(row + d) * splat(factor));
}

template <class Row>
KVCRUMB_TARGET_INLINE float dot_row(float const* q, Row const* k, int width) noexcept {
  f32x16 a{}, b{};
  for (int d = 0; d < width; d += 32) {
    a = ops::multiply_add(load(q + d), load(k + d), a);
    b = ops::multiply_add(load(q + d + 16), load(k + d + 16), b);
  }
  return ops::sum(a + b);
}
template <class Row>
KVCRUMB_TARGET_INLINE void add_row(float weight, Row const* v, float* o, int width) noexcept {
  for (int d = 0; d < width; d += 16)
    store(o + d, ops::multiply_add(load(v + d), splat(weight), load(o + d)));
}
