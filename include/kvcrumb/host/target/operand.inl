// SPDX-License-Identifier: Apache-2.0
//! @file Parameters, and values rounded to two bytes: what the operand of a product is made of. Included once
//! per target by targets.hpp.

//! Gains and biases of sixteen groups; `bytes` are from one plane of parameters to the next.
template <class Format>
struct params16 {
  f32x16 gain, bias;
  static KVCRUMB_TARGET_INLINE params16 at(std::byte const* p, std::int64_t bytes, float multiple) noexcept {
    using param_type = typename Format::param_type;
    constexpr bias_form form = Format::bias;
    params16 v;
    v.gain = load_stored(p, param_type{});
    if constexpr (form == bias_form::multiple) {
      v.bias = v.gain * splat(multiple);
    } else {
      v.bias = load_stored(p + bytes, param_type{});
      if constexpr (form == bias_form::half_cell) v.bias = ops::multiply_add(v.gain, splat(0.5f), v.bias);
      if constexpr (form == bias_form::point) v.bias = -(v.bias * v.gain);
    }
    return v;
  }
};

//! What values of at most `largest` in magnitude (a bit pattern) are divided by so that 15 bits hold them; 0
//! if they are below 1e-33, where it would be denormal.
KVCRUMB_TARGET_INLINE float scale_of(std::int32_t largest) noexcept {
  float const top = float_from_bits(static_cast<std::uint32_t>(largest));
  return top >= 1e-33f ? top * (1.0f / 32512.0f) : 0.0f;
}

//! Splits n values x (a multiple of 64) into two bytes each, x = scale * (256 high + low) + a rest, |x /
//! scale| <= 32512. Returns the sum of the rests, NaN if x is not finite.
KVCRUMB_TARGET_INLINE f32x16 split_terms(float const* x, int n, float scale, std::int8_t* high,
                                         std::int8_t* low) noexcept {
  f32x16 rest{};
  f32x16 const by = splat(scale == 0.0f ? 0.0f : 1.0f / scale), back = splat(-scale);
  for (int i = 0; i < n; i += 64) {
    i32x16 v[4];
    KVCRUMB_TARGET_UNROLL
    for (int j = 0; j < 4; ++j) {
      f32x16 const value = load(x + i + 16 * j);
      v[j] = ops::round(value * by);
      rest += ops::multiply_add(to_floats(v[j]), back, value);
    }
    store_terms(v, high + i, low + i);
  }
  return rest;
}

//! Scales and constants of 8 rows each become factors of the rows of a 16-row vector in operand order.
KVCRUMB_TARGET_INLINE f32x16 spread_rows(float const* eights, int row, bool equal) noexcept {
  float const* const of_block = eights + (row & ~31) / 8;
  return equal ? splat(of_block[0]) : ops::spread(of_block);
}

//! -1 where the column at operand places first, first + 1, ... lies in [begin, end).
KVCRUMB_TARGET_INLINE i32x16 columns_between(int first, int begin, int end) noexcept {
  std::int32_t places[16];
  for (int i = 0; i < 16; ++i)
    places[i] = operand_place(first + i);
  i32x16 const place = load(places);
  return (place >= filled<i32x16>(begin)) & (place < filled<i32x16>(end));
}
