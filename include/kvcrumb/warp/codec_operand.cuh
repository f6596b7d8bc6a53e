// SPDX-License-Identifier: Apache-2.0
//! @file What each codec looks like to a tensor core: the kind of its operands and where its bias comes from.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/warp/operand.cuh"

namespace kvcrumb::inline v0::warp {

//! How codes become operands.
enum class operand_kind : std::uint8_t {
  codes,   //!< masked bits; the operand is code * 2^(factor_log2 - 24)
  levels,  //!< fp16 levels looked up by byte permutes
  floats,  //!< the code is the value
};

//! Where the constant of x_hat = gain * unit(code) + bias comes from.
enum class bias_form : std::uint8_t {
  none,            //!< no bias
  plane,           //!< parameter plane 1 (a minimum)
  plane_and_half,  //!< plane 1 + gain / 2 (floor_cell)
  scaled_plane,    //!< -gain * plane 1 (a zero point)
  offset,          //!< -gain * a constant (symmetric codes)
};

//! Facts about a codec; the primary template is a codec that kernels cannot read.
template <class Codec>
struct codec_traits {
  static constexpr bool supported = false;
  static constexpr operand_kind kind = operand_kind::codes;
  static constexpr bias_form bias = bias_form::none;
  static constexpr bool has_gain = true;
  static constexpr float offset = 0.0f;
};

template <int Bits, affine_options Options>
struct codec_traits<affine<Bits, float16, Options>> {
  static constexpr bool supported = Bits <= 4 || Bits == 8;
  static constexpr operand_kind kind = operand_kind::codes;
  static constexpr bias_form bias = Options.zero != zero_form::minimum      ? bias_form::scaled_plane
                                    : Options.round == rounding::floor_cell ? bias_form::plane_and_half
                                                                            : bias_form::plane;
  static constexpr bool has_gain = true;
  static constexpr float offset = 0.0f;
};

template <int Bits, symmetric_rule Rule>
struct codec_traits<symmetric<Bits, float16, Rule>> {
  static constexpr bool supported = Bits <= 4 || Bits == 8;
  static constexpr operand_kind kind = operand_kind::codes;
  static constexpr bias_form bias = bias_form::offset;
  static constexpr bool has_gain = true;
  static constexpr float offset = static_cast<float>(1 << (Bits - 1));
};

template <class Table, codebook_scale Scale>
struct codec_traits<codebook<Table, float16, Scale>> {
  static constexpr bool supported = Table::bits >= 2 && Table::bits <= 4;
  static constexpr operand_kind kind = operand_kind::levels;
  static constexpr bias_form bias = bias_form::none;
  static constexpr bool has_gain = true;
  static constexpr float offset = 0.0f;
};

template <class Value>
  requires(std::same_as<Value, float16> || std::same_as<Value, float8_e4m3>)
struct codec_traits<raw<Value>> {
  static constexpr bool supported = true;
  static constexpr operand_kind kind = operand_kind::floats;
  static constexpr bias_form bias = bias_form::none;
  static constexpr bool has_gain = false;
  static constexpr float offset = 0.0f;
};

//! The fp16 levels of a codebook as bytes for ptx::permute_bytes: low bytes, then high bytes, four a
//! register.
template <int Bits>
struct level_bytes {
  static constexpr int registers = (1 << Bits) / 4;
  std::uint32_t low[registers], high[registers];
};
struct no_levels {};

//! The levels of a codec, rounded to fp16, as bytes.
template <class Codec>
KVCRUMB_API constexpr level_bytes<Codec::bits> level_bytes_of(Codec const& codec) {
  level_bytes<Codec::bits> r{};
  for (int i = 0; i < (1 << Codec::bits); ++i) {
    std::uint32_t const half = from_float_saturate<float16>(codec.unit(static_cast<unsigned>(i))).bits;
    r.low[i / 4] |= (half & 0xFFu) << (8 * (i % 4));
    r.high[i / 4] |= (half >> 8) << (8 * (i % 4));
  }
  return r;
}

//! Levels of a codec, in registers, or constants where the table is fixed; nothing for codecs without a
//! table.
template <class Codec>
KVCRUMB_DEVICE auto make_levels(Codec const& codec) {
  if constexpr (codec_traits<Codec>::kind != operand_kind::levels) {
    return no_levels{};
  } else if constexpr (std::is_empty_v<decltype(codec.table)>) {
    constexpr auto levels = level_bytes_of(Codec{});
    return levels;
  } else {
    return level_bytes_of(codec);
  }
}

namespace detail {

//! Bytes of four codes (nibbles of `selector`) interleaved to fp16 pairs: codes 0 and 1, codes 2 and 3.
KVCRUMB_DEVICE void interleave(std::uint32_t low, std::uint32_t high, std::uint32_t (&pairs)[2]) {
  pairs[0] = ptx::permute_bytes(low, high, 0x5140u);
  pairs[1] = ptx::permute_bytes(low, high, 0x7362u);
}

//! Levels of four 2-bit codes in the nibbles of the low half of `selector`.
KVCRUMB_DEVICE void look_up(level_bytes<2> const& t, std::uint32_t selector, std::uint32_t (&pairs)[2]) {
  interleave(ptx::permute_bytes(t.low[0], 0u, selector), ptx::permute_bytes(t.high[0], 0u, selector), pairs);
}

//! Levels of four 4-bit codes: `inner` has their low three bits, `outer` picks the half of the table.
KVCRUMB_DEVICE void look_up(level_bytes<4> const& t, std::uint32_t inner, std::uint32_t outer,
                            std::uint32_t (&pairs)[2]) {
  std::uint32_t const low = ptx::permute_bytes(ptx::permute_bytes(t.low[0], t.low[1], inner),
                                               ptx::permute_bytes(t.low[2], t.low[3], inner), outer);
  std::uint32_t const high = ptx::permute_bytes(ptx::permute_bytes(t.high[0], t.high[1], inner),
                                                ptx::permute_bytes(t.high[2], t.high[3], inner), outer);
  interleave(low, high, pairs);
}

//! Two fp16 pairs of the low halves and two of the high halves of a word, regrouped by field.
KVCRUMB_DEVICE void regroup(std::uint32_t const (&x)[2], std::uint32_t const (&y)[2], std::uint32_t& f0,
                            std::uint32_t& f1, std::uint32_t& f2, std::uint32_t& f3) {
  f0 = ptx::permute_bytes(x[0], y[0], 0x5410u);
  f1 = ptx::permute_bytes(x[0], y[0], 0x7632u);
  f2 = ptx::permute_bytes(x[1], y[1], 0x5410u);
  f3 = ptx::permute_bytes(x[1], y[1], 0x7632u);
}

//! All fields of one word as fp16 levels.
KVCRUMB_DEVICE void expand(level_bytes<2> const& t, std::uint32_t w, std::uint32_t (&out)[8]) {
  KVCRUMB_UNROLL
  for (int odd = 0; odd < 2; ++odd) {
    std::uint32_t const s = (w >> (2 * odd)) & 0x33333333u;
    std::uint32_t x[2], y[2];
    look_up(t, s, x);
    look_up(t, s >> 16, y);
    regroup(x, y, out[odd], out[2 + odd], out[4 + odd], out[6 + odd]);
  }
}
KVCRUMB_DEVICE void expand(level_bytes<4> const& t, std::uint32_t w, std::uint32_t (&out)[4]) {
  std::uint32_t const inner = w & 0x77777777u, outer = ((w >> 1) & 0x44444444u) | 0x32103210u;
  std::uint32_t x[2], y[2];
  look_up(t, inner, outer, x);
  look_up(t, inner >> 16, outer >> 16, y);
  regroup(x, y, out[0], out[1], out[2], out[3]);
}
//! The levels of two 3-bit codes, one at bit 0 of each half.
KVCRUMB_DEVICE std::uint32_t level_pair(level_bytes<3> const& t, std::uint32_t codes) {
  std::uint32_t const twice = codes * 0x11u, selector = twice | twice >> 8;
  std::uint32_t const low = ptx::permute_bytes(t.low[0], t.low[1], selector);
  std::uint32_t const high = ptx::permute_bytes(t.high[0], t.high[1], selector);
  return (low & 0x00FF00FFu) | (high & 0xFF00FF00u);
}

}  // namespace detail

//! The operands of one unit of a section of `Codec`: load() once, then operands<Field>().
template <class Codec, class Layout>
struct unit_operands {
  static constexpr operand_kind kind = codec_traits<Codec>::kind;
  //! 2^this is what every product with an operand must be multiplied with, for row block p and row half r.
  KVCRUMB_API static constexpr int exponent(int p, int r) noexcept {
    return kind == operand_kind::codes ? 24 - Layout::factor_log2(p, r) : 0;
  }
  static constexpr bool expands = kind == operand_kind::levels && Layout::bits != 3;

  std::uint32_t w[Layout::unit_words];
  std::uint32_t expanded[expands ? 4 : 1][expands ? Layout::fields : 1];

  template <int First, class Levels>
  KVCRUMB_DEVICE void load(std::uint32_t base, int lane, int step, int group, Levels const& levels) {
    load_unit<Layout, First>(w, base, lane, step, group);
    if constexpr (expands) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        detail::expand(levels, w[i], expanded[i]);
    }
  }
  template <int Field, class Levels>
  KVCRUMB_DEVICE void operands(std::uint32_t (&a)[4], Levels const& levels) const {
    if constexpr (kind == operand_kind::codes) {
      code_operands<Layout, Field>(a, w);
    } else if constexpr (kind == operand_kind::floats && Layout::bits == 16) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        a[i] = w[i];
    } else if constexpr (kind == operand_kind::floats) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        a[i] = ptx::half2_from_e4m3x2(ptx::permute_bytes(w[i], 0u, Field == 0 ? 0x4420u : 0x4431u));
    } else if constexpr (expands) {
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        a[i] = expanded[i][Field];
    } else {
      code_operands<Layout, Field>(a, w);
      constexpr int row = Field % Layout::row_fields;
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i)
        a[i] = detail::level_pair(levels, a[i] >> Layout::factor_log2(row, i & 1));
    }
  }
};

}  // namespace kvcrumb::inline v0::warp
