// SPDX-License-Identifier: Apache-2.0
//! @file Symmetric uniform codes with one scale, ggml's two conventions, and raw storage floats.
#pragma once

#include "kvcrumb/codec/concept.hpp"

namespace kvcrumb::inline v0 {

//! Where the scale of a symmetric codec comes from and what codes are computed against.
enum class symmetric_rule : std::uint8_t {
  absmax,     //!< scale = up(max|x| / (2^(b-1) - 1)), code = rne(x / scale) against the stored scale
  ggml_q8_0,  //!< d = max|x| / 127 in fp32, code = round half away (x * (1/d)) against the *unrounded* d
  ggml_q4_0,  //!< d = (signed x of largest magnitude) / -8, code = min(15, trunc(x * (1/d) + 8.5))
};

//! Symmetric codes, kept with an offset of 2^(Bits-1): x_hat = (code - 2^(Bits-1)) * scale.
//! `absmax` uses -(2^(b-1)-1) .. 2^(b-1)-1. The ggml rules are those of quantize_row_q8_0_ref and
//! quantize_row_q4_0_ref (github.com/ggml-org/ggml src/ggml-quants.c); the first of equal magnitudes decides.
template <int Bits, storage_float Param = float16, symmetric_rule Rule = symmetric_rule::absmax>
struct symmetric {
  static_assert(Bits >= 2 && Bits <= 8, "kvcrumb::symmetric: Bits must be in [2, 8]");
  static_assert(Rule != symmetric_rule::ggml_q8_0 || Bits == 8, "kvcrumb::symmetric: q8_0 has 8 bits");
  static_assert(Rule != symmetric_rule::ggml_q4_0 || Bits == 4, "kvcrumb::symmetric: q4_0 has 4 bits");

  static constexpr char const* name = Rule == symmetric_rule::absmax      ? "symmetric"
                                      : Rule == symmetric_rule::ggml_q8_0 ? "ggml_q8_0"
                                                                          : "ggml_q4_0";
  static constexpr int bits = Bits;
  static constexpr int planes = 1;
  static constexpr int levels = (1 << Bits) - 1;
  static constexpr int offset = 1 << (Bits - 1);
  static constexpr bool associative = true;  //!< merge is exact however neighbours are grouped
  using param_type = Param;

  static constexpr void describe(description& d) noexcept {
    d << name;
    if constexpr (Rule == symmetric_rule::absmax) d << bits;  // the others carry it in their name
    d << "(" << storage_name<Param>() << ")";
  }

  //! The signed value of largest magnitude; the first one of equals.
  struct statistics {
    float extreme = 0.0f;
    bool finite = true;
  };
  KVCRUMB_API statistics lift(float x) const noexcept { return {x, is_finite_bits(x)}; }
  KVCRUMB_API static statistics merge(statistics a, statistics b) noexcept {
    return {absolute(b.extreme) > absolute(a.extreme) ? b.extreme : a.extreme, a.finite && b.finite};
  }

  KVCRUMB_API group_params fit(statistics s, int /*n*/) const noexcept {
    if (!s.finite) return poisoned_params();
    if constexpr (Rule == symmetric_rule::absmax) {
      float const scale =
          to_float(from_float_up<Param>(div_rn(absolute(s.extreme), static_cast<float>(offset - 1))));
      return {{scale, 0.0f}, 0.0f};
    } else {
      // ggml's search starts at +0, so the extreme of a block of zeros of either sign is +0.
      float const d = Rule == symmetric_rule::ggml_q8_0 ? div_rn(absolute(s.extreme), 127.0f)
                                                        : div_rn(add_rn(s.extreme, 0.0f), -8.0f);
      // Bits, not d != 0: under fast-math the comparison lets a compiler replace -0 by +0. The inverse is
      // infinite for |d| <= 2^-128, which is stored as 0.
      float const inverse = is_positive_bits(absolute(d)) ? div_rn(1.0f, d) : 0.0f;
      return {{to_float(from_float_saturate<Param>(d)), 0.0f}, is_finite_bits(inverse) ? inverse : 0.0f};
    }
  }

  KVCRUMB_API unsigned encode(float x, group_params const& p) const noexcept {
    if constexpr (Rule == symmetric_rule::ggml_q4_0) {
      float const t = add_rn(mul_rn(x, p.work), 8.5f);
      if (!is_positive_bits(t)) return is_finite_bits(p.work) && p.work != 0.0f ? 0u : 8u;
      return t >= 15.0f ? 15u : static_cast<unsigned>(t);
    } else {
      float t;
      if constexpr (Rule == symmetric_rule::ggml_q8_0) {
        t = round_half_away(mul_rn(x, p.work));
      } else {
        if (!is_positive_bits(p.value[0])) return static_cast<unsigned>(offset);
        t = round_half_even(div_rn(x, p.value[0]));
      }
      float const top = static_cast<float>(offset - 1);
      if (is_nan_bits(t)) t = 0.0f;
      if (t < -top) t = -top;
      if (t > top) t = top;
      return static_cast<unsigned>(static_cast<int>(t) + offset);
    }
  }

  KVCRUMB_API float unit(unsigned code) const noexcept {
    return static_cast<float>(static_cast<int>(code) - offset);
  }
  KVCRUMB_API linear_params linear(group_params const& p) const noexcept { return {p.value[0], 0.0f}; }
};

//! Values kept as storage floats without parameters: fp16, bf16 or e4m3 bits are the code. Values beyond the
//! range saturate; a NaN stays a NaN.
template <storage_float Value>
  requires(sizeof(Value) <= 2)
struct raw {
  static constexpr char const* name = "raw";
  static constexpr int bits = 8 * sizeof(Value);
  static constexpr int planes = 0;
  static constexpr int levels = (1 << bits) - 1;
  using param_type = Value;
  struct statistics {};
  static constexpr void describe(description& d) noexcept {
    d << name << "(" << storage_name<Value>() << ")";
  }

  KVCRUMB_API statistics lift(float) const noexcept { return {}; }
  KVCRUMB_API static statistics merge(statistics, statistics) noexcept { return {}; }
  KVCRUMB_API group_params fit(statistics, int) const noexcept { return {}; }
  KVCRUMB_API unsigned encode(float x, group_params const&) const noexcept {
    return from_float_saturate<Value>(x).bits;
  }
  KVCRUMB_API float unit(unsigned code) const noexcept {
    return to_float(Value{static_cast<decltype(Value::bits)>(code)});
  }
  KVCRUMB_API linear_params linear(group_params const&) const noexcept { return {1.0f, 0.0f}; }
};

}  // namespace kvcrumb::inline v0
