// SPDX-License-Identifier: Apache-2.0
//! @file Sixteen groups or values of a codec at once: the steps of codec/*.hpp in the same order. Included
//! once per target by targets.hpp.

struct group_params16 {
  f32x16 value[2];
  f32x16 work;
};
//! Of sixteen groups: the smallest and the largest value, for an rms codebook the sum of squares and the
//! largest value; `count` values.
struct statistics16 {
  f32x16 low, high, count;
};

KVCRUMB_TARGET_INLINE f32x16 magnitude(f32x16 const& x) noexcept {
  return floats_of(bits_of(x) & 0x7FFFFFFF);
}
KVCRUMB_TARGET_INLINE f32x16 negative(f32x16 const& x) noexcept {
  return floats_of(bits_of(x) ^ std::numeric_limits<std::int32_t>::min());
}
//! Where a > b; comparisons of vectors are not left to the compiler, which takes them apart (g++ 12.2, AVX2).
KVCRUMB_TARGET_INLINE i32x16 above(i32x16 const& a, i32x16 const& b) noexcept {
  return encode_ops::above(a, b);
}
KVCRUMB_TARGET_INLINE i32x16 above(i32x16 const& a, std::int32_t b) noexcept {
  return encode_ops::above(a, filled<i32x16>(b));
}
//! is_positive_bits and is_finite_bits.
KVCRUMB_TARGET_INLINE i32x16 positive(f32x16 const& x) noexcept {
  return above(bits_of(x), 0) & ~above(bits_of(x), 0x7F800000);
}
KVCRUMB_TARGET_INLINE i32x16 finite(f32x16 const& x) noexcept {
  return ~above(bits_of(x) & 0x7FFFFFFF, 0x7F7FFFFF);
}
//! Comparisons of numbers by their patterns: -0 is below +0 (nowhere decisive), a NaN beyond infinity.
KVCRUMB_TARGET_INLINE i32x16 key_of(f32x16 const& x) noexcept { return encode_ops::key(bits_of(x)); }
KVCRUMB_TARGET_INLINE f32x16 of_key(i32x16 const& k) noexcept { return floats_of(encode_ops::key(k)); }

//! The value of x rounded to binary16, nearest even and saturating; x is no NaN.
KVCRUMB_TARGET_INLINE f32x16 half_step(f32x16 const& x) noexcept {
  i32x16 const limit = filled<i32x16>(0x477FE000);  // 65504
  i32x16 const sign = bits_of(x) & std::numeric_limits<std::int32_t>::min();
  i32x16 const m = encode_ops::smaller(bits_of(x) & 0x7FFFFFFF, limit);
  return encode_ops::widen(encode_ops::half_of(floats_of(m | sign)));
}

//! Values rounded to a stored type: from_float_saturate, from_float_up and from_float_down of finite or
//! infinite numbers, as floats; `bits` of such a float or a NaN are its stored pattern.
template <class Param>
struct stored16;
template <>
struct stored16<float> {
  static KVCRUMB_TARGET_INLINE f32x16 nearest(f32x16 const& x) noexcept {
    i32x16 const sign = bits_of(x) & std::numeric_limits<std::int32_t>::min();
    return floats_of(sign | encode_ops::smaller(bits_of(x) & 0x7FFFFFFF, filled<i32x16>(0x7F7FFFFF)));
  }
  static KVCRUMB_TARGET_INLINE f32x16 up(f32x16 const& x) noexcept { return nearest(x); }
  static KVCRUMB_TARGET_INLINE i32x16 bits(f32x16 const& x) noexcept { return bits_of(x); }
};
template <>
struct stored16<bfloat16> {
  static KVCRUMB_TARGET_INLINE f32x16 nearest(f32x16 const& x) noexcept {
    return rounded(x, ((bits_of(x) >> 16) & 1) + 0x7FFF);
  }
  static KVCRUMB_TARGET_INLINE f32x16 up(f32x16 const& x) noexcept {
    return rounded(x, ~(bits_of(x) >> 31) & 0xFFFF);
  }
  static KVCRUMB_TARGET_INLINE i32x16 bits(f32x16 const& x) noexcept { return (bits_of(x) >> 16) & 0xFFFF; }

 private:
  static KVCRUMB_TARGET_INLINE f32x16 rounded(f32x16 const& x, i32x16 const& add) noexcept {
    i32x16 const sign = bits_of(x) & std::numeric_limits<std::int32_t>::min();
    i32x16 const m = ((bits_of(x) & 0x7FFFFFFF) + add) & ~0xFFFF;  // 0x7F800000 + 0xFFFF is still positive
    return floats_of(sign | encode_ops::smaller(m, filled<i32x16>(0x7F7F0000)));
  }
};
template <>
struct stored16<float16> {
  static KVCRUMB_TARGET_INLINE f32x16 nearest(f32x16 const& x) noexcept { return half_step(x); }
  static KVCRUMB_TARGET_INLINE f32x16 up(f32x16 const& x) noexcept {
    f32x16 const r = half_step(x);
    i32x16 const low = above(key_of(x), key_of(r)) &
                       above(filled<i32x16>(0x477FE000), bits_of(r));  // below x, and not the largest number
    i32x16 const h = encode_ops::zero_extended(encode_ops::half_of(r));
    i32x16 const next = h + (low & (-(h >> 15) | 1));  // away from zero or towards it
    return encode_ops::widen(encode_ops::low_halves(next));
  }
  static KVCRUMB_TARGET_INLINE i32x16 bits(f32x16 const& x) noexcept {
    return encode_ops::zero_extended(encode_ops::half_of(x));
  }
};
template <class Param>
KVCRUMB_TARGET_INLINE f32x16 stored_down(f32x16 const& x) noexcept {
  return negative(stored16<Param>::up(negative(x)));
}

//! Group parameters where there is a finite group, NaN where it is damaged and 0 where it is empty.
KVCRUMB_TARGET_INLINE group_params16 settled(group_params16 const& p, i32x16 const& is_finite,
                                             f32x16 const& count) noexcept {
  i32x16 const some = above(bits_of(count), 0);
  f32x16 const nan = floats_of(filled<i32x16>(0x7FC00000));
  return {{floats_of(some & bits_of(select(is_finite, p.value[0], nan))),
           floats_of(some & bits_of(select(is_finite, p.value[1], nan)))},
          floats_of(some & bits_of(select(is_finite, p.work, nan)))};
}

//! Positive numbers to integers by the rules of `rounding`, at most `top`; 0 for others, NaN must not occur.
template <rounding Round>
KVCRUMB_TARGET_INLINE i32x16 to_codes(f32x16 const& t, float top) noexcept {
  i32x16 const low = encode_ops::larger(bits_of(t), i32x16{});
  f32x16 const x = floats_of(encode_ops::smaller(low, bits_of(splat(top))));
  if constexpr (Round == rounding::half_even) return ops::round(x);
  i32x16 const whole = convert<i32x16>(x);
  if constexpr (Round == rounding::floor_cell) return whole;
  f32x16 const rest = encode_ops::sub(x, to_floats(whole));
  return whole - above(bits_of(rest), 0x3EFFFFFF);
}

template <class Codec>
struct codec16;

template <int Bits, storage_float Param, affine_options Options>
struct codec16<affine<Bits, Param, Options>> {
  using codec_type = affine<Bits, Param, Options>;
  static constexpr int levels = codec_type::levels;
  static constexpr bool half = Options.precision == arithmetic::binary16;
  //! few_levels: codes grow with values, and so few thresholds tell them apart that they are worth their
  //! search. squares: groups are measured by sums of squares. first_decides: the first of equal magnitudes
  //! does.
  static constexpr bool few_levels = Bits <= 2;
  static constexpr bool squares = false, first_decides = false;

  static KVCRUMB_TARGET_INLINE f32x16 step(f32x16 const& x) noexcept {
    if constexpr (half) return half_step(x);
    return x;
  }
  static group_params16 fit(codec_type const&, statistics16 const& s) noexcept {
    using stored = stored16<Param>;
    i32x16 const is_finite = finite(s.low) & finite(s.high);
    f32x16 const low = encode_ops::add(s.low, f32x16{}), high = encode_ops::add(s.high, f32x16{});
    constexpr float cells = static_cast<float>(Options.round == rounding::floor_cell ? levels + 1 : levels);
    group_params16 p;
    if constexpr (Options.zero == zero_form::minimum) {
      constexpr bool outward = Options.params == param_rounding::outward;
      p.value[1] = outward ? stored_down<Param>(low) : stored::nearest(low);
      p.work = step(encode_ops::sub(step(high), step(outward ? p.value[1] : low)));
      p.value[0] = floored(stored_scale(step(encode_ops::div(p.work, splat(cells)))));
    } else {
      p.work = encode_ops::sub(high, low);
      p.value[0] = floored(stored_scale(encode_ops::div(p.work, splat(cells))));
      f32x16 point = encode_ops::div(encode_ops::mul(splat(-static_cast<float>(levels)), low), p.work);
      if constexpr (Options.zero == zero_form::point_rounded) {
        i32x16 const sign = bits_of(point) & std::numeric_limits<std::int32_t>::min();
        i32x16 const narrow_point =
            ~above(bits_of(point) & 0x7FFFFFFF, 0x49FFFFFF);  // 2^21; beyond it is no parameter
        f32x16 const rounded = to_floats(ops::round(floats_of(bits_of(point) & narrow_point)));
        point = select(narrow_point, floats_of(bits_of(rounded) | sign), point);
      }
      i32x16 const fits =
          positive(p.value[0]) &
          ~above(bits_of(point) & 0x7FFFFFFF, static_cast<std::int32_t>(float_bits(max_finite<Param>)));
      f32x16 const value = select(above(key_of(negative(low)), key_of(high)), low, high);
      p.value[0] = select(fits, p.value[0], stored::nearest(magnitude(value)));
      f32x16 const one =
          floats_of(above(filled<i32x16>(-1), key_of(value)) & bits_of(splat(1.0f)));  // -1: the key of -0
      p.value[1] = select(fits, stored::nearest(point), one);
      p.work = floats_of(fits & bits_of(p.work));
    }
    return settled(p, is_finite, s.count);
  }
  template <bool HalfRows>
  static KVCRUMB_TARGET_INLINE i32x16 encode(codec_type const&, codebook_steps const&, f32x16 const& x,
                                             group_params16 const& p) noexcept {
    f32x16 t;
    if constexpr (Options.zero != zero_form::minimum) {
      t = encode_ops::add(encode_ops::div(x, p.value[0]), p.value[1]);
    } else if constexpr (Options.division == quotient::range_first) {
      f32x16 const product =
          encode_ops::mul(encode_ops::sub(x, p.value[1]), splat(static_cast<float>(levels)));
      t = encode_ops::div(product, p.work);
      t = floats_of(bits_of(t) & positive(t) & positive(p.work));  // infinity / infinity
    } else {
      f32x16 const from = HalfRows ? x : step(x);
      t = quotient_of(step(encode_ops::sub(from, p.value[1])), p.value[0]);
    }
    return to_codes<Options.round>(t, static_cast<float>(levels)) & positive(p.value[0]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 quotient_of(f32x16 const& d, f32x16 const& scale) noexcept {
    return step(encode_ops::div(d, scale));
  }

 private:
  static KVCRUMB_TARGET_INLINE f32x16 stored_scale(f32x16 const& x) noexcept {
    return Options.params == param_rounding::outward ? stored16<Param>::up(x) : stored16<Param>::nearest(x);
  }
  static KVCRUMB_TARGET_INLINE f32x16 floored(f32x16 const& scale) noexcept {
    if constexpr (Options.floor == scale_floor::none) {
      return scale;
    } else {
      float const least = Options.floor == scale_floor::e5   ? 1e-5f
                          : Options.floor == scale_floor::e6 ? 1e-6f
                                                             : 1e-8f;
      f32x16 const lowest = splat(to_float(from_float_up<Param>(least)));
      return select(above(key_of(splat(least)), key_of(scale)), lowest, scale);
    }
  }
};

template <int Bits, storage_float Param, symmetric_rule Rule>
struct codec16<symmetric<Bits, Param, Rule>> {
  using codec_type = symmetric<Bits, Param, Rule>;
  static constexpr int offset = codec_type::offset;
  static constexpr bool few_levels = false, squares = false;
  static constexpr bool first_decides = Rule == symmetric_rule::ggml_q4_0;

  static group_params16 fit(codec_type const&, statistics16 const& s) noexcept {
    i32x16 const is_finite = finite(s.low) & finite(s.high);
    f32x16 const largest =
        floats_of(encode_ops::larger(bits_of(magnitude(s.low)), bits_of(magnitude(s.high))));
    group_params16 p{};
    if constexpr (Rule == symmetric_rule::absmax) {
      p.value[0] = stored16<Param>::up(encode_ops::div(largest, splat(static_cast<float>(offset - 1))));
    } else {
      f32x16 const d = Rule == symmetric_rule::ggml_q8_0
                           ? encode_ops::div(largest, splat(127.0f))
                           : encode_ops::div(encode_ops::add(extreme(s), f32x16{}), splat(-8.0f));
      f32x16 const inverse = encode_ops::div(splat(1.0f), d);
      p.value[0] = stored16<Param>::nearest(d);
      p.work = floats_of(bits_of(inverse) & positive(magnitude(d)) & finite(inverse));
    }
    return settled(p, is_finite, s.count);
  }
  template <bool HalfRows>
  static KVCRUMB_TARGET_INLINE i32x16 encode(codec_type const&, codebook_steps const&, f32x16 const& x,
                                             group_params16 const& p) noexcept {
    if constexpr (Rule == symmetric_rule::ggml_q4_0) {
      f32x16 const t = encode_ops::add(encode_ops::mul(x, p.work), splat(8.5f));
      i32x16 const whole = to_codes<rounding::floor_cell>(t, 15.0f);
      i32x16 const live = finite(p.work);
      return (live & whole) | (~live & 8);
    } else {
      i32x16 const live = Rule == symmetric_rule::ggml_q8_0 ? finite(p.work) : positive(p.value[0]);
      f32x16 const t =
          Rule == symmetric_rule::ggml_q8_0 ? encode_ops::mul(x, p.work) : encode_ops::div(x, p.value[0]);
      constexpr rounding rule = Rule == symmetric_rule::ggml_q8_0 ? rounding::half_away : rounding::half_even;
      i32x16 const m = to_codes<rule>(magnitude(t), static_cast<float>(offset - 1)), sign = bits_of(t) >> 31;
      return (live & ((m ^ sign) - sign)) + offset;
    }
  }

 private:
  //! The value of largest magnitude; the caller leaves no ties.
  static KVCRUMB_TARGET_INLINE f32x16 extreme(statistics16 const& s) noexcept {
    return select(above(bits_of(magnitude(s.low)), bits_of(magnitude(s.high))), s.low, s.high);
  }
};

template <class Table, storage_float Param, codebook_scale Scale>
struct codec16<codebook<Table, Param, Scale>> {
  using codec_type = codebook<Table, Param, Scale>;
  static constexpr bool few_levels = false, first_decides = false;
  static constexpr bool squares = Scale == codebook_scale::rms;

  static group_params16 fit(codec_type const& codec, statistics16 const& s) noexcept {
    group_params16 p{};
    if constexpr (Scale == codebook_scale::absmax) {
      f32x16 const largest =
          floats_of(encode_ops::larger(bits_of(magnitude(s.low)), bits_of(magnitude(s.high))));
      p.value[0] = stored16<Param>::nearest(encode_ops::div(largest, splat(codec.table.max_level())));
      return settled(p, finite(s.low) & finite(s.high), s.count);
    } else {
      f32x16 const unit = encode_ops::square_root(encode_ops::div(s.low, s.count));
      p.value[0] = stored16<Param>::nearest(unit);
      return settled(p, finite(s.high), s.count);  // the sum may be infinite: the scale saturates
    }
  }
  template <bool HalfRows>
  static KVCRUMB_TARGET_INLINE i32x16 encode(codec_type const&, codebook_steps const& steps, f32x16 const& x,
                                             group_params16 const& p) noexcept {
    f32x16 const q = floats_of(bits_of(encode_ops::div(x, p.value[0])) & positive(p.value[0]));
    i32x16 const rank = encode_ops::template rank<(1 << Table::bits) - 1>(steps, key_of(q));
    return steps.in_order ? rank : convert<i32x16>(ops::look_up(steps.code, rank));
  }
};
