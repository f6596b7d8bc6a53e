// SPDX-License-Identifier: Apache-2.0
//! @file clipped_groups: permuted channels in groups of unequal length, clipped codes, e4m3 parameters.
#pragma once

#include "kvcrumb/codec/clipped_affine.hpp"
#include "kvcrumb/layout/bit_stream.hpp"
#include "kvcrumb/layout/ternary_stream.hpp"
#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/scheme/channel_plan.hpp"
#include "kvcrumb/scheme/concept.hpp"

namespace kvcrumb::inline v0 {

//! Codes 0 to Levels (2: three values, five in a byte; 3, 7, 15: 2, 3, 4 bits) per token and group of
//! channels, by clipped_affine. Row-independent; keys and values. Without a plan: groups of `group`
//! neighbouring channels and one clip factor.
//!
//! A section: 16-bit ends of all groups but the last, codes [slot][place] as one stream, then a scale and a
//! minimum in e4m3 for every [slot][group]. The ends are there because a reader of a tile does not know its
//! head; encode() writes the same ones each time. Bits per value: codes + 16 groups / D + 16 (groups - 1) /
//! (T D), codes = 8/5 (one stream of T D digits, rounded up to a byte) or log2(Levels + 1). Cost of encode:
//! one pass for the range of each group, one for codes.
template <int Levels, code_basis Basis = code_basis::stored>
struct clipped_groups {
  static_assert(Levels == 2 || Levels == 3 || Levels == 7 || Levels == 15,
                "kvcrumb::clipped_groups: Levels must be 2, 3, 7 or 15");
  static constexpr int append_tokens = 1;
  static constexpr int levels = Levels;
  static constexpr int bits = Levels < 4 ? 2 : Levels == 7 ? 3 : 4;
  using codec_type = clipped_affine<Levels, Basis>;

  channel_plan plan{};
  int group = 128;     //!< channels per group without a plan; the last group may be shorter
  float clip = 0.96f;  //!< without a plan

  status supports(side, tile_shape shape, int heads) const noexcept {
    if (heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if (plan.groups < 0 || group < 1) return status::bad_group;
    if (plan.groups > 0) return plan.check(heads, shape.head_dim);
    return is_positive_bits(clip) && clip <= 1.0f ? status::ok : status::out_of_range;
  }
  constexpr std::int64_t section_bytes(side, tile_shape shape) const noexcept {
    return param_at(shape, shape.tile_tokens, 0);
  }
  //! FNV-1a over the plan, or over group length and clip factor.
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u;
    auto const add = [&](std::uint32_t x) { hash = (hash ^ x) * 0x100000001B3u; };
    add(static_cast<std::uint32_t>(groups(head_dim)));
    if (plan.groups <= 0) {
      add(static_cast<std::uint32_t>(group));
      add(float_bits(clip));
    } else if (plan.check(heads, head_dim) == status::ok) {
      for (std::int64_t i = 0; i < std::int64_t{heads} * head_dim; ++i)
        add(plan.order[i]);
      for (std::int64_t i = 0; i < std::int64_t{heads} * plan.groups; ++i) {
        add(plan.ends[i]);
        add(float_bits(plan.clip[i]));
      }
    }
    return hash;
  }
  void describe(description& d) const noexcept {
    d << "clipped_affine" << Levels + 1 << (Basis == code_basis::stored ? "(e4m3,stored) " : "(e4m3) ")
      << (plan.groups > 0 ? "planned " : "neighbours ") << (plan.groups > 0 ? plan.groups : group);
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    int const width = shape.head_dim, count = groups(width);
    for (int head = 0; head < r.heads; ++head) {
      std::byte* const section = r.sections[head];
      for (int g = 0; g + 1 < count; ++g)
        store_bits(section, 16 * g, 16, static_cast<unsigned>(end(head, width, g)));
      for (int i = 0; i < r.count; ++i) {
        std::int64_t const at = std::int64_t{head} * r.count + i;
        float const* row = r.rows + at * width;
        if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, r.position + i, row, width);
        if (r.isolated != nullptr && r.isolated[at] != 0) {
          clear(which, shape, r.slot + i, 1, section);
          continue;
        }
        for (int g = 0, begin = 0; g < count; begin = end(head, width, g), ++g) {
          range_statistics range = range_statistics::of(row[channel(head, width, begin)]);
          for (int p = begin + 1; p < end(head, width, g); ++p)
            range = range_statistics::merged(range, range_statistics::of(row[channel(head, width, p)]));
          clipped_params const params = codec_type::fit(range, clip_of(head, g));
          std::byte* const stored = section + param_at(shape, r.slot + i, g);
          stored[0] = std::byte{from_float<float8_e4m3>(params.scale).bits};
          stored[1] = std::byte{from_float<float8_e4m3>(params.minimum).bits};
          for (int p = begin; p < end(head, width, g); ++p) {
            int const d = channel(head, width, p);
            unsigned const code = codec_type::encode(row[d], params);
            store_code(shape, section, r.slot + i, p, code);
            if constexpr (traces_elements<Tracer>) {  // named by its channel, not by its place
              tracer.on_element({which, head, r.position + i, d}, row[d],
                                codec_type::decode(code, params.scale, params.minimum));
            }
          }
        }
      }
    }
  }
  //! Codes and parameters of the slots become zero; the ends of the groups belong to the section and stay.
  void clear(side, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    for (int t = slot; t < slot + count; ++t) {
      for (int p = 0; p < shape.head_dim; ++p)
        store_code(shape, section, t, p, 0u);
      for (int i = 0; i < 2 * groups(shape.head_dim); ++i)
        section[param_at(shape, t, 0) + i] = std::byte{0};
    }
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    for (int p = 0; p < head_dim; ++p)
      prepared[p] = q[channel(head, head_dim, p)];
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float sum = 0.0f;
    each_value(shape, section, slot, [&](int p, float x) { sum += prepared[p] * x; });
    return sum;
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    each_value(shape, section, slot, [&](int p, float x) { o[p] += w * x; });
  }
  void finish(int head, int head_dim, float* o, float /*sum*/) const noexcept {
    float places[max_head_dim];
    for (int p = 0; p < head_dim; ++p)
      places[p] = o[p];
    for (int p = 0; p < head_dim; ++p)
      o[channel(head, head_dim, p)] = places[p];
  }
  void decode_row(side, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    each_value(shape, section, slot, [&](int p, float x) { row[channel(head, shape.head_dim, p)] = x; });
  }

  //! A loaded tile holds decoded values [slot][place].
  std::int64_t tile_floats(side, tile_shape shape) const noexcept {
    return std::int64_t{shape.tile_tokens} * shape.head_dim;
  }
  void load_tile(side, tile_shape shape, std::byte const* section, float* work) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t) {
      float* const row = work + std::int64_t{t} * shape.head_dim;
      each_value(shape, section, t, [&](int p, float x) { row[p] = x; });
    }
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t)
      scores[t] = dot(prepared, work + std::int64_t{t} * shape.head_dim, shape.head_dim);
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    for (int t = 0; t < shape.tile_tokens; ++t) {
      if (weights[t] != 0.0f)
        add_scaled(weights[t], work + std::int64_t{t} * shape.head_dim, shape.head_dim, o);
    }
  }

  //! Groups of a row.
  constexpr int groups(int head_dim) const noexcept {
    return plan.groups > 0 ? plan.groups : (head_dim - 1) / group + 1;
  }

 private:
  int channel(int head, int width, int place) const noexcept {
    return plan.groups > 0 ? plan.order[std::int64_t{head} * width + place] : place;
  }
  int end(int head, int width, int g) const noexcept {
    if (plan.groups > 0) return plan.ends[std::int64_t{head} * plan.groups + g];
    return width - g * group < group ? width : (g + 1) * group;
  }
  float clip_of(int head, int g) const noexcept {
    return plan.groups > 0 ? plan.clip[std::int64_t{head} * plan.groups + g] : clip;
  }
  constexpr std::int64_t code_base(tile_shape shape) const noexcept {
    return 2 * (groups(shape.head_dim) - 1);
  }
  constexpr std::int64_t param_at(tile_shape shape, int slot, int g) const noexcept {
    std::int64_t const codes = std::int64_t{shape.tile_tokens} * shape.head_dim;
    std::int64_t const bytes =
        Levels == 2 ? ternary_bytes(codes) : codes * bits / 8;  // 32 tokens: whole bytes
    return code_base(shape) + bytes + 2 * (std::int64_t{slot} * groups(shape.head_dim) + g);
  }
  void store_code(tile_shape shape, std::byte* section, int slot, int p, unsigned code) const noexcept {
    std::int64_t const index = std::int64_t{slot} * shape.head_dim + p;
    if constexpr (Levels == 2) {
      store_ternary(section + code_base(shape), index, code);
    } else {
      store_bits(section + code_base(shape), index * bits, bits, code);
    }
  }
  //! f(place, x_hat) for all places of a slot. Ends that a damaged file may hold are limited to head_dim.
  template <class F>
  void each_value(tile_shape shape, std::byte const* section, int slot, F f) const noexcept {
    int const width = shape.head_dim, count = groups(width);
    std::byte const* const codes = section + code_base(shape);
    std::byte const* const params = section + param_at(shape, slot, 0);
    for (int g = 0, p = 0; g < count; ++g) {
      int const stored = g + 1 < count ? static_cast<int>(load_bits(section, 16 * g, 16)) : width;
      int const stop = stored < width ? stored : width;
      float const scale = to_float(float8_e4m3{std::to_integer<std::uint8_t>(params[2 * g])});
      float const minimum = to_float(float8_e4m3{std::to_integer<std::uint8_t>(params[2 * g + 1])});
      for (; p < stop; ++p) {
        std::int64_t const index = std::int64_t{slot} * width + p;
        unsigned code;
        if constexpr (Levels == 2) {
          code = load_ternary(codes, index);
        } else {
          code = load_bits(codes, index * bits, bits);
        }
        f(p, codec_type::decode(code, scale, minimum));
      }
    }
  }
};

}  // namespace kvcrumb::inline v0
