// SPDX-License-Identifier: Apache-2.0
//! @file factored<Bits, Group, Width>: blocks of tokens as a coded orthogonal factor times a small exact one.
#pragma once

#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/numeric/symmetric_eigen.hpp"
#include "kvcrumb/scheme/composed.hpp"

namespace kvcrumb::inline v0 {

//! DecoQuant's decomposition (arXiv 2405.12591: a matrix product operator of two tensors, which is an SVD of
//! the reshaped matrix). A block of `Group` tokens of one head is reshaped to X, Group * head_dim / Width
//! rows of `Width` neighbouring channels, and written as X = L S:
//! - L has the shape of X and columns that are orthogonal and of mean square 1 over the rows that are not
//!   isolated: the left singular vectors. Coded symmetrically with `Bits` bits and one fp16 scale per token;
//! - S is Width x Width, singular values times right singular vectors, over the root of the rows; kept in
//! fp16. Directions below 2^-12 of the largest singular value are dropped: rounding S to fp16 costs more.
//! Isolated tokens take no part; their slots decode to 0. Sizes beyond fp16 in S saturate; a NaN or an
//! infinity in a block makes its S NaN.
//!
//! Section: that of the coded L, then S of each block, [block][row][column] fp16. Bits + 16 / D + 16 Width^2
//! / (Group D). Attention folds S into the query once per block and applies it once to the weighted sum of L.
//! Cost of encode: 2 Width multiplications per value and one eigenvalue problem of size Width per block.
template <int Bits, int Group = 128, int Width = 8, layout Layout = fragment>
struct factored {
  static_assert(Group >= 16 && Group <= 128 && (Group & (Group - 1)) == 0,
                "kvcrumb::factored: Group must be 16, 32, 64 or 128");
  static_assert(Width >= 2 && Width <= 16, "kvcrumb::factored: Width must be in [2, 16]");
  using coded = composed<symmetric<Bits>, per_row, identity, Layout>;  //!< of L
  static constexpr int append_tokens = Group;
  static constexpr int factor_size = Width * Width;

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if (shape.tile_tokens % Group != 0) return status::bad_group;
    if (shape.head_dim % Width != 0) return status::bad_head_dim;
    return coded{}.supports(which, shape, heads);
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return factor_base(which, shape) + std::int64_t{blocks(shape)} * factor_size * 2;
  }
  std::uint64_t state_id(int, int) const noexcept { return 0; }
  //! For example "factored8 per 128 tokens symmetric4(f16) per_row0 identity fragment".
  static constexpr void describe(description& d) noexcept {
    d << "factored" << Width << " per " << Group << " tokens ";
    coded::describe(d);
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; i += Group)
        encode_block(which, shape, r, head, i, tracer);
    }
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int, int head_dim, float const* q, float* prepared) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      prepared[d] = q[d];
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float row[max_head_dim];
    decode_row(side::key, shape, 0, section, slot, row);
    return dot(prepared, row, shape.head_dim);
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    float row[max_head_dim];
    decode_row(side::value, shape, 0, section, slot, row);
    add_scaled(w, row, shape.head_dim, o);
  }
  void finish(int, int, float*, float) const noexcept {}
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    float left[max_head_dim], factor[factor_size];
    coded{}.decode_row(which, shape, head, section, slot, left);
    load_factor(which, shape, section, slot / Group, factor);
    for (int d = 0; d < shape.head_dim; ++d)
      row[d] = 0.0f;
    apply(factor, left, shape.head_dim, row);
  }

  //! Decoded rows of L, the factors, one row of scratch.
  std::int64_t tile_floats(side, tile_shape shape) const noexcept {
    return std::int64_t{shape.tile_tokens} * shape.head_dim + blocks(shape) * factor_size + shape.head_dim;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    section_spec const s = coded::spec(which, shape);
    unpack_codes<Layout>(s, section, work);
    for (int t = 0; t < shape.tile_tokens; ++t) {
      float const scale = coded{}.params(s, section, t, 0).value[0];
      float* row = work + std::int64_t{t} * shape.head_dim;
      for (int d = 0; d < shape.head_dim; ++d)
        row[d] = scale * symmetric<Bits>{}.unit(static_cast<unsigned>(row[d]));
    }
    for (int block = 0; block < blocks(shape); ++block)
      load_factor(which, shape, section, block, factors(shape, work) + block * factor_size);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    float* folded = scratch(shape, work);
    for (int block = 0; block < blocks(shape); ++block) {
      float const* factor = factors(shape, work) + block * factor_size;
      for (int first = 0; first < shape.head_dim; first += Width) {
        for (int j = 0; j < Width; ++j)
          folded[first + j] = dot(factor + j * Width, prepared + first, Width);
      }
      for (int t = block * Group; t < (block + 1) * Group; ++t)
        scores[t] = dot(folded, work + std::int64_t{t} * shape.head_dim, shape.head_dim);
    }
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    float* sum = scratch(shape, work);
    for (int block = 0; block < blocks(shape); ++block) {
      bool any = false;
      for (int d = 0; d < shape.head_dim; ++d)
        sum[d] = 0.0f;
      for (int t = block * Group; t < (block + 1) * Group; ++t) {
        if (weights[t] == 0.0f) continue;  // whatever the slot holds
        add_scaled(weights[t], work + std::int64_t{t} * shape.head_dim, shape.head_dim, sum);
        any = true;
      }
      if (any) apply(factors(shape, work) + block * factor_size, sum, shape.head_dim, o);
    }
  }

  //! S of one block of tokens, [row][column].
  void load_factor(side which, tile_shape shape, std::byte const* section, int block,
                   float* factor) const noexcept {
    for (int i = 0; i < factor_size; ++i) {
      unsigned const bits = load_bits(section, factor_bit(which, shape, block, i), 16);
      factor[i] = to_float(float16{static_cast<std::uint16_t>(bits)});
    }
  }

 private:
  static constexpr int blocks(tile_shape shape) noexcept { return shape.tile_tokens / Group; }
  static constexpr std::int64_t factor_base(side which, tile_shape shape) noexcept {
    return align_up(coded{}.section_bytes(which, shape), 2);
  }
  static constexpr std::int64_t factor_bit(side which, tile_shape shape, int block, int i) noexcept {
    return (factor_base(which, shape) + (std::int64_t{block} * factor_size + i) * 2) * 8;
  }
  static float* factors(tile_shape shape, float* work) noexcept {
    return work + std::int64_t{shape.tile_tokens} * shape.head_dim;
  }
  static float* scratch(tile_shape shape, float* work) noexcept {
    return factors(shape, work) + blocks(shape) * factor_size;
  }
  //! row += left * S, Width channels at a time.
  static void apply(float const* factor, float const* left, int head_dim, float* row) noexcept {
    for (int first = 0; first < head_dim; first += Width) {
      for (int j = 0; j < Width; ++j)
        add_scaled(left[first + j], factor + j * Width, Width, row + first);
    }
  }

  //! X^T X / rows of the tokens of a block that are not isolated; false if one of their values is not finite.
  static bool gram(tile_shape shape, float const* rows, std::uint8_t const* isolated,
                   double (&g)[Width][Width]) noexcept {
    std::int64_t n = 0;
    for (int t = 0; t < Group; ++t) {
      if (isolated != nullptr && isolated[t] != 0) continue;
      for (int first = 0; first < shape.head_dim; first += Width, ++n) {
        float const* x = rows + std::int64_t{t} * shape.head_dim + first;
        for (int i = 0; i < Width; ++i) {
          if (!is_finite_bits(x[i])) return false;
          for (int j = i; j < Width; ++j)  // products of floats are exact in double
            g[i][j] = detail::hidden_step(g[i][j] + static_cast<double>(x[i]) * static_cast<double>(x[j]));
        }
      }
    }
    for (int i = 0; i < Width; ++i) {
      for (int j = i; j < Width; ++j)
        g[j][i] = g[i][j] = n > 0 ? detail::divide_step(g[i][j], static_cast<double>(n)) : 0.0;
    }
    return true;
  }

  template <class Tracer>
  void encode_block(side which, tile_shape shape, encode_request const& r, int head, int first,
                    Tracer& tracer) const noexcept {
    float* rows = r.rows + (std::int64_t{head} * r.count + first) * shape.head_dim;
    std::uint8_t const* isolated =
        r.isolated == nullptr ? nullptr : r.isolated + std::int64_t{head} * r.count + first;
    if constexpr (traces_rows<Tracer>) {
      for (int t = 0; t < Group; ++t)
        tracer.on_row(which, head, r.position + first + t, rows + std::int64_t{t} * shape.head_dim,
                      shape.head_dim);
    }
    double g[Width][Width] = {}, to_left[Width][Width] = {};  // L = X to_left^T
    bool const finite = gram(shape, rows, isolated, g);
    eigen_pairs<Width> e;
    if (finite) e = symmetric_eigen(g);
    for (int j = 0; j < Width; ++j) {
      bool const keeps = finite && e.value[j] > 0.0 && e.value[j] > e.value[0] * 0x1p-24;
      double const size = keeps ? detail::square_root_step(e.value[j]) : 0.0;
      for (int i = 0; i < Width; ++i) {
        float value = static_cast<float>(detail::multiply_step(size, e.vector[j][i]));
        if (!finite) value = poisoned_params().value[0];
        store_bits(r.sections[head], factor_bit(which, shape, (r.slot + first) / Group, j * Width + i), 16,
                   from_float_saturate<float16>(value).bits);
        if (keeps) to_left[j][i] = detail::divide_step(e.vector[j][i], size);
      }
    }
    for (int t = 0; t < Group; ++t)
      encode_row(which, shape, r, head, first + t, to_left, tracer);
  }

  template <class Tracer>
  void encode_row(side which, tile_shape shape, encode_request const& r, int head, int token,
                  double const (&to_left)[Width][Width], Tracer& tracer) const noexcept {
    std::int64_t const at = std::int64_t{head} * r.count + token;
    float* row = r.rows + at * shape.head_dim;
    float x[max_head_dim];
    for (int d = 0; d < shape.head_dim; ++d)
      x[d] = row[d];
    for (int first = 0; first < shape.head_dim; first += Width) {
      for (int j = 0; j < Width; ++j) {
        double sum = 0.0;
        for (int i = 0; i < Width; ++i) {
          double const term = detail::multiply_step(static_cast<double>(x[first + i]), to_left[j][i]);
          sum = detail::hidden_step(sum + term);
        }
        row[first + j] = static_cast<float>(sum);
      }
    }
    null_tracer none;
    bool const out = r.isolated != nullptr && r.isolated[at] != 0;
    std::uint8_t const flag = out ? 1 : 0;
    coded{}.encode(which, shape, {row, &flag, r.sections + head, 1, 1, r.slot + token, 0}, none);
    if constexpr (traces_elements<Tracer>) {
      if (out) return;
      decode_row(which, shape, head, r.sections[head], r.slot + token, row);
      for (int d = 0; d < shape.head_dim; ++d)
        tracer.on_element({which, head, r.position + token, d}, x[d], row[d]);
    }
  }
};

}  // namespace kvcrumb::inline v0
