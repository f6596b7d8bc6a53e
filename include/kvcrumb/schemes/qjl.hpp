// SPDX-License-Identifier: Apache-2.0
//! @file QJL: keys as signs of a random projection, values as KIVI's.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/numeric/square_root.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/sketch_projection.hpp"

namespace kvcrumb::inline v0 {

//! QJL keys (arXiv 2406.03482; github.com/amirzandieh/QJL): of a key k, the signs of <s_j, k>, j in [0,
//! Bits), and |k|. The score is an unbiased estimate of <q, k> over projections with a variance of at most pi
//! / (2 Bits) |q|^2 |k|^2; nothing can be decoded.
//!
//! Outlier channels: the `Outliers` channels with the largest L2 norm over a group of `Group` tokens (ties:
//! the lower channel) are taken out of each key of the group and sketched apart, with the first OutlierBits
//! rows and a norm of their own. Outliers 0: none, and Group 1 makes the scheme row-independent.
//!
//! Section, T = tile_tokens: signs [T][Bits / 8], outlier signs [T][OutlierBits / 8], norms fp16 [T], outlier
//! norms fp16 [T], channels uint8 [T / Group][Outliers]. Sign j is bit j % 8 of byte j / 8, 1 if positive.
//! Isolated tokens have norm 0. A NaN or infinity in a group makes all its norms NaN; norms saturate at
//! 65504. Cost: encode (Bits + OutlierBits Outliers / head_dim) head_dim products a key, a query Bits
//! head_dim.
template <int Bits, int OutlierBits = Bits / 2, int Outliers = 8, int Group = 32>
struct qjl_keys {
  static_assert(Bits >= 8 && Bits <= 1024 && Bits % 8 == 0,
                "kvcrumb::qjl_keys: Bits must be a multiple of 8 in [8, 1024]");
  static_assert(Outliers >= 0 && Outliers <= 32, "kvcrumb::qjl_keys: Outliers must be in [0, 32]");
  static_assert(Outliers == 0 ? OutlierBits == 0
                              : OutlierBits >= 8 && OutlierBits <= Bits && OutlierBits % 8 == 0,
                "kvcrumb::qjl_keys: OutlierBits must be a multiple of 8 in [8, Bits], or 0 without outliers");
  static_assert(Group >= 1 && Group <= 128 && (Group & (Group - 1)) == 0,
                "kvcrumb::qjl_keys: Group must be a power of two in [1, 128]");
  static constexpr int append_tokens = Outliers == 0 ? 1 : Group;
  static constexpr int all_bits = Bits + OutlierBits;

  sketch_projection projection{};

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::key || heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if (shape.head_dim > max_width || shape.head_dim <= Outliers) return status::bad_head_dim;
    if (shape.tile_tokens % append_tokens != 0) return status::bad_group;
    return projection.fits(Bits, shape.head_dim);
  }
  constexpr std::int64_t section_bytes(side, tile_shape shape) const noexcept {
    return channel_offset(shape, shape.tile_tokens);
  }
  std::uint64_t state_id(int, int) const noexcept { return projection.id(); }
  static constexpr void describe(description& d) noexcept {
    d << "qjl" << Bits << "(f16,outliers" << Outliers << "x" << OutlierBits << ",group" << append_tokens
      << ")";
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      float* rows = r.rows + static_cast<std::int64_t>(head) * r.count * shape.head_dim;
      std::uint8_t const* isolated = r.isolated == nullptr ? nullptr : r.isolated + head * r.count;
      if constexpr (traces_rows<Tracer>) {
        for (int i = 0; i < r.count; ++i)
          tracer.on_row(which, head, r.position + i, rows + i * shape.head_dim, shape.head_dim);
      }
      for (int i = 0; i < r.count; i += append_tokens) {
        encode_group(shape, rows + i * shape.head_dim, isolated == nullptr ? nullptr : isolated + i,
                     r.slot + i, r.sections[head]);
      }
    }
  }
  void clear(side, tile_shape shape, int slot, int count, std::byte* section) const noexcept
      requires(append_tokens == 1) {
    for (int t = slot; t < slot + count; ++t)
      write_row(shape, t, nullptr, nullptr, 0.0f, 0.0f, section);
  }

  //! Prepared query: <s_j, q> of all rows, then q itself, of which each group wants other channels.
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return Bits + head_dim; }
  void prepare_query(int, int head_dim, float const* q, float* prepared) const noexcept {
    projection.project(q, Bits, prepared);
    for (int d = 0; d < head_dim; ++d)
      prepared[Bits + d] = q[d];
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float folded[all_bits], signs[all_bits];
    fold_query(prepared, section + channel_offset(shape, slot), folded);
    load_row(shape, section, slot, signs);
    return product(folded, signs);
  }

  //! Signs times their gain [tile_tokens][all_bits], channels as floats, and one folded query.
  std::int64_t tile_floats(side, tile_shape shape) const noexcept {
    return static_cast<std::int64_t>(shape.tile_tokens) * all_bits +
           shape.tile_tokens / append_tokens * Outliers + all_bits;
  }
  void load_tile(side, tile_shape shape, std::byte const* section, float* work) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t)
      load_row(shape, section, t, work + static_cast<std::int64_t>(t) * all_bits);
    std::byte const* stored = section + channel_offset(shape, 0);
    float* channels = work + static_cast<std::int64_t>(shape.tile_tokens) * all_bits;
    for (int i = 0; i < shape.tile_tokens / append_tokens * Outliers; ++i)
      channels[i] = static_cast<float>(stored[i]);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    float const* channels = work + static_cast<std::int64_t>(shape.tile_tokens) * all_bits;
    float* folded = work + tile_floats(side::key, shape) - all_bits;
    for (int t = 0; t < shape.tile_tokens; ++t) {
      if (t % append_tokens == 0 && (t == 0 || Outliers > 0))
        fold_query(prepared, channels + t / append_tokens * Outliers, folded);
      scores[t] = product(folded, work + static_cast<std::int64_t>(t) * all_bits);
    }
  }
  void accumulate_tile(tile_shape, float*, float const*, float*) const noexcept {}  // asked for by tile_hooks

 private:
  static constexpr int max_width = 256;  // a channel is a byte
  static constexpr int norms = Outliers > 0 ? 2 : 1;

  static constexpr std::int64_t norm_offset(tile_shape shape, int plane, int slot) noexcept {
    return static_cast<std::int64_t>(shape.tile_tokens) * (all_bits / 8) +
           2 * (static_cast<std::int64_t>(plane) * shape.tile_tokens + slot);
  }
  //! Outlier channels of the group that a slot belongs to.
  static constexpr std::int64_t channel_offset(tile_shape shape, int slot) noexcept {
    return norm_offset(shape, norms, 0) + slot / append_tokens * Outliers;
  }
  static constexpr std::int64_t sign_bit(tile_shape shape, int slot, int j) noexcept {
    return j < Bits ? static_cast<std::int64_t>(slot) * Bits + j
                    : static_cast<std::int64_t>(shape.tile_tokens) * Bits +
                          static_cast<std::int64_t>(slot) * OutlierBits + (j - Bits);
  }

  //! `dot` over all_bits floats, a multiple of 8 (g++ 12 warns of the rest loop where the length is a
  //! constant).
  static float product(float const* a, float const* b) noexcept {
    float partial[8] = {};
    for (int i = 0; i < all_bits; i += 8) {
      for (int j = 0; j < 8; ++j)
        partial[j] += a[i + j] * b[i + j];
    }
    return ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
           ((partial[4] + partial[5]) + (partial[6] + partial[7]));
  }
  //! signs[j] = +-gain, so that a score is one dot product with the folded query.
  void load_row(tile_shape shape, std::byte const* section, int slot, float* signs) const noexcept {
    for (int plane = 0; plane < norms; ++plane) {
      int const begin = plane == 0 ? 0 : Bits, end = plane == 0 ? Bits : all_bits;
      unsigned const stored = load_bits(section, norm_offset(shape, plane, slot) * 8, 16);
      float const gain = to_float(float16{static_cast<std::uint16_t>(stored)}) * projection.unit() /
                         static_cast<float>(end - begin);
      for (int j = begin; j < end; ++j)
        signs[j] = load_bits(section, sign_bit(shape, slot, j), 1) != 0u ? gain : -gain;
    }
  }
  //! The projected query without the outlier channels, and their part alone.
  template <class Channel>
  void fold_query(float const* prepared, Channel const* channels, float* folded) const noexcept {
    for (int j = 0; j < Bits; ++j) {
      float part = 0.0f;
      for (int i = 0; i < Outliers; ++i) {
        int const d = static_cast<int>(channels[i]);
        part += projection.row(j)[d] * prepared[Bits + d];
      }
      folded[j] = prepared[j] - part;
      if (j < OutlierBits) folded[Bits + j] = part;
    }
  }

  //! One group of append_tokens rows; `isolated` and `rows` begin at its first.
  void encode_group(tile_shape shape, float const* rows, std::uint8_t const* isolated, int slot,
                    std::byte* section) const noexcept {
    int const width = shape.head_dim;
    int kept[append_tokens], n = 0;
    bool finite = true;
    for (int i = 0; i < append_tokens; ++i) {
      if (isolated != nullptr && isolated[i] != 0) continue;
      kept[n++] = i;
      for (int d = 0; d < width; ++d)
        finite = finite && is_finite_bits(rows[i * width + d]);
    }
    bool outlier[max_width] = {};
    if constexpr (Outliers > 0) {
      choose_channels(rows, width, kept, finite ? n : 0, outlier);
      std::byte* channels = section + channel_offset(shape, slot);
      for (int d = 0; d < width; ++d) {
        if (outlier[d]) *channels++ = static_cast<std::byte>(d);
      }
    }
    float const nan = float_from_bits(0x7FC00000u);
    for (int i = 0, next = 0; i < append_tokens; ++i) {
      if (next == n || kept[next] != i) {
        write_row(shape, slot + i, nullptr, nullptr, 0.0f, 0.0f, section);
        continue;
      }
      ++next;
      float inside[max_width], outside[max_width];
      for (int d = 0; d < width; ++d) {
        inside[d] = outlier[d] ? 0.0f : rows[i * width + d];
        outside[d] = outlier[d] ? rows[i * width + d] : 0.0f;
      }
      write_row(shape, slot + i, inside, outside, finite ? length(inside, width) : nan,
                finite ? length(outside, width) : nan, section);
    }
  }

  //! Marks the channels of largest norm over n kept tokens; without tokens the first ones.
  static void choose_channels(float const* rows, int width, int const* kept, int n, bool* outlier) noexcept {
    float energy[max_width] = {};
    for (int d = 0; d < width && n > 0; ++d) {
      auto const square = [&](int i) { return mul_rn(rows[kept[i] * width + d], rows[kept[i] * width + d]); };
      energy[d] = tree_fold(n, square, add_rn);
    }
    for (int i = 0; i < Outliers; ++i) {
      int best = -1;
      for (int d = 0; d < width; ++d) {
        if (!outlier[d] && (best < 0 || energy[d] > energy[best])) best = d;
      }
      outlier[best] = true;
    }
  }
  static float length(float const* x, int width) noexcept {
    auto const square = [&](int d) { return mul_rn(x[d], x[d]); };
    return sqrt_rn(tree_fold(width, square, add_rn));
  }
  //! Signs and norms of one slot; null rows: zero bits.
  void write_row(tile_shape shape, int slot, float const* inside, float const* outside, float norm,
                 float outlier_norm, std::byte* section) const noexcept {
    for (int j = 0; j < all_bits; ++j) {
      unsigned sign = 0u;
      if (inside != nullptr)
        sign = j < Bits ? projection.sign(j, inside) : projection.sign(j - Bits, outside);
      store_bits(section, sign_bit(shape, slot, j), 1, sign);
    }
    for (int plane = 0; plane < norms; ++plane) {
      store_bits(section, norm_offset(shape, plane, slot) * 8, 16,
                 from_float_saturate<float16>(plane == 0 ? norm : outlier_norm).bits);
    }
  }
};

}  // namespace kvcrumb::inline v0

namespace kvcrumb::inline v0::schemes {

//! QJL (arXiv 2406.03482): keys as Bits signs, 8 outlier channels per `Group` tokens with half as many signs,
//! values affine 2 in KIVI's convention over 32 channels. (1.5 Bits + 32) / D + 8 * 8 / (Group D) bits a key
//! value and 3 a value: 3.266 and 3 at Bits 256, D 128. The paper doubles Bits in the first 15 layers.
template <int Bits = 256, int Group = 32, layout Layout = fragment>
using qjl_type = kv_scheme<qjl_keys<Bits, Bits / 2, 8, Group>,
                           composed<affine<2, float16, kivi_convention>, per_token<32>, identity, Layout>>;

//! The projection is the caller's: fill_projection with at least Bits rows; one may serve all layers.
template <int Bits = 256, int Group = 32, layout Layout = fragment>
constexpr qjl_type<Bits, Group, Layout> qjl(sketch_projection const& projection) noexcept {
  return {.name = "qjl", .flush = {0, 128}, .key = {projection}};
}

}  // namespace kvcrumb::inline v0::schemes
