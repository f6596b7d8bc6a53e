// SPDX-License-Identifier: Apache-2.0
//! @file Few codes of two-byte rows without a division for each value: codes grow with the value, so a group
//! has one largest value for each code, and it is found with the codec's own steps. Included once per target
//! by targets.hpp.

//! The largest ordered_key of a two-byte float, within [-limit - 1, limit], for which `reaches` is false;
//! limit is the key of infinity. `reaches` is false up to some key and true above it. Looks around `guess`
//! first.
template <class Reaches>
KVCRUMB_TARGET_INLINE i32x16 last_below(Reaches const& reaches, i32x16 const& guess, int limit) noexcept {
  i32x16 below = filled<i32x16>(-limit - 2),
         above = filled<i32x16>(limit + 1);  // outside: nothing reaches, everything does
  i32x16 at =
      encode_ops::larger(encode_ops::smaller(guess, filled<i32x16>(limit)), filled<i32x16>(-limit - 1));
  for (int step = 1;; step += step) {
    i32x16 const yes = reaches(at);
    above = encode_ops::smaller(above, (yes & at) | (~yes & above));
    below = encode_ops::larger(below, (~yes & at) | (yes & below));
    if (!encode_ops::any(encode_ops::above(above - below, filled<i32x16>(1)))) return below;
    i32x16 const next = (yes & (at - step)) | (~yes & (at + step));
    i32x16 const middle = (above + below) >> 1;
    i32x16 const inside = encode_ops::above(next, below) & encode_ops::above(above, next);
    at = (inside & next) | (~inside & middle);
  }
}

//! Floats of keys of two-byte floats.
template <class Row>
KVCRUMB_TARGET_INLINE f32x16 of_short_key(i32x16 const& key) noexcept {
  return floats_of_bits<Row>(encode_ops::low_halves(key ^ ((key >> 31) & 0x7FFF)));
}
//! The key of the float of Row nearest to x (any near one would do).
template <class Row>
KVCRUMB_TARGET_INLINE i32x16 short_key(f32x16 const& x) noexcept {
  i32x16 h;
  if constexpr (std::is_same_v<Row, float16>) {
    h = encode_ops::sign_extended(encode_ops::half_of(x));
  } else {
    h = bits_of(x) >> 16;
  }
  return h ^ ((h >> 31) & 0x7FFF);
}

//! Whether the code of a value, given by its key, is at least `code`.
template <class Codec, class Row>
struct reaches_code {
  Codec const& codec;
  codebook_steps const& steps;
  group_params16 const& params;
  int code;
  KVCRUMB_TARGET_INLINE i32x16 operator()(i32x16 const& key) const noexcept {
    constexpr bool half_rows = std::is_same_v<Row, float16>;
    return above(codec16<Codec>::template encode<half_rows>(codec, steps, of_short_key<Row>(key), params),
                 code - 1);
  }
};

//! The key of the largest number of Row below x + rest (|rest| at most half a unit of x), or at it where `at`
//! is set.
template <class Row>
KVCRUMB_TARGET_INLINE i32x16 key_below(f32x16 const& x, f32x16 const& rest, i32x16 const& at) noexcept {
  i32x16 const close = short_key<Row>(x);
  i32x16 const over =
      key_of(encode_ops::sub(encode_ops::sub(of_short_key<Row>(close), x), rest));  // exact, or as good
  // over > 0: the near number is above; -1 and 0 are zeros.
  return close + above(over, 0) + (above(over, -2) & ~above(over, 0) & ~at);
}

//! A quotient from which on codes are at least `code`, and whether that quotient itself does.
struct code_boundary {
  float quotient;
  bool reaches;
  static constexpr code_boundary of(rounding round, int code) noexcept {
    if (round == rounding::floor_cell) return {static_cast<float>(code), true};
    return {static_cast<float>(code) - 0.5f, round != rounding::half_even || code % 2 == 0};
  }
};

//! The key of the largest value of Row whose code is below `code`. Exact in binary16 arithmetic (is_exact),
//! and otherwise a guess that is nearly always right.
template <class Codec, class Row>
inline constexpr bool is_exact =
    Codec::options.precision == arithmetic::binary16&& Codec::options.zero ==
    zero_form::minimum&& Codec::options.division == quotient::divide&& std::is_same_v<Row, float16>;
template <class Codec, class Row>
KVCRUMB_TARGET_INLINE i32x16 guess_threshold(group_params16 const& p, int code) noexcept {
  constexpr affine_options o = Codec::options;
  code_boundary const b = code_boundary::of(o.round, code);
  i32x16 const reaches = filled<i32x16>(b.reaches ? -1 : 0);
  if constexpr (o.zero != zero_form::minimum) {
    f32x16 const x = encode_ops::mul(encode_ops::sub(splat(b.quotient), p.value[1]), p.value[0]);
    return key_below<Row>(x, f32x16{}, ~reaches);
  } else if constexpr (is_exact<Codec, Row>) {
    // A quotient is rounded to the boundary, or to what follows it, from the middle before that on; the
    // boundary has an even significand and so keeps a middle. The product with the scale is exact, 11 + 12
    // bits.
    float const unit = b.quotient < 1.0f ? 0x1p-11f : b.quotient < 2.0f ? 0x1p-10f : 0x1p-9f;
    float const middle = b.quotient + (b.reaches ? -0.5f : 0.5f) * unit;
    i32x16 const d = key_below<float16>(encode_ops::mul(splat(middle), p.value[0]), f32x16{}, ~reaches);
    f32x16 const from =
        encode_ops::mul(encode_ops::add(of_short_key<float16>(d), of_short_key<float16>(d + 1)), splat(0.5f));
    f32x16 const sum = encode_ops::add(from, p.value[1]);
    f32x16 const part = encode_ops::sub(sum, p.value[1]);  // Knuth's two-sum: sum + rest is exact
    f32x16 const rest =
        encode_ops::add(encode_ops::sub(from, part), encode_ops::sub(p.value[1], encode_ops::sub(sum, part)));
    return key_below<Row>(sum, rest, -(d & 1) ^ -1);  // the middle itself goes to the even one
  } else {
    f32x16 const x = encode_ops::add(encode_ops::mul(splat(b.quotient), p.value[0]), p.value[1]);
    return key_below<Row>(x, f32x16{}, ~reaches);
  }
}

//! The keys above which values of Row have codes of 1, 2, ...; 0x7FFF where no value has. Writes
//! Codec::levels vectors of sixteen at above + i * stride.
template <class Codec, class Row>
void find_thresholds(Codec const& codec, group_params16 const& p, std::int16_t* above,
                     std::int64_t stride) noexcept {
  constexpr int limit = static_cast<int>(float_format<Row>::overflow_bits) - 1;
  codebook_steps const none;
  i32x16 const live = positive(p.value[0]);
  i32x16 below[Codec::levels], right = filled<i32x16>(-1);
  KVCRUMB_TARGET_UNROLL
  for (int code = 1; code <= Codec::levels; ++code) {
    i32x16& b = below[code - 1];
    b = encode_ops::larger(encode_ops::smaller(guess_threshold<Codec, Row>(p, code), filled<i32x16>(limit)),
                           filled<i32x16>(-limit - 2));
    if constexpr (!is_exact<Codec, Row>) {
      reaches_code<Codec, Row> const reaches{codec, none, p, code};
      right &= ~reaches(b) & reaches(b + 1);
    }
  }
  if (encode_ops::any(live & ~right)) {
    for (int code = 1; code <= Codec::levels; ++code)
      below[code - 1] = last_below(reaches_code<Codec, Row>{codec, none, p, code}, below[code - 1], limit);
  }
  for (int code = 0; code < Codec::levels; ++code) {
    i32x16 const v = (live & below[code]) | (~live & 0x7FFF);  // nothing is above the last key
    store_as(above + code * stride, encode_ops::low_halves(v));
  }
}
