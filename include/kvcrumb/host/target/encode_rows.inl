// SPDX-License-Identifier: Apache-2.0
//! @file Rows in pieces of 32 channels: as floats, and as ordered integers for minima and maxima. Included
//! once per target by targets.hpp.

//! Sixteen channels as floats.
template <class Row>
KVCRUMB_TARGET_INLINE f32x16 floats16(Row const* p) noexcept {
  return load_stored(reinterpret_cast<std::byte const*>(p), Row{});
}

//! Floats of sixteen patterns of two bytes.
template <class Row>
KVCRUMB_TARGET_INLINE f32x16 floats_of_bits(u16x16 const& bits) noexcept {
  if constexpr (std::is_same_v<Row, float16>) {
    return encode_ops::widen(bits);
  } else {
    return floats_of(encode_ops::zero_extended(bits) << 16);
  }
}

//! How many rows ahead a pass over rows fetches them.
inline constexpr int rows_ahead = 48;
//! Brings n elements of a later row near, into the second level of caches: they are in a page that no
//! prefetcher of the processor has seen. They may lie behind the last row: it is only a hint.
template <class Row>
KVCRUMB_TARGET_INLINE void fetch(Row const* x, int n) noexcept {
  constexpr int line = 64 / static_cast<int>(sizeof(Row));
  for (int d = 0; d < n; d += line)
    ops::prefetch(x + d);
}

//! Rows that are needed next, fetched bit by bit while something else is computed.
struct next_rows {
  std::byte const* row = nullptr;  //!< null: none
  std::int64_t stride = 0;         //!< bytes
  int lines = 0;                   //!< of a row
  int left = 0;                    //!< lines
  int line = 0;                    //!< of the row

  template <class Row>
  static next_rows of(rows_view<Row const> const& rows, int head, int count, int width) noexcept {
    return {reinterpret_cast<std::byte const*>(rows.row(head, 0)),
            rows.stride_token * static_cast<std::int64_t>(sizeof(Row)),
            (width * static_cast<int>(sizeof(Row)) + 63) / 64,
            (width * static_cast<int>(sizeof(Row)) + 63) / 64 * count};
  }
  //! Fetches up to n lines.
  KVCRUMB_TARGET_INLINE void step(int n) noexcept {
    n = n < left ? n : left;
    left -= n;
    for (; n > 0; --n) {
      ops::prefetch(row + std::int64_t{64} * line);
      if (++line < lines) continue;
      line = 0;
      row += stride;
    }
  }
};

//! 32 neighbouring channels of a stored type in vectors of its width. `keys` are ordered_keys; those of the
//! lowest and the highest number are beyond infinity.
template <class Row>
struct channels32;

//! Two-byte floats.
template <class Row>
  requires(sizeof(Row) == 2)
struct channels32<Row> {
  i16x32 keys;
  static constexpr int infinity = static_cast<int>(float_format<Row>::overflow_bits);

  static KVCRUMB_TARGET_INLINE channels32 load(Row const* p) noexcept {
    return {encode_ops::key(load_as<i16x32>(p))};
  }
  static KVCRUMB_TARGET_INLINE channels32 load_for_extremes(Row const* p) noexcept {
    return {encode_ops::key_beside_extremes(load_as<i16x32>(p))};
  }
  static KVCRUMB_TARGET_INLINE channels32 splat(int key) noexcept {
    return {encode_ops::splat(static_cast<std::int16_t>(key))};
  }
  static constexpr int lowest = -0x8000, highest = 0x7FFF;
  static KVCRUMB_TARGET_INLINE channels32 smaller(channels32 const& a, channels32 const& b) noexcept {
    return {encode_ops::smaller(a.keys, b.keys)};
  }
  static KVCRUMB_TARGET_INLINE channels32 larger(channels32 const& a, channels32 const& b) noexcept {
    return {encode_ops::larger(a.keys, b.keys)};
  }
  //! The sixteen larger keys of pairs of channels, in the upper halves.
  KVCRUMB_TARGET_INLINE i32x16 larger_of_pairs() const noexcept {
    i32x16 const both = cast<i32x16>(keys);
    return encode_ops::larger(both, both << 16);
  }
  KVCRUMB_TARGET_INLINE i32x16 smaller_of_pairs() const noexcept {
    i32x16 const both = cast<i32x16>(keys);
    return encode_ops::smaller(both, both << 16);
  }
  //! Floats of keys as above.
  static KVCRUMB_TARGET_INLINE f32x16 of_pairs(i32x16 const& key) noexcept { return value(key >> 16); }
  KVCRUMB_TARGET_INLINE void store(float* to) const noexcept {
    auto const bits = cast<u16x32>(encode_ops::key(keys));
    store_as(to, floats_of_bits<Row>(encode_ops::lower_half(bits)));
    store_as(to + 16, floats_of_bits<Row>(encode_ops::upper_half(bits)));
  }

 private:
  static KVCRUMB_TARGET_INLINE f32x16 value(i32x16 const& key) noexcept {
    return floats_of_bits<Row>(encode_ops::low_halves(key ^ ((key >> 31) & 0x7FFF)));
  }
};

template <>
struct channels32<float> {
  i32x16 keys[2];

  static KVCRUMB_TARGET_INLINE channels32 load(float const* p) noexcept {
    return {{encode_ops::key(load_as<i32x16>(p)), encode_ops::key(load_as<i32x16>(p + 16))}};
  }
  static KVCRUMB_TARGET_INLINE channels32 load_for_extremes(float const* p) noexcept { return load(p); }
  static constexpr int lowest = std::numeric_limits<std::int32_t>::min(),
                       highest = std::numeric_limits<std::int32_t>::max();
  static KVCRUMB_TARGET_INLINE channels32 splat(int key) noexcept {
    return {{filled<i32x16>(key), filled<i32x16>(key)}};
  }
  static KVCRUMB_TARGET_INLINE channels32 smaller(channels32 const& a, channels32 const& b) noexcept {
    return {{encode_ops::smaller(a.keys[0], b.keys[0]), encode_ops::smaller(a.keys[1], b.keys[1])}};
  }
  static KVCRUMB_TARGET_INLINE channels32 larger(channels32 const& a, channels32 const& b) noexcept {
    return {{encode_ops::larger(a.keys[0], b.keys[0]), encode_ops::larger(a.keys[1], b.keys[1])}};
  }
  KVCRUMB_TARGET_INLINE i32x16 larger_of_pairs() const noexcept {
    return encode_ops::larger(keys[0], keys[1]);
  }
  KVCRUMB_TARGET_INLINE i32x16 smaller_of_pairs() const noexcept {
    return encode_ops::smaller(keys[0], keys[1]);
  }
  static KVCRUMB_TARGET_INLINE f32x16 of_pairs(i32x16 const& key) noexcept { return of_key(key); }
  KVCRUMB_TARGET_INLINE void store(float* to) const noexcept {
    store_as(to, of_key(keys[0]));
    store_as(to + 16, of_key(keys[1]));
  }
};

//! What sixteen vectors are reduced to by neighbouring pairs of elements, ((0+1)+(2+3))+..., one result per
//! vector.
template <class Merge>
KVCRUMB_TARGET_INLINE i32x16 reduce_pairs(i32x16 (&v)[16], Merge merge) noexcept {
  KVCRUMB_TARGET_UNROLL
  for (int count = 8; count > 0; count /= 2) {
    for (int i = 0; i < count; ++i)
      v[i] = merge(ops::evens(v[2 * i], v[2 * i + 1]), ops::odds(v[2 * i], v[2 * i + 1]));
  }
  return v[0];
}
struct merge_add {
  KVCRUMB_TARGET_INLINE i32x16 operator()(i32x16 const& a, i32x16 const& b) const noexcept {
    return bits_of(encode_ops::add(floats_of(a), floats_of(b)));
  }
};
struct merge_larger {
  KVCRUMB_TARGET_INLINE i32x16 operator()(i32x16 const& a, i32x16 const& b) const noexcept {
    return encode_ops::larger(a, b);
  }
};
struct merge_smaller {
  KVCRUMB_TARGET_INLINE i32x16 operator()(i32x16 const& a, i32x16 const& b) const noexcept {
    return encode_ops::smaller(a, b);
  }
};

//! Sums of sixteen channels each in the order of tree_fold, over a stream of vectors.
struct sums_of_16 {
  i32x16 pending[16];
  int count = 0;
  float* out;

  KVCRUMB_TARGET_INLINE explicit sums_of_16(float* to) noexcept : out{to} {}
  KVCRUMB_TARGET_INLINE void add(f32x16 const& v) noexcept {
    pending[count] = bits_of(v);
    if (++count == 16) flush();
  }
  //! Writes sixteen sums; those of vectors that were not given are meaningless.
  KVCRUMB_TARGET_INLINE void flush() noexcept {
    if (count == 0) return;
    for (int i = count; i < 16; ++i)
      pending[i] = i32x16{};
    i32x16 const sums = reduce_pairs(pending, merge_add{});
    store_as(out, sums);
    out += 16;
    count = 0;
  }
};

//! Sums of vectors in the order of tree_fold: element by element.
struct tree_sum16 {
  f32x16 stack[8];
  unsigned full = 0;

  KVCRUMB_TARGET_INLINE void add(f32x16 const& v) noexcept {
    f32x16 node = v;
    int level = 0;
    for (; ((full >> level) & 1u) != 0; ++level)
      node = encode_ops::add(stack[level], node);
    full = (full & ~((1u << level) - 1u)) | 1u << level;
    stack[level] = node;
  }
  KVCRUMB_TARGET_INLINE f32x16 total() const noexcept {
    int level = 0;
    while (((full >> level) & 1u) == 0)
      ++level;
    f32x16 sum = stack[level];
    for (++level; level < 8; ++level) {
      if (((full >> level) & 1u) != 0) sum = encode_ops::add(stack[level], sum);
    }
    return sum;
  }
};
