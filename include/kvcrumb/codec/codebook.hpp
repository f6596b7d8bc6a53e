// SPDX-License-Identifier: Apache-2.0
//! @file Non-uniform codes: a table of levels and one scale per group.
#pragma once

#include "kvcrumb/codec/concept.hpp"
#include "kvcrumb/codec/tables.hpp"
#include "kvcrumb/numeric/square_root.hpp"

namespace kvcrumb::inline v0 {

//! What one unit of the table is worth in a group.
enum class codebook_scale : std::uint8_t {
  absmax,  //!< max|x| / largest level: the group fills the table (NF4, E2M1)
  rms,     //!< sqrt(mean x^2): levels are in standard deviations (Lloyd-Max, TurboQuant's norm / sqrt(d))
};

//! code = nearest level of x / scale; x_hat = level * scale. The scale is rounded to nearest and saturates;
//! with scale 0 every value gets the level nearest to zero. NaN or infinity in the group: NaN scale.
template <codebook_table Table, storage_float Param = float16, codebook_scale Scale = codebook_scale::absmax>
struct codebook {
  static constexpr char const* name = Table::name;
  static constexpr int bits = Table::bits;
  static constexpr int planes = 1;
  static constexpr int levels = (1 << Table::bits) - 1;
  using param_type = Param;
  Table table{};

  static constexpr void describe(description& d) noexcept {
    d << name << (Scale == codebook_scale::absmax ? "(absmax," : "(rms,") << storage_name<Param>() << ")";
  }
  //! FNV-1a over the levels of a caller's table.
  std::uint64_t id() const noexcept requires requires(Table t) { t.levels; }
  {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (float const level : table.levels)
      hash = (hash ^ float_bits(level)) * 0x100000001B3u;
    return hash;
  }

  struct statistics {
    float value = 0.0f;  //!< running maximum of |x|, or sum of squares
    bool finite = true;
  };
  KVCRUMB_API statistics lift(float x) const noexcept {
    float const m = absolute(x);
    return {Scale == codebook_scale::absmax ? m : mul_rn(x, x), is_finite_bits(x)};
  }
  KVCRUMB_API static statistics merge(statistics a, statistics b) noexcept {
    float const value =
        Scale == codebook_scale::absmax ? (b.value > a.value ? b.value : a.value) : add_rn(a.value, b.value);
    return {value, a.finite && b.finite};
  }
  KVCRUMB_API group_params fit(statistics s, int n) const noexcept {
    if (!s.finite) return poisoned_params();
    float const unit_value = Scale == codebook_scale::absmax
                                 ? div_rn(s.value, table.max_level())
                                 : sqrt_rn(div_rn(s.value, static_cast<float>(n)));
    return {{to_float(from_float_saturate<Param>(unit_value)), 0.0f}, 0.0f};
  }
  KVCRUMB_API unsigned encode(float x, group_params const& p) const noexcept {
    return table.nearest(is_positive_bits(p.value[0]) ? div_rn(x, p.value[0]) : 0.0f);
  }
  KVCRUMB_API constexpr float unit(unsigned code) const noexcept { return table.level(code); }
  KVCRUMB_API linear_params linear(group_params const& p) const noexcept { return {p.value[0], 0.0f}; }
};

//! Normal-float codes with the absolute maximum as scale (QLoRA; NQKV arXiv 2505.16210).
template <storage_float Param = float16>
using nf4 = codebook<nf4_table, Param>;
template <storage_float Param = float16>
using nf3 = codebook<nf3_table, Param>;
template <storage_float Param = float16>
using nf2 = codebook<nf2_table, Param>;
//! Lloyd-Max codes scaled by the root mean square of the group.
template <int Bits, storage_float Param = float16>
using lloyd_max = codebook<lloyd_max_table<Bits>, Param, codebook_scale::rms>;
//! E2M1 codes with one scale per group (NVFP4: per_token<16> and float8_e4m3).
template <storage_float Param = float8_e4m3>
using e2m1 = codebook<e2m1_table, Param>;

}  // namespace kvcrumb::inline v0
