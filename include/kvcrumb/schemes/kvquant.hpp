// SPDX-License-Identifier: Apache-2.0
//! @file KVQuant (arXiv 2401.18079): non-uniform codes for keys before RoPE and for values, with sparse
//! outliers.
#pragma once

#include "kvcrumb/calibrate/nuq.hpp"
#include "kvcrumb/calibrate/parameters.hpp"
#include "kvcrumb/codec/nuq.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/rope_at_read.hpp"
#include "kvcrumb/scheme/sparse_values.hpp"
#include "kvcrumb/transform/channel_scale.hpp"

namespace kvcrumb::inline v0 {

//! What KVQuant learns offline about one layer. Owns the memory that the schemes made from it point to.
template <int Bits>
struct kvquant_calibration {
  int kv_heads = 0, head_dim = 0;
  std::vector<float> key_shift, key_scale;  //!< [kv_heads][head_dim]
  nuq_table<Bits> keys{}, values{};

  //! As named arrays, for write_parameters; `layer` stands before the names ("3" gives "3.key_shift").
  std::vector<named_parameters> parameters(std::string const& layer) const {
    auto const table = [](auto const& x) { return std::vector<float>(std::begin(x), std::end(x)); };
    std::vector<float> const shape{static_cast<float>(kv_heads), static_cast<float>(head_dim)};
    return {{layer + ".shape", shape},
            {layer + ".key_shift", key_shift},
            {layer + ".key_scale", key_scale},
            {layer + ".key_levels", table(keys.levels)},
            {layer + ".key_decoded", table(keys.decoded)},
            {layer + ".value_levels", table(values.levels)},
            {layer + ".value_decoded", table(values.decoded)}};
  }
  //! The reverse: bad_header when an array of the layer is missing or of another size, out_of_range when the
  //! levels are no table (another number of bits, for example, is bad_header).
  static status from(std::span<named_parameters const> arrays, std::string const& layer,
                     kvquant_calibration& out) {
    auto const find = [&](char const* name) -> std::vector<float> const* {
      for (named_parameters const& a : arrays) {
        if (a.name == layer + "." + name) return &a.values;
      }
      return nullptr;
    };
    kvquant_calibration c;
    auto const *shape = find("shape"), *shift = find("key_shift"), *scale = find("key_scale");
    if (shape == nullptr || shape->size() != 2 || shift == nullptr || scale == nullptr)
      return status::bad_header;
    float const heads = (*shape)[0], width = (*shape)[1];
    if (!(heads >= 1.0f && heads <= 65536.0f && width >= 1.0f && width <= 1024.0f)) return status::bad_header;
    c.kv_heads = static_cast<int>(heads);
    c.head_dim = static_cast<int>(width);
    std::size_t const channels = static_cast<std::size_t>(c.kv_heads) * static_cast<std::size_t>(c.head_dim);
    if (shift->size() != channels || scale->size() != channels) return status::bad_header;
    c.key_shift = *shift;
    c.key_scale = *scale;
    auto const read = [&](char const* name, float(&to)[1 << Bits]) {
      auto const* from = find(name);
      if (from == nullptr || from->size() != std::size(to)) return false;
      std::copy(from->begin(), from->end(), to);
      return true;
    };
    if (!read("key_levels", c.keys.levels) || !read("key_decoded", c.keys.decoded) ||
        !read("value_levels", c.values.levels) || !read("value_decoded", c.values.decoded))
      return status::bad_header;
    if (!c.keys.is_valid() || !c.values.is_valid()) return status::out_of_range;
    out = static_cast<kvquant_calibration&&>(c);
    return status::ok;
  }
};

namespace schemes {

//! Keys: normalised by static ranges per channel, nuq codes without any stored parameter, `Slots` exact
//! values per token and head. Bits + 24 Slots / D bits.
template <int Bits, int Slots, layout Layout>
using kvquant_keys = sparse_values<composed<nuq<Bits, nuq_range::fixed>, per_row, identity, Layout>, Slots,
                                   sparse_centre::zero, channel_scale>;
//! Values: fp16 offset and range per token and head. Bits + (32 + 24 Slots) / D bits.
template <int Bits, int Slots, layout Layout>
using kvquant_values = sparse_values<composed<nuq<Bits, nuq_range::group>, per_row, identity, Layout>, Slots,
                                     sparse_centre::row_median>;

//! KVQuant (arXiv 2401.18079) with keys given before RoPE: Bits 2 to 4 in the paper, 2 slots of 128 channels
//! for its 1 % of outliers, the first token exact, row-independent. All-in bits (keys and values):
//! Bits + (16 + 24 Slots) / D.
template <int Bits = 3, int Slots = 2, layout Layout = linear>
using kvquant_type = kv_scheme<rope_at_read<kvquant_keys<Bits, Slots, Layout>>,
                               kvquant_values<Bits, Slots, Layout>, prefix<1>>;
//! The same for keys that are given rotated (the paper's ablation), or for models without RoPE.
template <int Bits = 3, int Slots = 2, layout Layout = linear>
using kvquant_as_given_type =
    kv_scheme<kvquant_keys<Bits, Slots, Layout>, kvquant_values<Bits, Slots, Layout>, prefix<1>>;

template <int Bits>
constexpr char const* kvquant_name = Bits == 2   ? "kvquant2"
                                     : Bits == 3 ? "kvquant3"
                                     : Bits == 4 ? "kvquant4"
                                                 : "kvquant";

//! The calibration must outlive every cache made with the scheme.
template <int Bits = 3, int Slots = 2, layout Layout = linear>
kvquant_as_given_type<Bits, Slots, Layout> kvquant_as_given(kvquant_calibration<Bits> const& c) noexcept {
  kvquant_as_given_type<Bits, Slots, Layout> s{.name = kvquant_name<Bits>};
  s.key.base.codec.table = c.keys;
  s.key.transform = {c.key_shift.data(), c.key_scale.data(), {}, std::int64_t{c.kv_heads} * c.head_dim};
  s.value.base.codec.table = c.values;
  return s;
}
template <int Bits = 3, int Slots = 2, layout Layout = linear>
kvquant_type<Bits, Slots, Layout> kvquant(kvquant_calibration<Bits> const& c, rotary rope = {}) noexcept {
  auto const given = kvquant_as_given<Bits, Slots, Layout>(c);
  return {.name = given.name, .key = {given.key, rope}, .value = given.value};
}

}  // namespace schemes

//! How calibrate_kvquant works; weights are one per value, [kv_heads][tokens][head_dim], or empty.
struct kvquant_settings {
  double kept = 0.99;                    //!< share of the keys of a channel inside of its range
  bool normalise = false;                //!< Q-Norm (the paper: at 2 bits)
  std::span<float const> key_weights{};  //!< squared gradients of the loss (Fisher information)
  std::span<float const> value_weights{};
  int iterations = 50;
};

//! Learns from rows of one layer: for keys the rows that will be cached (before RoPE for kvquant(), as given
//! for kvquant_as_given()), for values as they are; without the sink token. Levels are fitted to normalised
//! values without those that lie outside of the range (keys) or in the slots (values).
//! bad_shape: also head_dim <= Slots. Other errors as channel_ranges and fit_levels; `out` is untouched
//! unless ok.
template <int Bits, int Slots = 2>
status calibrate_kvquant(rows_view<float const> keys, rows_view<float const> values, int kv_heads,
                         std::int64_t tokens, int head_dim, kvquant_settings const& settings,
                         kvquant_calibration<Bits>& out) {
  if (kv_heads < 1 || tokens < 1 || head_dim <= Slots || head_dim > max_head_dim) return status::bad_shape;
  kvquant_calibration<Bits> c{kv_heads, head_dim, {}, {}};
  std::size_t const channels = static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(head_dim);
  for (std::span<float const> const w : {settings.key_weights, settings.value_weights}) {
    if (!w.empty() && w.size() != channels * static_cast<std::size_t>(tokens)) return status::bad_shape;
  }
  c.key_shift.resize(channels);
  c.key_scale.resize(channels);
  if (status const s =
          channel_ranges(keys, kv_heads, tokens, head_dim, settings.kept, c.key_shift, c.key_scale);
      s != status::ok)
    return s;
  if (status const s = check_rows(values, kv_heads, tokens, head_dim); s != status::ok) return s;
  channel_scale const normal{c.key_shift.data(), c.key_scale.data()};
  nuq<Bits, nuq_range::group> const ranges;
  std::vector<float> key, value, key_weights, value_weights, row(static_cast<std::size_t>(head_dim));
  for (std::int64_t i = 0; i < kv_heads * tokens; ++i) {
    int const head = static_cast<int>(i / tokens);
    auto const weight = [&](std::span<float const> w, int d) {
      return w.empty() ? 1.0f : w[static_cast<std::size_t>(i * head_dim + d)];
    };
    std::copy_n(keys.row(head, i % tokens), head_dim, row.begin());
    normal.forward(head, head_dim, row.data());
    for (int d = 0; d < head_dim; ++d) {
      if (absolute(row[static_cast<std::size_t>(d)]) > 1.0f) continue;
      key.push_back(row[static_cast<std::size_t>(d)]);
      key_weights.push_back(weight(settings.key_weights, d));
    }
    std::copy_n(values.row(head, i % tokens), head_dim, row.begin());
    for (float const x : row) {
      if (!is_finite_bits(x)) return status::not_finite;
    }
    std::vector<int> const inner = detail::nearest_to_median(row, head_dim - Slots);
    range_statistics range = range_statistics::of(row[static_cast<std::size_t>(inner[0])]);
    for (int const d : inner)
      range = range_statistics::merged(range, range_statistics::of(row[static_cast<std::size_t>(d)]));
    group_params const p = ranges.fit(range, head_dim);
    if (!is_positive_bits(p.value[0])) continue;
    for (int const d : inner) {
      value.push_back(div_rn(sub_rn(row[static_cast<std::size_t>(d)], p.value[1]), p.value[0]));
      value_weights.push_back(weight(settings.value_weights, d));
    }
  }
  if (value.empty()) {  // constant rows: any table does
    value = {-1.0f, 1.0f};
    value_weights = {1.0f, 1.0f};
  }
  auto const fit = [&](std::vector<float> const& x, std::vector<float> const& w, nuq_table<Bits>& table) {
    status const s = fit_levels(x, w, table.levels, settings.iterations);
    std::copy(std::begin(table.levels), std::end(table.levels), table.decoded);
    if (s == status::ok && settings.normalise) q_norm(std::span<float const>(x), table);
    return s;
  };
  if (status const s = fit(key, key_weights, c.keys); s != status::ok) return s;
  if (status const s = fit(value, value_weights, c.values); s != status::ok) return s;
  out = static_cast<kvquant_calibration<Bits>&&>(c);
  return status::ok;
}

}  // namespace kvcrumb::inline v0
