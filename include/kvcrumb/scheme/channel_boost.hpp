// SPDX-License-Identifier: Apache-2.0
//! @file channel_boost: keys whose largest channels get twice the bits, group by group.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/grouping/grouping.hpp"
#include "kvcrumb/scheme/concept.hpp"
#include "kvcrumb/scheme/fold.hpp"
#include "kvcrumb/scheme/stored_params.hpp"

namespace kvcrumb::inline v0 {

//! Rank of a channel in a group: the sum of |k| over its n tokens, in tree order; as good as the mean.
struct magnitude_rank {
  static constexpr char const* name = "magnitude";
  static float of(float const* column, int n, int /*dim*/) noexcept {
    return tree_fold(
        n, [&](int i) { return absolute(column[i]); }, [](float a, float b) { return add_rn(a, b); });
  }
};

//! Affine keys per channel and `Group` tokens; in every group and head the channels of highest rank, PerMille
//! / 1000 of head_dim rounded down, get 2 * Bits bits, the others Bits (Kitty, arXiv 2511.18643). Of equal
//! ranks the lower channel is boosted; a channel whose rank is not finite is boosted last.
//!
//! A section is, in this order
//! - that of Bits-bit codes per channel in `Layout`: the low Bits bits of every code, scale, minimum;
//! - the high Bits bits of boosted channels, [group][place][token], LSB first;
//! - one byte a boosted channel, [group][place], ascending.
//! B boosted channels of D: Bits + Bits B / D + 32 / Group + 8 B / (D Group) bits per value. head_dim at most
//! 256. Isolated tokens take no part and get the code of the mean of the others.
//! Cost of encode: one pass for ranks and statistics, one for codes, B D comparisons a group.
template <int Bits = 2, int Group = 128, int PerMille = 125, affine_options Options = kitty_convention,
          class Rank = magnitude_rank, layout Layout = fragment>
struct channel_boost {
  static_assert(Bits == 2 || Bits == 4, "kvcrumb::channel_boost: Bits must be 2 or 4");
  static_assert(PerMille >= 0 && PerMille <= 1000, "kvcrumb::channel_boost: PerMille must be in [0, 1000]");
  using low_codec = affine<Bits, float16, Options>;
  using high_codec = affine<2 * Bits, float16, Options>;
  using layout_type = Layout;
  static constexpr int append_tokens = per_channel<Group>::append_tokens;
  static constexpr int bits = Bits;

  //! Channels that are boosted in each group.
  static constexpr int boosted(int head_dim) noexcept { return head_dim * PerMille / 1000; }
  //! Where low bits and parameters lie.
  static constexpr section_spec spec(side which, tile_shape shape) noexcept {
    return {shape, which, Bits, true, Group, 2, 2};
  }

  //! Keys only.
  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (which != side::key || heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if (shape.head_dim > 256) return status::bad_head_dim;
    if (shape.tile_tokens % Group != 0) return status::bad_group;
    return Layout::supports(spec(which, shape));
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return list_offset(which, shape) + groups(shape) * boosted(shape.head_dim);
  }
  std::uint64_t state_id(int, int) const noexcept { return 0; }
  static void describe(description& d) noexcept {
    d << "boost" << PerMille << "(" << Rank::name << ") ";
    low_codec::describe(d);
    d << " per_channel" << Group << " " << Layout::name;
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      if constexpr (traces_rows<Tracer>) {
        for (int i = 0; i < r.count; ++i) {
          std::int64_t const at = static_cast<std::int64_t>(head) * r.count + i;
          tracer.on_row(which, head, r.position + i, r.rows + at * shape.head_dim, shape.head_dim);
        }
      }
      for (int first = 0; first < r.count; first += Group)
        encode_group(which, shape, r, head, first, tracer);
    }
  }

  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int, int head_dim, float const* q, float* prepared) const noexcept {
    for (int d = 0; d < head_dim; ++d)
      prepared[d] = q[d];
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float row[max_width];
    decode_row(side::key, shape, 0, section, slot, row);
    return dot(prepared, row, shape.head_dim);
  }
  void decode_row(side which, tile_shape shape, int, std::byte const* section, int slot,
                  float* row) const noexcept {
    section_spec const s = spec(which, shape);
    int const group = slot / Group;
    for (int d = 0; d < shape.head_dim; ++d)
      row[d] = static_cast<float>(Layout::load(s, section, slot, d));
    for (int place = 0; place < boosted(shape.head_dim); ++place)
      row[boosted_channel(shape, section, group, place)] += high(shape, section, group, place, slot % Group);
    for (int d = 0; d < shape.head_dim; ++d) {
      group_params const p = load_params<float16, Layout>(s, section, d, group);
      row[d] = add_rn(mul_rn(p.value[0], row[d]), p.value[1]);
    }
  }

  std::int64_t tile_floats(side which, tile_shape shape) const noexcept {
    return loaded_tile::floats(spec(which, shape));
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    section_spec const s = spec(which, shape);
    loaded_tile const tile{s, work};
    unpack_codes<Layout>(s, section, tile.units());
    for (int group = 0; group < groups(shape); ++group) {
      for (int place = 0; place < boosted(shape.head_dim); ++place) {
        float* const column = tile.units() + boosted_channel(shape, section, group, place);
        for (int i = 0; i < Group; ++i)
          column[static_cast<std::int64_t>(group * Group + i) * shape.head_dim] +=
              high(shape, section, group, place, i);
      }
      for (int d = 0; d < shape.head_dim; ++d) {
        group_params const p = load_params<float16, Layout>(s, section, d, group);
        tile.gain(group)[d] = p.value[0];
        tile.bias(group)[d] = p.value[1];
      }
    }
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    loaded_tile{spec(side::key, shape), work}.score(prepared, 0.0f, scores);
  }
  //! Never called: `tile_hooks` asks for it, but keys are not accumulated.
  void accumulate_tile(tile_shape, float*, float const*, float*) const noexcept {}

  //! Channel number `place` among the boosted ones of a group.
  int boosted_channel(tile_shape shape, std::byte const* section, int group, int place) const noexcept {
    std::int64_t const at = list_offset(side::key, shape) + group * boosted(shape.head_dim) + place;
    int const d = static_cast<int>(std::to_integer<unsigned>(section[at]));
    return d < shape.head_dim ? d : shape.head_dim - 1;  // bytes of a damaged tile
  }

 private:
  static constexpr int max_width = 256;
  static constexpr int groups(tile_shape shape) noexcept { return shape.tile_tokens / Group; }
  static constexpr std::int64_t high_offset(side which, tile_shape shape) noexcept {
    return Layout::section_bytes(spec(which, shape));
  }
  static constexpr std::int64_t list_offset(side which, tile_shape shape) noexcept {
    return high_offset(which, shape) +
           std::int64_t{groups(shape)} * boosted(shape.head_dim) * Group * Bits / 8;
  }
  //! Bit position of the high bits of a token of a boosted channel, from high_offset on.
  static constexpr std::int64_t high_bit(tile_shape shape, int group, int place, int token) noexcept {
    return ((static_cast<std::int64_t>(group) * boosted(shape.head_dim) + place) * Group + token) * Bits;
  }
  //! What the high bits of a code are worth.
  float high(tile_shape shape, std::byte const* section, int group, int place, int token) const noexcept {
    unsigned const bits_of_code =
        load_bits(section + high_offset(side::key, shape), high_bit(shape, group, place, token), Bits);
    return static_cast<float>(bits_of_code << Bits);
  }

  //! Marks the `boosted` channels of highest rank; a NaN or infinity ranks below everything.
  static void choose(float* ranks, int head_dim, bool* chosen) noexcept {
    for (int d = 0; d < head_dim; ++d) {
      if (!is_finite_bits(ranks[d])) ranks[d] = -max_finite<float>;
      chosen[d] = false;
    }
    for (int n = 0; n < boosted(head_dim); ++n) {
      int best = -1;
      for (int d = 0; d < head_dim; ++d) {
        if (!chosen[d] && (best < 0 || ranks[d] > ranks[best])) best = d;
      }
      chosen[best] = true;
    }
  }

  //! One group of tokens of a head, rows [first, first + Group) of the request.
  template <class Tracer>
  void encode_group(side which, tile_shape shape, encode_request const& r, int head, int first,
                    Tracer& tracer) const noexcept {
    int const width = shape.head_dim, group = (r.slot + first) / Group;
    std::int64_t const base = static_cast<std::int64_t>(head) * r.count + first;
    std::uint8_t const* isolated = r.isolated == nullptr ? nullptr : r.isolated + base;
    float const* const rows = r.rows + base * width;
    float kept[Group], ranks[max_width];
    int n = 0;
    auto const gather = [&](int d) {
      n = 0;
      for (int i = 0; i < Group; ++i) {
        if (isolated == nullptr || isolated[i] == 0)
          kept[n++] = rows[static_cast<std::int64_t>(i) * width + d];
      }
    };
    for (int d = 0; d < width; ++d) {
      gather(d);
      ranks[d] = n > 0 ? Rank::of(kept, n, d) : 0.0f;
    }
    bool chosen[max_width];
    choose(ranks, width, chosen);
    int place = 0;
    for (int d = 0; d < width; ++d) {
      gather(d);
      auto const with = [&](auto const& codec, int place_of) {
        encode_channel(codec, which, shape, r, head, first, d, group, place_of, kept, n, isolated, tracer);
      };
      if (!chosen[d]) {
        with(low_codec{}, -1);
        continue;
      }
      r.sections[head][list_offset(which, shape) + group * boosted(width) + place] =
          static_cast<std::byte>(d);
      with(high_codec{}, place++);
    }
  }

  //! One channel of a group; place < 0: not boosted. kept: the n values that are not isolated.
  template <class Codec, class Tracer>
  void encode_channel(Codec const& codec, side which, tile_shape shape, encode_request const& r, int head,
                      int first, int d, int group, int place, float const* kept, int n,
                      std::uint8_t const* isolated, Tracer& tracer) const noexcept {
    section_spec const s = spec(which, shape);
    std::byte* const section = r.sections[head];
    group_params const p = n > 0 ? codec.fit(collect(codec, kept, n), n) : group_params{};
    store_params<float16, Layout>(s, section, d, group, p);
    float const fill = n > 0 && n < Group ? div_rn(tree_sum(kept, n), static_cast<float>(n)) : 0.0f;
    for (int i = 0, k = 0; i < Group; ++i) {
      bool const out = isolated != nullptr && isolated[i] != 0;
      float const x = out ? fill : kept[k++];
      unsigned const code = codec.encode(x, p);
      Layout::store(s, section, r.slot + first + i, d, code & ((1u << Bits) - 1u));
      if (place >= 0)
        store_bits(section + high_offset(which, shape), high_bit(shape, group, place, i), Bits, code >> Bits);
      if constexpr (traces_elements<Tracer>) {
        if (!out) tracer.on_element({which, head, r.position + first + i, d}, x, decode(codec, code, p));
      }
    }
  }
};

}  // namespace kvcrumb::inline v0
