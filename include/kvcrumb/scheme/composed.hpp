// SPDX-License-Identifier: Apache-2.0
//! @file composed<Codec, Grouping, Transform, Layout>: the usual scheme.
#pragma once

#include "kvcrumb/codec/concept.hpp"
#include "kvcrumb/grouping/grouping.hpp"
#include "kvcrumb/layout/convert.hpp"
#include "kvcrumb/scheme/concept.hpp"
#include "kvcrumb/scheme/fold.hpp"
#include "kvcrumb/scheme/stored_params.hpp"
#include "kvcrumb/transform/concept.hpp"
#include "kvcrumb/transform/identity.hpp"

namespace kvcrumb::inline v0 {

//! A scheme made of a scalar codec, a grouping, a transform and a layout. Models scheme, key_scheme,
//! value_scheme, decodable and tile_hooks. Parameters of a group are fitted and rounded first, then codes are
//! computed against the rounded parameters. Isolated tokens take no part in a group's statistics; their slots
//! of a per-channel group get the code of the mean of the others, those of a per-token group zero parameters.
//! Cost of encode: one pass for statistics and one for codes.
template <codec Codec, grouping Grouping, transform Transform = identity, layout Layout = fragment>
struct composed {
  using codec_type = Codec;
  using grouping_type = Grouping;
  using transform_type = Transform;
  using layout_type = Layout;
  using param_type = typename Codec::param_type;

  static constexpr int append_tokens = Grouping::append_tokens;
  static constexpr int bits = Codec::bits;

  Codec codec{};
  Transform transform{};

  //! Where everything lies in a section of this scheme.
  static constexpr section_spec spec(side which, tile_shape shape) noexcept {
    return {shape,
            which,
            Codec::bits,
            Grouping::channelwise,
            group_length(shape),
            Codec::planes,
            static_cast<int>(sizeof(param_type))};
  }

  status supports(side which, tile_shape shape, int heads) const noexcept {
    if (heads < 1) return status::bad_shape;
    if (status const s = check_shape(shape); s != status::ok) return s;
    if constexpr (requires { codec.table.is_valid(); }) {
      if (!codec.table.is_valid()) return status::out_of_range;
    }
    if constexpr (requires { transform.fits(heads, shape.head_dim); }) {
      if (!transform.fits(heads, shape.head_dim)) return status::bad_shape;
    }
    if (!Grouping::fits(shape.head_dim, shape.tile_tokens)) return status::bad_group;
    return Layout::supports(spec(which, shape));
  }
  constexpr std::int64_t section_bytes(side which, tile_shape shape) const noexcept {
    return Layout::section_bytes(spec(which, shape));
  }
  std::uint64_t state_id(int heads, int head_dim) const noexcept {
    std::uint64_t id = transform.id(heads, head_dim);
    if constexpr (requires { codec.id(); }) id = (id ^ codec.id()) * 0x100000001B3u;
    return id;
  }
  //! For example "affine2(minimum,half_even,f16,outward) per_channel128 identity fragment".
  static constexpr void describe(description& d) noexcept {
    Codec::describe(d);
    d << " " << Grouping::name << Grouping::size << " ";
    describe_as<Transform>(d);
    d << " " << Layout::name;
  }

  template <class Tracer>
  void encode(side which, tile_shape shape, encode_request const& r, Tracer& tracer) const noexcept {
    std::int64_t const stride = static_cast<std::int64_t>(r.count) * shape.head_dim;
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        float* row = r.rows + head * stride + static_cast<std::int64_t>(i) * shape.head_dim;
        if constexpr (traces_rows<Tracer>) tracer.on_row(which, head, r.position + i, row, shape.head_dim);
        transform.forward(head, shape.head_dim, row);
      }
    }
    if constexpr (Grouping::channelwise) {
      for (int head = 0; head < r.heads; ++head) {
        for (int i = 0; i < r.count; i += append_tokens)
          encode_channels(which, shape, r, head, i, tracer);
      }
    } else {
      int const span = Grouping::head_span(shape.head_dim);
      for (int head = 0; head < r.heads; head += span) {
        int const heads = r.heads - head < span ? r.heads - head : span;
        for (int i = 0; i < r.count; ++i)
          encode_token(which, shape, r, head, heads, i, tracer);
      }
    }
  }

  void clear(side which, tile_shape shape, int slot, int count, std::byte* section) const noexcept
      requires(append_tokens == 1) {
    section_spec const s = spec(which, shape);
    for (int token = slot; token < slot + count; ++token) {
      for (int dim = 0; dim < shape.head_dim; ++dim) {  // zero bits, which store() may not have a code for
        for (int i = 0; i < s.bits; ++i)
          store_bits(section, Layout::code_bit(s, token, dim, i), 1, 0u);
      }
      for (int group = 0; group < s.groups(); ++group)
        store_params<param_type, Layout>(s, section, token, group, {});
    }
  }

  //! Prepared query: the transformed row and the constant that the transform adds to every score.
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim + 1; }
  void prepare_query(int head, int head_dim, float const* q, float* prepared) const noexcept {
    for (int i = 0; i < head_dim; ++i)
      prepared[i] = q[i];
    prepared[head_dim] = transform.query(head, head_dim, prepared);
  }
  float score(tile_shape shape, float const* prepared, std::byte const* section, int slot) const noexcept {
    float sum = prepared[shape.head_dim];
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      sum += prepared[dim] * element(spec(side::key, shape), section, slot, dim);
    }
    return sum;
  }
  void accumulate(tile_shape shape, float w, std::byte const* section, int slot, float* o) const noexcept {
    for (int dim = 0; dim < shape.head_dim; ++dim) {
      o[dim] += w * element(spec(side::value, shape), section, slot, dim);
    }
  }
  void finish(int head, int head_dim, float* o, float sum) const noexcept {
    transform.inverse(head, head_dim, o, sum);
  }
  void decode_row(side which, tile_shape shape, int head, std::byte const* section, int slot,
                  float* row) const noexcept {
    for (int dim = 0; dim < shape.head_dim; ++dim)
      row[dim] = element(spec(which, shape), section, slot, dim);
    transform.inverse(head, shape.head_dim, row, 1.0f);
  }

  std::int64_t tile_floats(side which, tile_shape shape) const noexcept {
    return loaded_tile::floats(spec(which, shape));
  }
  void load_tile(side which, tile_shape shape, std::byte const* section, float* work) const noexcept {
    section_spec const s = spec(which, shape);
    loaded_tile const tile{s, work};
    unpack_units(s, section, tile.units());
    for (int owner = 0; owner < s.owners(); ++owner) {
      for (int group = 0; group < s.groups(); ++group) {
        linear_params const l = codec.linear(params(s, section, owner, group));
        tile.gain(group)[owner] = l.gain;
        tile.bias(group)[owner] = l.bias;
      }
    }
  }
  void score_tile(tile_shape shape, float* work, float const* prepared, float* scores) const noexcept {
    loaded_tile{spec(side::key, shape), work}.score(prepared, prepared[shape.head_dim], scores);
  }
  void accumulate_tile(tile_shape shape, float* work, float const* weights, float* o) const noexcept {
    loaded_tile{spec(side::value, shape), work}.accumulate(weights, o);
  }

  //! Stored parameters of a group, read back.
  group_params params(section_spec const& s, std::byte const* section, int owner, int group) const noexcept {
    return load_params<param_type, Layout>(s, section, owner, group);
  }

 private:
  static constexpr int max_group = 4096;
  static_assert(Grouping::size <= max_group,
                "kvcrumb::composed: groups of more than 4096 values are not supported");

  static constexpr int group_length(tile_shape shape) noexcept {
    return Grouping::group_length(shape.head_dim);
  }

  float element(section_spec const& s, std::byte const* section, int token, int dim) const noexcept {
    int const owner = s.per_channel ? dim : token;
    int const group = (s.per_channel ? token : dim) / s.group;
    return decode(codec, Layout::load(s, section, token, dim), params(s, section, owner, group));
  }

  void unpack_units(section_spec const& s, std::byte const* section, float* units) const noexcept {
    std::int64_t const count = static_cast<std::int64_t>(s.shape.tile_tokens) * s.shape.head_dim;
    unpack_codes<Layout>(s, section, units);  // codes of up to 16 bits are exact floats
    for (std::int64_t i = 0; i < count; ++i)
      units[i] = codec.unit(static_cast<unsigned>(units[i]));
  }

  //! One group of append_tokens tokens of all channels, rows [first, first + append_tokens) of the request.
  template <class Tracer>
  void encode_channels(side which, tile_shape shape, encode_request const& r, int head, int first,
                       Tracer& tracer) const noexcept {
    section_spec const s = spec(which, shape);
    std::byte* section = r.sections[head];
    std::int64_t const base = (static_cast<std::int64_t>(head) * r.count + first) * shape.head_dim;
    std::uint8_t const* isolated = r.isolated == nullptr ? nullptr : r.isolated + head * r.count + first;
    std::uint16_t codes[append_tokens][max_channels_at_once];
    for (int dims = 0; dims < shape.head_dim; dims += max_channels_at_once) {
      int const width =
          shape.head_dim - dims < max_channels_at_once ? shape.head_dim - dims : max_channels_at_once;
      for (int c = 0; c < width; ++c) {
        float const* column = r.rows + base + dims + c;
        float kept[append_tokens];
        int n = 0;
        for (int i = 0; i < append_tokens; ++i) {
          if (isolated == nullptr || isolated[i] == 0)
            kept[n++] = column[static_cast<std::int64_t>(i) * shape.head_dim];
        }
        group_params const p = n > 0 ? codec.fit(collect(codec, kept, n), n) : group_params{};
        float const fill = n > 0 && n < append_tokens ? mean(kept, n) : 0.0f;
        store_params<param_type, Layout>(s, section, dims + c, (r.slot + first) / s.group, p);
        for (int i = 0; i < append_tokens; ++i) {
          bool const out = isolated != nullptr && isolated[i] != 0;
          float const x = out ? fill : column[static_cast<std::int64_t>(i) * shape.head_dim];
          codes[i][c] = static_cast<std::uint16_t>(codec.encode(x, p));
          if constexpr (traces_elements<Tracer>) {
            if (!out)
              tracer.on_element({which, head, r.position + first + i, dims + c}, x,
                                decode(codec, codes[i][c], p));
          }
        }
      }
      for (int i = 0; i < append_tokens; ++i) {
        pack_row<Layout>(s, r.slot + first + i, dims, width, codes[i], section);
      }
    }
  }

  //! One token of `heads` neighbouring kv heads, which share groups when heads > 1.
  template <class Tracer>
  void encode_token(side which, tile_shape shape, encode_request const& r, int first_head, int heads, int row,
                    Tracer& tracer) const noexcept {
    section_spec const s = spec(which, shape);
    auto const row_of = [&](int head) {
      return r.rows + (static_cast<std::int64_t>(head) * r.count + row) * shape.head_dim;
    };
    auto const is_out = [&](int head) {
      return r.isolated != nullptr && r.isolated[head * r.count + row] != 0;
    };
    group_params shared{};
    if (Grouping::head_span(shape.head_dim) > 1) {
      float values[max_group];
      int n = 0;
      for (int head = first_head; head < first_head + heads; ++head) {
        if (is_out(head)) continue;
        for (int dim = 0; dim < shape.head_dim; ++dim)
          values[n++] = row_of(head)[dim];
      }
      if (n > 0) shared = codec.fit(collect(codec, values, n), n);
    }
    std::uint16_t codes[max_head_dim];
    for (int head = first_head; head < first_head + heads; ++head) {
      float const* x = row_of(head);
      bool const out = is_out(head);
      for (int group = 0; group < s.groups(); ++group) {
        int const begin = group * s.group;
        int const n = shape.head_dim - begin < s.group ? shape.head_dim - begin : s.group;
        group_params p{};
        if (!out) {
          p = Grouping::head_span(shape.head_dim) > 1 ? shared : codec.fit(collect(codec, x + begin, n), n);
        }
        store_params<param_type, Layout>(s, r.sections[head], r.slot + row, group, p);
        for (int dim = begin; dim < begin + n; ++dim) {
          codes[dim] = static_cast<std::uint16_t>(codec.encode(out ? 0.0f : x[dim], p));
          if constexpr (traces_elements<Tracer>) {
            if (!out)
              tracer.on_element({which, head, r.position + row, dim}, x[dim], decode(codec, codes[dim], p));
          }
        }
      }
      pack_row<Layout>(s, r.slot + row, 0, shape.head_dim, codes, r.sections[head]);
    }
  }

  static constexpr int max_channels_at_once = 32;

  //! Mean in the tree order of `collect`, so that a warp gets the same bits.
  static float mean(float const* x, int n) noexcept { return div_rn(tree_sum(x, n), static_cast<float>(n)); }
};

}  // namespace kvcrumb::inline v0
