// SPDX-License-Identifier: Apache-2.0
//! @file What host::encode knows before it looks at rows: which schemes it can do, the shape of a section,
//! memory.
#pragma once

#include <concepts>

#include "kvcrumb/host/format.hpp"
#include "kvcrumb/host/instruction_set.hpp"
#include "kvcrumb/host/memory.hpp"
#include "kvcrumb/transform/identity.hpp"
#include "kvcrumb/view/row_request.hpp"

namespace kvcrumb::inline v0::host {

using kvcrumb::row_request;

//! What host::encode knows about one side of a scheme; the primary template is a scheme that it cannot
//! encode.
template <class Scheme>
struct encode_facts {
  static constexpr bool supported = false;
};
template <class Codec, class Grouping, class Transform>
struct encode_facts<composed<Codec, Grouping, Transform, fragment>> {
  using codec_type = Codec;
  using grouping_type = Grouping;
  using scheme_type = composed<Codec, Grouping, Transform, fragment>;
  static constexpr bool supported = scheme_facts<scheme_type>::supported;
  //! Whether rows are copied to floats first: to be transformed, or because groups do not fill vectors of
  //! two-byte numbers.
  static constexpr bool needs_floats =
      !std::same_as<Transform, identity> || (!Grouping::channelwise && Grouping::size % 32 != 0);
  //! Groups of channels must fill vectors of 16 floats; the last one of a row may be shorter.
  static constexpr bool fits(int head_dim) noexcept {
    return Grouping::channelwise || Grouping::group_length(head_dim) % 16 == 0;
  }
};

//! Where the levels of a codebook begin. Levels are numbered by size: rank 0 is the lowest.
struct codebook_steps {
  std::int32_t above[15] = {};  //!< the largest ordered_key whose level has a rank of at most i
  float code[16] = {};          //!< of a rank
  bool in_order = true;         //!< every code is its rank
  //! The steps as a binary search meets them: search[l][j] is the middle one of part j of 2^l.
  alignas(32) std::int32_t search[4][8] = {};

  //! By bisection over all floats, so that a table needs to offer no more than `nearest`.
  template <codebook_table Table>
  static codebook_steps of(Table const& table) noexcept {
    codebook_steps steps;
    for (std::int32_t& a : steps.above)
      a = 0x7FFFFFFF;
    std::int64_t const top = 0x7F800000;  // the key of infinity
    std::int64_t low = -top - 1;
    for (int rank = 0; rank < 1 << Table::bits; ++rank) {
      unsigned const code = table.nearest(at(low));
      steps.code[rank] = static_cast<float>(code);
      steps.in_order = steps.in_order && static_cast<int>(code) == rank;
      std::int64_t high = top + 1;  // the level at low is this one, that at high is not
      while (high - low > 1) {
        std::int64_t const middle = (low + high) / 2;
        (table.nearest(at(middle)) == code ? low : high) = middle;
      }
      if (high > top || rank == 15) break;
      steps.above[rank] = static_cast<std::int32_t>(low);
      low = high;
    }
    for (int l = 0; l < 4; ++l) {
      for (int j = 0; j < 1 << l; ++j)
        steps.search[l][j] = steps.above[((2 * j + 1) << (3 - l)) - 1];
    }
    return steps;
  }
  //! The float of an ordered key.
  static float at(std::int64_t key) noexcept {
    std::uint32_t const bits = static_cast<std::uint32_t>(key);
    return float_from_bits(key < 0 ? bits ^ 0x7FFFFFFFu : bits);
  }
  //! Of a codec; empty where it is no codebook. Tables without a state are bisected once per program.
  template <class Codec>
  static codebook_steps of_codec(Codec const& codec) noexcept {
    if constexpr (codec_facts<Codec>::has_levels) {
      if constexpr (std::is_empty_v<decltype(codec.table)>) {
        static codebook_steps const steps = of(codec.table);
        return steps;
      } else {
        return of(codec.table);
      }
    } else {
      return {};
    }
  }
};

//! The shape of one side, as the encoder walks over it.
struct encode_plan {
  section_spec spec{};
  bool key = true;
  int bits = 2;  //!< of codes while words are put together: 3-bit sections are 4-bit ones until the end
  int p_fields = 1, k_fields = 1, p_units = 1, units = 1;
  int groups = 1;          //!< of a request: parameter vectors in memory
  int group = 128;         //!< tokens or channels
  int stride = 128;        //!< owners of a group in memory
  int head_span = 1;       //!< kv heads that share groups
  unsigned zero_code = 0;  //!< of 0 with zero parameters

  template <class Facts, class Scheme>
  static encode_plan of(Scheme const& scheme, side which, tile_shape shape) noexcept {
    encode_plan p;
    p.spec = Scheme::spec(which, shape);
    p.key = which == side::key;
    p.bits = p.spec.bits == 3 ? 4 : p.spec.bits;
    fragment::dealing const d = fragment::deal(p.spec);
    p.p_fields = d.p_fields;
    p.k_fields = d.k_fields;
    p.p_units = d.p_blocks / d.p_fields;
    p.units = d.units;
    p.groups = p.spec.groups();
    p.group = p.spec.group;
    p.stride = p.spec.owners();
    p.head_span = Facts::grouping_type::head_span(shape.head_dim);
    p.zero_code = scheme.codec.encode(0.0f, group_params{});
    return p;
  }
  int width() const noexcept { return spec.shape.head_dim; }
  int tokens() const noexcept { return spec.shape.tile_tokens; }
};

//! Working memory of host::encode, 64-byte aligned.
struct encode_memory {
  float *value[2] = {}, *work = nullptr;  //!< [groups][stride], group_params of all groups
  float *low = nullptr,
        *high = nullptr;          //!< [groups][stride], smallest and largest values, or sums of squares
  float* count = nullptr;         //!< [groups][stride], values of a group
  std::int16_t* above = nullptr;  //!< [7][groups][stride], see thresholds
  std::uint16_t* fill = nullptr;  //!< [groups][stride], codes of isolated tokens
  std::byte* wide = nullptr;      //!< a 3-bit section with 4 bits each
  float* rows = nullptr;          //!< [span][count][head_dim], where rows must be changed or widened
  std::int64_t row_count = 0;

  static encode_memory of(encode_plan const& p, bool rows, memory_pieces& pieces) noexcept {
    encode_memory m;
    std::int64_t const params = static_cast<std::int64_t>(p.groups) * p.stride;
    for (float** part : {&m.value[0], &m.value[1], &m.work, &m.low, &m.high, &m.count})
      *part = pieces.take<float>(params);
    if (p.spec.bits <= 3) m.above = pieces.take<std::int16_t>(7 * params);
    m.fill = pieces.take<std::uint16_t>(params);
    if (p.spec.bits == 3) m.wide = pieces.take<std::byte>(std::int64_t{p.units} * 512);
    m.row_count = static_cast<std::int64_t>(p.head_span) * p.tokens();
    if (rows) m.rows = pieces.take<float>(m.row_count * p.width());
    return m;
  }
};

}  // namespace kvcrumb::inline v0::host
