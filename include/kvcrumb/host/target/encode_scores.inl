// SPDX-License-Identifier: Apache-2.0
//! @file Scores of tokens (outlier/scores.hpp), many rows at a time. Included once per target by targets.hpp.

//! One vector of sixteen sums of neighbouring terms: of 32 two-byte channels pairs are already added.
template <class Score, class Row>
struct score_terms;

template <class Row>
struct score_terms<l1_score, Row> {
  static constexpr int channels = 16;
  static KVCRUMB_TARGET_INLINE f32x16 of(Row const* x) noexcept { return magnitude(floats16(x)); }
  static constexpr float unit = 1.0f;
};
template <>
struct score_terms<l1_score, float16> {
  static constexpr int channels = 32;
  //! In units of 2^-112, where a finite binary16 is a shifted pattern; sums of multiples of 2^-24 stay exact
  //! or are rounded alike there.
  static KVCRUMB_TARGET_INLINE f32x16 of(float16 const* x) noexcept {
    auto const pairs = load_as<i32x16>(x);
    i32x16 const first = (pairs & 0x7FFF) << 13, second = (pairs & 0x7FFF0000) >> 3;
    return encode_ops::add(floats_of(first), floats_of(second));
  }
  static constexpr float unit = 0x1p112f;
};
template <class Row>
struct score_terms<l2_score, Row> {
  static constexpr int channels = 16;
  static KVCRUMB_TARGET_INLINE f32x16 of(Row const* x) noexcept {
    f32x16 const v = floats16(x);
    return encode_ops::mul(v, v);
  }
  static constexpr float unit = 1.0f;
};

//! tree_sum of few floats, which are overwritten.
KVCRUMB_TARGET_INLINE float sum_of_few(float* x, int n) noexcept {
  for (; n > 1; n = (n + 1) / 2) {
    for (int i = 0; i < n / 2; ++i)
      x[i] = add_rn(x[2 * i], x[2 * i + 1]);
    if (n % 2 != 0) x[n / 2] = x[n - 1];
  }
  return x[0];
}

template <class Score, class Row>
float score_of_row(Row const* x, int width) noexcept {
  float row[max_head_dim];
  for (int d = 0; d < width; ++d)
    row[d] = to_float(x[d]);
  return Score{}(row, width);
}

//! The largest magnitudes; a NaN is not one.
template <class Row>
void absmax_rows_of(rows_view<Row const> rows, std::int64_t tokens, int width, float* scores) noexcept {
  for (std::int64_t i = 0; i < tokens; ++i) {
    i32x16 largest{};
    for (int d = 0; d < width; d += 16) {
      i32x16 const m = bits_of(floats16(rows.row(0, i) + d)) & 0x7FFFFFFF;
      largest = encode_ops::larger(largest, m & ~above(m, 0x7F800000));
    }
    scores[i] = float_from_bits(static_cast<std::uint32_t>(ops::largest(largest)));
  }
}

//! Scores of rows [0, tokens) of one head. Works on up to 512 pieces of rows at a time.
template <class Score, class Row>
void sum_rows_of(rows_view<Row const> rows, std::int64_t tokens, int width, float* scores) noexcept {
  using terms = score_terms<Score, Row>;
  int const pieces = width / terms::channels;
  constexpr int most = 512;
  float sums[most + 16];
  std::int64_t const step = most / pieces;
  for (std::int64_t first = 0; first < tokens; first += step) {
    std::int64_t const end = first + step < tokens ? first + step : tokens;
    sums_of_16 all{sums};
    for (std::int64_t i = first; i < end; ++i) {
      Row const* const x = rows.row(0, i);
      fetch(rows.row(0, i + rows_ahead), width);
      for (int d = 0; d < width; d += terms::channels)
        all.add(terms::of(x + d));
    }
    all.flush();
    float* sum = sums;
    for (std::int64_t i = first; i < end; ++i, sum += pieces) {
      scores[i] = mul_rn(sum_of_few(sum, pieces), terms::unit);
      // In units infinity is 2^16: only a sum that large can hold one, or a NaN.
      if (terms::unit != 1.0f && scores[i] >= 65536.0f)
        scores[i] = score_of_row<Score>(rows.row(0, i), width);
    }
  }
}
template <class Score, class Row>
void score_rows_of(rows_view<Row const> rows, std::int64_t tokens, int width, float* scores) noexcept {
  if constexpr (std::is_same_v<Score, absmax_score>) {
    absmax_rows_of(rows, tokens, width, scores);
  } else {
    sum_rows_of<Score, Row>(rows, tokens, width, scores);
  }
}
