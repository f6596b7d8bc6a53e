// SPDX-License-Identifier: Apache-2.0
//! @file Where codes come from: rows and the parameters or thresholds of their groups. Included once per
//! target by targets.hpp.

//! Rows of one head and where the parameters of each lie. `Few`: codes come from thresholds, not from the
//! codec's steps.
template <class Codec, class Row, bool Few>
struct code_rows {
  Codec const& codec;
  codebook_steps const& steps;
  encode_plan const& plan;
  encode_memory const& memory;
  std::int64_t params;                       //!< groups * stride
  Row const* row[max_tile_tokens];           //!< null: isolated
  std::int32_t first[max_tile_tokens];       //!< parameters of the first group
  std::int32_t group_at[max_head_dim / 16];  //!< of sixteen channels beyond it

  code_rows(Codec const& c, codebook_steps const& s, encode_plan const& p, encode_memory const& m,
            rows_view<Row const> const& rows, int head, std::uint8_t const* isolated, int count) noexcept
      : codec{c}, steps{s}, plan{p}, memory{m}, params{static_cast<std::int64_t>(p.groups) * p.stride} {
    for (int i = 0; i < count; ++i) {
      row[i] = isolated != nullptr && isolated[i] != 0 ? nullptr : rows.row(head, i);
      first[i] = p.spec.per_channel ? i / p.group * p.stride : i;
    }
    for (int d = 0; d < p.width(); d += 16)
      group_at[d / 16] = p.spec.per_channel ? d : d / p.group * p.stride;
  }
  KVCRUMB_TARGET_INLINE i32x16 steps_of(Row const* x, group_params16 const& p) const noexcept {
    return codec16<Codec>::template encode<std::is_same_v<Row, float16>>(codec, steps, floats16(x), p);
  }
};

//! Groups of tokens, one for each channel.
template <class Codec, class Row, bool Few>
struct channel_codes : code_rows<Codec, Row, Few> {
  using code_rows<Codec, Row, Few>::code_rows;

  struct cursor {
    channel_codes const& all;
    Row const* row;
    std::int64_t at;

    //! sum + weight * codes of channels 32 m, ...
    KVCRUMB_TARGET_INLINE u16x32 add(u16x32 const& sum, int m, u16x32 const& weight) const noexcept {
      encode_memory const& w = all.memory;
      std::int64_t const o = at + 32 * m;
      if (row == nullptr) {
        return sum + weight * load_as<u16x32>(w.fill + o);
      }
      Row const* const x = row + 32 * m;
      if constexpr (Few) {
        auto const keys = channels32<Row>::load(x).keys;
        std::int16_t const* above = w.above + o;
        u16x32 total = sum;
        KVCRUMB_TARGET_UNROLL
        for (int code = 0; code < Codec::levels; ++code, above += all.params)
          total = encode_ops::add_above(total, keys, load_as<i16x32>(above), weight);
        return total;
      } else {
        i32x16 c[2];
        KVCRUMB_TARGET_UNROLL
        for (int j = 0; j < 2; ++j) {
          std::int64_t const p = o + 16 * j;
          c[j] = all.steps_of(x + 16 * j, {{load(w.value[0] + p), load(w.value[1] + p)}, load(w.work + p)});
        }
        return sum + weight * encode_ops::narrow(c[0], c[1]);
      }
    }
  };
  KVCRUMB_TARGET_INLINE cursor at(int i) const noexcept { return {*this, this->row[i], this->first[i]}; }
};

//! Groups of channels, some for each token.
template <class Codec, class Row, bool Few>
struct token_codes : code_rows<Codec, Row, Few> {
  using code_rows<Codec, Row, Few>::code_rows;

  struct cursor {
    token_codes const& all;
    Row const* row;
    std::int64_t at;
    std::int32_t group = -1;  //!< whose thresholds are in `above`
    i16x32 above[Few ? Codec::levels : 1];

    KVCRUMB_TARGET_INLINE cursor(token_codes const& a, int i) noexcept
        : all{a}, row{a.row[i]}, at{a.first[i]} {}
    KVCRUMB_TARGET_INLINE u16x32 add(u16x32 const& sum, int m, u16x32 const& weight) noexcept {
      encode_memory const& w = all.memory;
      if (row == nullptr) return sum + weight * static_cast<std::uint16_t>(all.plan.zero_code);
      Row const* const x = row + 32 * m;
      if constexpr (Few) {
        if (all.group_at[2 * m] != group) {
          group = all.group_at[2 * m];
          KVCRUMB_TARGET_UNROLL
          for (int code = 0; code < Codec::levels; ++code)
            above[code] = encode_ops::splat(w.above[code * all.params + at + group]);
        }
        auto const keys = channels32<Row>::load(x).keys;
        u16x32 total = sum;
        KVCRUMB_TARGET_UNROLL
        for (int code = 0; code < Codec::levels; ++code)
          total = encode_ops::add_above(total, keys, above[code], weight);
        return total;
      } else {
        i32x16 c[2];
        KVCRUMB_TARGET_UNROLL
        for (int j = 0; j < 2; ++j) {
          std::int64_t const p = at + all.group_at[2 * m + j];
          c[j] = all.steps_of(x + 16 * j, {{splat(w.value[0][p]), splat(w.value[1][p])}, splat(w.work[p])});
        }
        return sum + weight * encode_ops::narrow(c[0], c[1]);
      }
    }
  };
  KVCRUMB_TARGET_INLINE cursor at(int i) const noexcept { return {*this, i}; }
};
