// SPDX-License-Identifier: Apache-2.0
//! @file What host kernels know about a scheme at compile time: bits, owner of the parameters, bias and
//! levels.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/layout/fragment.hpp"
#include "kvcrumb/scheme/composed.hpp"

namespace kvcrumb::inline v0::host {

//! Where the constant of x_hat = gain * unit(code) + bias comes from; m0 and m1 are the stored planes.
enum class bias_form : std::uint8_t {
  minimum,    //!< m1
  half_cell,  //!< m1 + m0 / 2
  point,      //!< -m1 * m0
  multiple,   //!< a constant of the codec times m0: the offset of symmetric codes, the base of a codebook
};

//! Facts about a codec; the primary template is a codec that host kernels cannot read.
template <class Codec>
struct codec_facts {
  static constexpr bool supported = false;
};

template <int Bits, storage_float Param, affine_options Options>
struct codec_facts<affine<Bits, Param, Options>> {
  static constexpr bool supported = Bits <= 4 || Bits == 8;
  static constexpr bool has_levels = false;
  static constexpr bias_form bias = Options.zero != zero_form::minimum      ? bias_form::point
                                    : Options.round == rounding::floor_cell ? bias_form::half_cell
                                                                            : bias_form::minimum;
  static constexpr float multiple = 0.0f;
};

template <int Bits, storage_float Param, symmetric_rule Rule>
struct codec_facts<symmetric<Bits, Param, Rule>> {
  static constexpr bool supported = Bits <= 4 || Bits == 8;
  static constexpr bool has_levels = false;
  static constexpr bias_form bias = bias_form::multiple;
  static constexpr float multiple = -static_cast<float>(1 << (Bits - 1));
};

template <class Table, storage_float Param, codebook_scale Scale>
struct codec_facts<codebook<Table, Param, Scale>> {
  static constexpr bool supported = Table::bits >= 2 && Table::bits <= 4;
  static constexpr bool has_levels = true;
  static constexpr bias_form bias = bias_form::multiple;  // the base of its level_table
  static constexpr float multiple = 0.0f;
};

//! Levels of a codebook as base + step * (256 high + low), 16 bits wide: what products of bytes can use.
//! Exact to 2^-17 of the range of the levels; fewer bits would show, because the error of a level does not
//! average out.
struct level_table {
  std::uint8_t high[16] = {}, low[16] = {};
  float level[16] = {};  //!< level - base
  float base = 0.0f, step = 0.0f;
  int count = 0;

  //! Of level - base over all codes.
  float mean() const noexcept {
    float sum = 0.0f;
    for (int i = 0; i < count; ++i)
      sum += level[i];
    return count > 0 ? sum / static_cast<float>(count) : 0.0f;
  }

  template <class Codec>
  static level_table of(Codec const& codec) noexcept {
    level_table t;
    if constexpr (codec_facts<Codec>::has_levels) {
      constexpr unsigned count = 1u << Codec::bits;
      t.count = static_cast<int>(count);
      float least = codec.unit(0), most = least;
      for (unsigned i = 0; i < count; ++i) {
        if (codec.unit(i) < least) least = codec.unit(i);
        if (codec.unit(i) > most) most = codec.unit(i);
      }
      t.base = least;
      t.step = (most - least) / 65535.0f;
      for (unsigned i = 0; i < count && t.step > 0.0f; ++i) {
        t.level[i] = codec.unit(i) - least;
        int const place = static_cast<int>(t.level[i] / t.step + 0.5f);
        unsigned const at = place > 65535 ? 65535u : static_cast<unsigned>(place);
        t.high[i] = static_cast<std::uint8_t>(at >> 8);
        t.low[i] = static_cast<std::uint8_t>(at & 255u);
      }
    }
    return t;
  }
};

//! What kernels are compiled for: schemes that agree in these share them.
template <int Bits, bool Levels, storage_float Param, bias_form Form>
struct section_format {
  static constexpr int stored_bits = Bits;
  static constexpr int bits = Bits == 3 ? 4 : Bits;  //!< of the codes as kernels read them
  static constexpr bool has_levels = Levels;
  static constexpr bias_form bias = Form;
  static constexpr int planes = Form == bias_form::multiple ? 1 : 2;
  using param_type = Param;
};

//! Facts about one side of a scheme; the primary template is a scheme that host kernels cannot read.
template <class Scheme>
struct scheme_facts {
  static constexpr bool supported = false;
};

template <class Codec, class Grouping, class Transform>
struct scheme_facts<composed<Codec, Grouping, Transform, fragment>> {
  static constexpr bool supported = codec_facts<Codec>::supported && sizeof(typename Codec::param_type) >= 2;
  using codec = codec_facts<Codec>;
  //! Only if supported.
  template <class C = codec>
  using format = section_format<Codec::bits, C::has_levels, typename Codec::param_type, C::bias>;
};

}  // namespace kvcrumb::inline v0::host
