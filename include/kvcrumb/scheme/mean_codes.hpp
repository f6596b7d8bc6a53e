// SPDX-License-Identifier: Apache-2.0
//! @file mean_codes: a token's row around its mean, in a width known at run time, with sparse outliers.
#pragma once

#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"
#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! QAQ's uniform codec (arXiv 2403.04643; github.com/ClubieDong/QAQ-KVCacheQuantization src/quantizer.py,
//! asymmetric "uniform" at the level of heads): of the values that are not outliers,
//!
//!   scale = (max - min) / 2^bits,  code = clamp(round((x - mean) / scale), -2^(bits-1), 2^(bits-1) - 1),
//!   x_hat = code * scale + mean;  half to even.
//!
//! The range is centred on the mean, not on its middle: of a skewed row the far end is clipped. The error is
//! at most scale / 2 where (x - mean) / scale lies in [-2^(bits-1) - 1/2, 2^(bits-1) - 1/2], else the excess.
//! The `outliers` lowest and as many highest values of a row (of equals those of lower channels are lower)
//! are kept as fp16 beside it. Mean and scale are fp16, the mean nearest, the scale rounded up, and codes are
//! computed against the stored ones; both saturate.
//!
//! A slot is: mean, scale, 2 * outliers of (channel, value), head_dim codes of `bits` bits plus 2^(bits-1),
//! LSB first, padded to a byte: (bits * head_dim + 32 + 48 * outliers) / head_dim bits a value. head_dim at
//! most 256. A row with a NaN or an infinity decodes to NaN. Row-independent. `bits` is a member, not a
//! template argument, because QAQ chooses it token by token: one type serves all widths.
struct mean_codes {
  static constexpr int append_tokens = 1;
  int bits = 4;      //!< 1 to 8
  int outliers = 0;  //!< at either end of a row

  status supports(side, tile_shape shape, int heads) const noexcept {
    if (heads < 1) return status::bad_shape;
    if (bits < 1 || bits > 8) return status::bad_bits;
    if (shape.head_dim > 256) return status::bad_head_dim;  // a channel is stored in 8 bits
    if (outliers < 0 || 2 * std::int64_t{outliers} >= shape.head_dim) return status::out_of_range;
    return check_shape(shape);
  }
  constexpr std::int64_t slot_bytes(int head_dim) const noexcept {
    return 4 + 6 * outliers + (static_cast<std::int64_t>(head_dim) * bits + 7) / 8;
  }
  constexpr std::int64_t section_bytes(side, tile_shape shape) const noexcept {
    return shape.tile_tokens * slot_bytes(shape.head_dim);
  }
  std::uint64_t state_id(int, int) const noexcept { return 0; }
  constexpr void describe(description& d) const noexcept {
    d << "mean_codes" << bits << "(f16,outliers" << outliers << ")";
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int i = 0; i < r.heads * r.count; ++i) {
      int const head = i / r.count, width = shape.head_dim;
      std::int64_t const position = r.position + i % r.count;
      float const* row = r.rows + static_cast<std::int64_t>(i) * width;
      std::byte* out = r.sections[head] + (r.slot + i % r.count) * slot_bytes(width);
      if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, position, row, width);
      if (r.isolated != nullptr && r.isolated[i] != 0) {
        clear(which, shape, r.slot + i % r.count, 1, r.sections[head]);
        continue;
      }
      encode_row(row, width, out);
      if constexpr (traces_elements<Tracer>) {
        float decoded[256];
        decode_slot(out, width, decoded);
        for (int d = 0; d < width; ++d)
          tracer.on_element({which, head, position, d}, row[d], decoded[d]);
      }
    }
  }
  void clear(side, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    std::int64_t const n = slot_bytes(shape.head_dim);
    for (std::int64_t i = slot * n; i < (slot + count) * n; ++i)
      section[i] = std::byte{0};
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int, int head_dim, float const* q, float* prepared) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      prepared[d] = q[d];
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float row[256];
    decode_row(side::key, shape, 0, section, slot, row);
    return dot(prepared, row, shape.head_dim);
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    float row[256];
    decode_row(side::value, shape, 0, section, slot, row);
    add_scaled(w, row, shape.head_dim, o);
  }
  void finish(int, int, float*, float) const noexcept {}
  void decode_row(side, tile_shape shape, int, std::byte const* section, int slot,
                  float* row) const noexcept {
    decode_slot(section + slot * slot_bytes(shape.head_dim), shape.head_dim, row);
  }

  std::int64_t tile_floats(side, tile_shape shape) const noexcept {
    return static_cast<std::int64_t>(shape.tile_tokens) * shape.head_dim;
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t)
      decode_row(which, shape, 0, section, t, work + static_cast<std::int64_t>(t) * shape.head_dim);
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t)
      scores[t] = dot(prepared, work + static_cast<std::int64_t>(t) * shape.head_dim, shape.head_dim);
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t) {
      if (weights[t] != 0.0f)
        add_scaled(weights[t], work + static_cast<std::int64_t>(t) * shape.head_dim, shape.head_dim, o);
    }
  }

  //! Range of the values of a row that are not outliers, what QAQ's rule calls the range; NaN if the row is
  //! not finite.
  float range_of(float const* row, int head_dim) const noexcept {
    bool out[256];
    return split(row, head_dim, out, nullptr);
  }

 private:
  //! Marks the outliers in out[head_dim] and writes their channels (lowest first, then highest first); the
  //! range of the others.
  float split(float const* row, int head_dim, bool* out, std::uint8_t* channels) const noexcept {
    for (int d = 0; d < head_dim; ++d) {
      out[d] = false;
      if (!is_finite_bits(row[d])) return float_from_bits(0x7FC00000u);
    }
    for (int i = 0; i < 2 * outliers; ++i) {
      int best = -1;
      for (int d = 0; d < head_dim; ++d) {
        if (out[d]) continue;
        bool const better = best < 0 || (i < outliers ? row[d] < row[best] : row[d] >= row[best]);
        if (better) best = d;
      }
      out[best] = true;
      if (channels != nullptr) channels[i] = static_cast<std::uint8_t>(best);
    }
    float low = 0.0f, high = 0.0f;
    bool any = false;
    for (int d = 0; d < head_dim; ++d) {
      if (out[d]) continue;
      if (!any || row[d] < low) low = row[d];
      if (!any || row[d] > high) high = row[d];
      any = true;
    }
    return sub_rn(high, low);
  }

  void encode_row(float const* row, int head_dim, std::byte* slot) const noexcept {
    bool out[256] = {};
    std::uint8_t channels[256] = {};
    float const range = split(row, head_dim, out, channels);
    float kept[256];
    int n = 0;
    for (int d = 0; d < head_dim; ++d) {
      if (!out[d]) kept[n++] = row[d];
    }
    int const half = 1 << (bits - 1);
    bool const whole = !is_nan_bits(range);
    float16 mean = float16{0x7E00}, scale = mean;
    if (whole) {
      mean = from_float_saturate<float16>(div_rn(tree_sum(kept, n), static_cast<float>(n)));
      scale = from_float_up<float16>(div_rn(range, static_cast<float>(2 * half)));
    }
    store_bits(slot, 0, 16, mean.bits);
    store_bits(slot, 16, 16, scale.bits);
    for (int i = 0; i < 2 * outliers; ++i) {
      float const x = whole ? row[channels[i]] : float_from_bits(0x7FC00000u);
      store_bits(slot, 32 + 24 * i, 8, channels[i]);
      store_bits(slot, 40 + 24 * i, 16, from_float_saturate<float16>(x).bits);
    }
    std::int64_t const first = 32 + 48 * std::int64_t{outliers};
    for (int d = 0; d < head_dim; ++d) {
      int code = 0;
      if (whole && !out[d] && (scale.bits & 0x7FFFu) != 0u) {
        float const t = div_rn(sub_rn(row[d], to_float(mean)), to_float(scale));
        float const low = static_cast<float>(-half), high = static_cast<float>(half - 1);
        code = static_cast<int>(round_half_even(t < low ? low : t > high ? high : t));
      }
      store_bits(slot, first + static_cast<std::int64_t>(d) * bits, bits, static_cast<unsigned>(code + half));
    }
    for (std::int64_t bit = first + static_cast<std::int64_t>(head_dim) * bits; bit % 8 != 0; ++bit)
      store_bits(slot, bit, 1, 0u);
  }

  void decode_slot(std::byte const* slot, int head_dim, float* row) const noexcept {
    auto const half_float = [&](std::int64_t bit) {
      return to_float(float16{static_cast<std::uint16_t>(load_bits(slot, bit, 16))});
    };
    float const mean = half_float(0), scale = half_float(16);
    std::int64_t const first = 32 + 48 * std::int64_t{outliers};
    for (int d = 0; d < head_dim; ++d) {
      unsigned const code = load_bits(slot, first + static_cast<std::int64_t>(d) * bits, bits);
      row[d] = add_rn(mul_rn(scale, static_cast<float>(static_cast<int>(code) - (1 << (bits - 1)))), mean);
    }
    for (int i = 0; i < 2 * outliers; ++i)
      row[load_bits(slot, 32 + 24 * i, 8) % static_cast<unsigned>(head_dim)] = half_float(40 + 24 * i);
  }
};

}  // namespace kvcrumb::inline v0
