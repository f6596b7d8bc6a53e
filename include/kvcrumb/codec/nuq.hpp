// SPDX-License-Identifier: Apache-2.0
//! @file Non-uniform codes with calibrated levels (KVQuant's nuqX), without parameters or with offset and
//! range.
#pragma once

#include "kvcrumb/codec/concept.hpp"

namespace kvcrumb::inline v0 {

//! Levels that codes are chosen by and levels that they decode to. Both are equal but for Q-Norm
//! (calibrate/nuq.hpp), which moves the decoded ones so that mean and deviation survive.
template <int Bits>
struct nuq_table {
  static_assert(Bits >= 1 && Bits <= 8, "kvcrumb::nuq_table: Bits must be in [1, 8]");
  float levels[1 << Bits] = {};   //!< ascending, in units of the normalised data
  float decoded[1 << Bits] = {};  //!< what each code stands for

  KVCRUMB_API bool is_valid() const noexcept {
    bool ok = true;
    for (int i = 0; i < (1 << Bits); ++i) {
      ok = ok && is_finite_bits(levels[i]) && is_finite_bits(decoded[i]);
      if (i > 0) ok = ok && levels[i] > levels[i - 1];
    }
    return ok;
  }
  //! The nearest level, the lower one of two; code 0 for NaN.
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    unsigned code = 0;
    for (int i = 0; i + 1 < (1 << Bits); ++i)
      code += x > mul_rn(0.5f, add_rn(levels[i], levels[i + 1])) ? 1u : 0u;
    return code;
  }
};

//! Where the range of the normalised data comes from.
enum class nuq_range : std::uint8_t {
  fixed,  //!< rows are normalised already (channel_scale): nothing is stored
  group,  //!< offset (lowest + highest) / 2 and range (highest - lowest) / 2 of the group, stored as Param
};

//! code = nearest level of (x - offset) / range; x_hat = decoded[code] * range + offset.
//! The stored offset is rounded first and the range, taken from it, up, so that no value lies outside of
//! [-1, 1]. Range 0: every value decodes to the offset. NaN or infinity in the group: NaN parameters. A fixed
//! range has no place for a mark: values must be finite then (a kv_cache accepts no others, and
//! sparse_values keeps a NaN). Beyond the outermost levels codes saturate.
//! Source: arXiv 2401.18079, section 3.3.
template <int Bits, nuq_range Range, storage_float Param = float16>
struct nuq {
  static constexpr char const* name = "nuq";
  static constexpr int bits = Bits;
  static constexpr int planes = Range == nuq_range::fixed ? 0 : 2;
  static constexpr int levels = (1 << Bits) - 1;
  static constexpr bool associative = true;  //!< merge is exact however neighbours are grouped
  using param_type = Param;
  using statistics = range_statistics;
  nuq_table<Bits> table{};

  static constexpr void describe(description& d) noexcept {
    d << name << Bits;
    if constexpr (Range == nuq_range::group) d << "(range," << storage_name<Param>() << ")";
  }
  //! FNV-1a over both sets of levels.
  std::uint64_t id() const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (int i = 0; i < (1 << Bits); ++i) {
      hash = (hash ^ float_bits(table.levels[i])) * 0x100000001B3u;
      hash = (hash ^ float_bits(table.decoded[i])) * 0x100000001B3u;
    }
    return hash;
  }

  KVCRUMB_API statistics lift(float x) const noexcept { return range_statistics::of(x); }
  KVCRUMB_API static statistics merge(statistics a, statistics b) noexcept {
    return range_statistics::merged(a, b);
  }
  KVCRUMB_API group_params fit(statistics s, int /*n*/) const noexcept {
    if (!s.finite) return poisoned_params();
    if constexpr (Range == nuq_range::fixed) {
      return {};
    } else {
      s.low = add_rn(s.low, 0.0f);  // -0 becomes +0
      s.high = add_rn(s.high, 0.0f);
      float const middle = add_rn(mul_rn(0.5f, s.low), mul_rn(0.5f, s.high));
      float const offset = to_float(from_float_saturate<Param>(middle));
      float const above = sub_rn(s.high, offset), below = sub_rn(offset, s.low);
      return {{to_float(from_float_up<Param>(below > above ? below : above)), offset}, 0.0f};
    }
  }
  KVCRUMB_API unsigned encode(float x, group_params const& p) const noexcept {
    if constexpr (Range == nuq_range::fixed) {
      return table.nearest(x);
    } else {
      return table.nearest(is_positive_bits(p.value[0]) ? div_rn(sub_rn(x, p.value[1]), p.value[0]) : 0.0f);
    }
  }
  KVCRUMB_API constexpr float unit(unsigned code) const noexcept { return table.decoded[code]; }
  KVCRUMB_API linear_params linear(group_params const& p) const noexcept {
    if constexpr (Range == nuq_range::fixed) {
      return {1.0f, 0.0f};
    } else {
      return {p.value[0], p.value[1]};
    }
  }
};

}  // namespace kvcrumb::inline v0
