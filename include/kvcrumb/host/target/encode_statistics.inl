// SPDX-License-Identifier: Apache-2.0
//! @file Statistics of groups into working memory, sixteen or more groups at a time. Included once per target
//! by targets.hpp.

//! Keys of the smallest and the largest of n channels, n a multiple of 32 (of 16 for floats), in sixteen
//! elements each.
template <class Row>
KVCRUMB_TARGET_INLINE void widen_range(Row const* x, int n, channels32<Row>& low,
                                       channels32<Row>& high) noexcept {
  for (int d = 0; d < n; d += 32) {
    if constexpr (std::is_same_v<Row, float>) {
      if (n - d < 32) {
        auto const v = load_as<i32x16>(x + d);
        low.keys[0] = encode_ops::smaller(low.keys[0], encode_ops::key(v));
        high.keys[0] = encode_ops::larger(high.keys[0], encode_ops::key(v));
        return;
      }
    }
    auto const v = channels32<Row>::load_for_extremes(x + d);
    low = channels32<Row>::smaller(low, v);
    high = channels32<Row>::larger(high, v);
  }
}

//! Statistics of one side. Row head 0 is the first one that shares groups.
template <class Codec, class Row>
struct group_statistics {
  encode_plan const& plan;
  encode_memory const& memory;
  rows_view<Row const> rows;
  std::uint8_t const* isolated;  //!< [heads][count] or null
  int count;
  bool distant;  //!< whether rows shall be fetched

  KVCRUMB_TARGET_INLINE bool is_out(int head, int i) const noexcept {
    return isolated != nullptr && isolated[static_cast<std::int64_t>(head) * count + i] != 0;
  }
  //! Tokens of a group that are not isolated.
  int kept(int group) const noexcept {
    int n = 0;
    for (int i = group * plan.group; i < (group + 1) * plan.group; ++i)
      n += is_out(0, i) ? 0 : 1;
    return n;
  }

  //! One group of tokens, all channels.
  void of_channels(int group, next_rows& next) const noexcept {
    std::int64_t const at = static_cast<std::int64_t>(group) * plan.stride;
    int const begin = group * plan.group, end = begin + plan.group;
    Row const* kept_rows[max_tile_tokens];
    int used = 0;
    for (int i = begin; i < end; ++i)
      if (!is_out(0, i)) kept_rows[used++] = rows.row(0, i);
    f32x16 const n = splat(static_cast<float>(used));
    for (int d = 0; d < plan.width();) {
      switch ((plan.width() - d) / 32) {
        case 1: d = ranges<1>(kept_rows, used, d, at, next); break;
        case 2: d = ranges<2>(kept_rows, used, d, at, next); break;
        case 3: d = ranges<3>(kept_rows, used, d, at, next); break;
        default: d = ranges<4>(kept_rows, used, d, at, next);
      }
    }
    for (int d = 0; d < plan.width(); d += 32) {
      for (int e = d; e < d + 32; e += 16) {
        store(memory.count + at + e, n);
        if constexpr (codec16<Codec>::squares) {
          tree_sum16 sum;
          for (int i = 0; i < used; ++i) {
            f32x16 const x = floats16(kept_rows[i] + e);
            sum.add(encode_ops::mul(x, x));
          }
          // The largest magnitude tells whether the group is finite.
          i32x16 const largest = encode_ops::larger(bits_of(magnitude(load(memory.low + at + e))),
                                                    bits_of(magnitude(load(memory.high + at + e))));
          store(memory.high + at + e, floats_of(largest));
          store(memory.low + at + e, sum.full != 0 ? sum.total() : f32x16{});
        }
      }
    }
    if constexpr (codec16<Codec>::first_decides) {
      for (int d = 0; d < plan.width(); ++d) {
        if (!is_tie(at + d)) continue;
        for (int i = begin; i < end; ++i)
          if (!is_out(0, i) && settle(at + d, to_float(rows.row(0, i)[d]))) break;
      }
    }
  }

  //! The groups of up to sixteen tokens from `first` on, of heads that share them.
  void of_tokens(int heads, int first, next_rows& next) const noexcept {
    for (int group = 0; group < plan.groups; ++group) {
      int const begin = group * plan.group;
      int const n = plan.width() - begin < plan.group ? plan.width() - begin : plan.group;
      std::int64_t const at = static_cast<std::int64_t>(group) * plan.stride + first;
      i32x16 lows[16], highs[16];
      float values[16];
      for (int j = 0; j < 16; ++j) {
        using channels = channels32<Row>;
        channels low = channels::splat(channels::highest), high = channels::splat(channels::lowest);
        values[j] = 0.0f;
        for (int h = 0; h < heads && first + j < count; ++h) {
          if (is_out(h, first + j)) continue;
          if (distant) fetch(rows.row(h, first + j + rows_ahead) + begin, n);
          next.step(2);
          widen_range(rows.row(h, first + j) + begin, n, low, high);
          values[j] += static_cast<float>(n);
        }
        lows[j] = low.smaller_of_pairs();
        highs[j] = high.larger_of_pairs();
      }
      f32x16 low = channels32<Row>::of_pairs(reduce_pairs(lows, merge_smaller{}));
      f32x16 high = channels32<Row>::of_pairs(reduce_pairs(highs, merge_larger{}));
      if constexpr (codec16<Codec>::squares) {
        high = floats_of(encode_ops::larger(bits_of(magnitude(low)), bits_of(magnitude(high))));
        float sums[16];
        for (int j = 0; j < 16; ++j)
          sums[j] = values[j] > 0.0f ? sum_of_squares(heads, first + j, begin, n) : 0.0f;
        low = load(sums);
      }
      store(memory.low + at, low);
      store(memory.high + at, high);
      store(memory.count + at, load(values));
      if constexpr (codec16<Codec>::first_decides) {
        for (int j = 0; j < 16; ++j) {
          if (values[j] == 0.0f || !is_tie(at + j)) continue;
          bool settled = false;
          for (int h = 0; h < heads && !settled; ++h) {
            for (int d = begin; d < begin + n && !settled && !is_out(h, first + j); ++d)
              settled = settle(at + j, to_float(rows.row(h, first + j)[d]));
          }
        }
      }
    }
  }

 private:
  //! The smallest and the largest values of 32 * Chunks channels from d on; returns the next channel.
  template <int Chunks>
  int ranges(Row const* const* kept_rows, int used, int d, std::int64_t at, next_rows& next) const noexcept {
    using channels = channels32<Row>;
    channels low[Chunks], high[Chunks];
    KVCRUMB_TARGET_UNROLL
    for (int c = 0; c < Chunks; ++c) {
      low[c] = channels::splat(channels::highest);
      high[c] = channels::splat(channels::lowest);
    }
    for (int i = 0; i < used; ++i) {
      Row const* const row = kept_rows[i] + d;
      if (distant) fetch(row + rows_ahead * rows.stride_token, 32 * Chunks);
      next.step(2);
      KVCRUMB_TARGET_UNROLL
      for (int c = 0; c < Chunks; ++c) {
        channels const x = channels::load_for_extremes(row + 32 * c);
        low[c] = channels::smaller(low[c], x);
        high[c] = channels::larger(high[c], x);
      }
    }
    KVCRUMB_TARGET_UNROLL
    for (int c = 0; c < Chunks; ++c, d += 32) {
      low[c].store(memory.low + at + d);
      high[c].store(memory.high + at + d);
    }
    return d;
  }

  //! In the order of tree_fold over the channels of all heads that are not isolated.
  float sum_of_squares(int heads, int token, int begin, int n) const noexcept {
    float sums[272];  // groups have at most 4096 channels
    sums_of_16 pieces{sums};
    int used = 0;
    for (int h = 0; h < heads; ++h) {
      if (is_out(h, token)) continue;
      for (int d = begin; d < begin + n; d += 16, ++used) {
        f32x16 const x = floats16(rows.row(h, token) + d);
        pieces.add(encode_ops::mul(x, x));
      }
    }
    pieces.flush();
    return tree_sum(sums, used);
  }
  bool is_tie(std::int64_t at) const noexcept {
    return float_bits(memory.low[at]) == (float_bits(memory.high[at]) | 0x80000000u);
  }
  //! Makes x the extreme value if it is one of those that tie.
  bool settle(std::int64_t at, float x) const noexcept {
    if (float_bits(x) == float_bits(memory.low[at])) {
      memory.high[at] = 0.0f;
    } else if (float_bits(x) == float_bits(memory.high[at])) {
      memory.low[at] = 0.0f;
    } else {
      return false;
    }
    return true;
  }
};
