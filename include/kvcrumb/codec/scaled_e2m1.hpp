// SPDX-License-Identifier: Apache-2.0
//! @file E2M1 codes with two scales: e4m3 of a group and binary32 of the whole tensor.
#pragma once

#include "kvcrumb/codec/codebook.hpp"

namespace kvcrumb::inline v0 {

//! How the scale of the tensor is given. The forms are inverses of each other: with decode = 1 / encode they
//! mean the same values.
enum class tensor_scale : std::uint8_t {
  decode,  //!< small; multiplied when decoding: scale = e4m3(absmax / 6 / global)
  encode,  //!< large, 448 / absmax of the tensor; multiplied when encoding: scale = e4m3(absmax / 6 * global)
};

//! The levels of E2M1 and the scale of the tensor that they are read with.
struct scaled_e2m1_table : e2m1_table {
  float global = 1.0f;

  //! Positive, finite, and so is its inverse.
  KVCRUMB_API bool is_valid() const noexcept {
    return is_positive_bits(global) && is_finite_bits(global) && is_finite_bits(div_rn(1.0f, global)) &&
           is_positive_bits(div_rn(1.0f, global));
  }
};

//! NVFP4 (flashinfer csrc/fp4_kv_quantization.cu): x_hat = level * scale * global with an e4m3 scale per
//! group and one binary32 scale per tensor, which belongs to the scheme, not to the section; it enters
//! state_id. code = e2m1(x / (scale * global)); a scale of 0 gives code 0. Scales saturate at 448. NaN or
//! infinity in the group: NaN scale.
template <tensor_scale Form = tensor_scale::decode>
struct scaled_e2m1 {
  static constexpr char const* name = "scaled_e2m1";
  static constexpr int bits = 4;
  static constexpr int planes = 1;
  static constexpr int levels = 15;
  using param_type = float8_e4m3;
  using group_codec = codebook<e2m1_table, float8_e4m3>;
  using statistics = group_codec::statistics;

  scaled_e2m1_table table{};

  static constexpr void describe(description& d) noexcept {
    d << name << (Form == tensor_scale::decode ? "(absmax,e4m3,decode)" : "(absmax,e4m3,encode)");
  }
  std::uint64_t id() const noexcept { return float_bits(table.global) * 0x100000001B3u; }

  KVCRUMB_API statistics lift(float x) const noexcept { return group_codec{}.lift(x); }
  KVCRUMB_API static statistics merge(statistics a, statistics b) noexcept {
    return group_codec::merge(a, b);
  }
  KVCRUMB_API group_params fit(statistics s, int /*n*/) const noexcept {
    if (!s.finite) return poisoned_params();
    float const sixth = div_rn(s.value, table.max_level());
    float const scale =
        Form == tensor_scale::decode ? div_rn(sixth, table.global) : mul_rn(sixth, table.global);
    return {{to_float(from_float_saturate<float8_e4m3>(scale)), 0.0f}, 0.0f};
  }
  KVCRUMB_API unsigned encode(float x, group_params const& p) const noexcept {
    float const unit_value = gain(p);
    return table.nearest(is_positive_bits(unit_value) ? div_rn(x, unit_value) : 0.0f);
  }
  KVCRUMB_API constexpr float unit(unsigned code) const noexcept { return table.level(code); }
  KVCRUMB_API linear_params linear(group_params const& p) const noexcept { return {gain(p), 0.0f}; }

 private:
  KVCRUMB_API float gain(group_params const& p) const noexcept {
    return mul_rn(p.value[0], Form == tensor_scale::decode ? table.global : div_rn(1.0f, table.global));
  }
};

}  // namespace kvcrumb::inline v0
