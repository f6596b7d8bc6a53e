// SPDX-License-Identifier: Apache-2.0
//! @file Rows of one type as rows of another, finite values. Included once per target by targets.hpp.

KVCRUMB_TARGET_INLINE void store_rounded(float* to, f32x16 const& v) noexcept { store_as(to, v); }
KVCRUMB_TARGET_INLINE void store_rounded(float16* to, f32x16 const& v) noexcept {
  store_as(to, encode_ops::half_of(v));
}
KVCRUMB_TARGET_INLINE void store_rounded(bfloat16* to, f32x16 const& v) noexcept {
  i32x16 const bits = bits_of(v), odd = (bits >> 16) & 1;
  store_as(to, encode_ops::low_halves((bits + (odd + 0x7FFF)) >> 16));
}

//! Rows [0, count) of one head, to the nearest, ties to even.
template <class From, class To>
void round_rows_of(rows_view<From const> from, std::int64_t count, int width, rows_view<To> to) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    From const* const x = from.row(0, i);
    To* const y = to.row(0, i);
    int d = 0;
    for (; d + 16 <= width; d += 16)
      store_rounded(y + d, load(x + d));
    for (; d < width; ++d)
      y[d] = kvcrumb::convert<To>(x[d]);
  }
}
