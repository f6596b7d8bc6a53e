// SPDX-License-Identifier: Apache-2.0
#include "candidates.hpp"

#include <cstdlib>
#include <type_traits>

#include <fmt/format.h>
#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/schemes/crumb2.hpp>
#include <kvcrumb/schemes/kitty.hpp>
#include <kvcrumb/schemes/kvarn.hpp>
#include <kvcrumb/schemes/oscar.hpp>

namespace recipes {

namespace {

using namespace kvcrumb;
using raw_rows = schemes::fp16_type::key_type;

struct isolation_choice {
  std::string name;
  int capacity, sinks;
};
std::vector<isolation_choice> const choices{{"none ", 0, 0}, {"pool3 ", 3, 0}, {"sinks4 ", 0, 4}};

//! Encodes one side, the other one exactly, and reads it back.
template <class Side>
side_rows encode(Side const& candidate, side which, kvcrumb_compare::recorded_layer const& layer,
                 isolation_choice const& isolation) {
  int const heads = static_cast<int>(layer.kv_heads), width = static_cast<int>(layer.head_dim);
  side_rows out;
  auto const run = [&](auto scheme) {
    using type = decltype(scheme);
    scheme.flush = {0, type::append_tokens};
    scheme.isolate.capacity = isolation.capacity;
    scheme.isolate.sinks = isolation.sinks;
    kv_cache<type> cache;
    status s = kv_cache<type>::create(scheme, {heads, {width, 128}}, cache);
    if (s == status::ok) {
      s = cache.prefill(hnd_rows(layer.k.data(), layer.tokens, width),
                        hnd_rows(layer.v.data(), layer.tokens, width), layer.tokens);
    }
    if (s != status::ok) {
      fmt::print(stderr, "search_recipes: layer {}: {}\n", layer.number, to_string(s));
      std::exit(2);
    }
    std::vector<float> key(static_cast<std::size_t>(width)), value(key.size());
    for (int head = 0; head < heads; ++head) {
      for (std::int64_t t = 0; t < layer.tokens; ++t) {
        static_cast<void>(cache.read(head, t, key.data(), value.data()));
        auto const& row = which == side::key ? key : value;
        out.rows.insert(out.rows.end(), row.begin(), row.end());
      }
    }
    std::int64_t bytes = cache.tiles() * heads * (candidate.section_bytes(which, {width, 128}) + 8);
    bytes += (cache.sink_tokens() + cache.tail_tokens()) * heads * width * 2;
    for (int head = 0; head < heads; ++head)
      bytes += static_cast<std::int64_t>(cache.pool(head).size()) * (width * 2 + 6);
    out.bits = 8.0 * static_cast<double>(bytes) / (static_cast<double>(layer.tokens) * heads * width);
  };
  if (which == side::key) {
    if constexpr (key_scheme<Side>) {
      kv_scheme<Side, raw_rows, token_pool<>> scheme;
      scheme.key = candidate;
      run(scheme);
    }
  } else {
    if constexpr (value_scheme<Side>) {
      kv_scheme<raw_rows, Side, token_pool<>> scheme;
      scheme.value = candidate;
      run(scheme);
    }
  }
  return out;
}

template <int Bits>
using kivi_codec = affine<Bits, float16, kivi_convention>;
template <int Bits>
using e4m3_codec = affine<Bits, float8_e4m3>;

template <class F>
void each_key(F f) {
  f("affine2 channel32", composed<kivi_codec<2>, per_channel<32>>{});
  f("affine2 channel64", composed<kivi_codec<2>, per_channel<64>>{});
  f("affine2 channel128", composed<kivi_codec<2>, per_channel<128>>{});
  f("affine3 channel128", composed<affine<3>, per_channel<128>>{});
  f("affine2 channel32 e4m3", composed<e4m3_codec<2>, per_channel<32>>{});
  f("affine2 channel32 H", composed<kivi_codec<2>, per_channel<32>, hadamard<>>{});
  f("affine2 channel64 H", composed<kivi_codec<2>, per_channel<64>, hadamard<>>{});
  f("affine2 channel128 H", composed<kivi_codec<2>, per_channel<128>, hadamard<>>{});
  f("affine3 channel128 H", composed<affine<3>, per_channel<128>, hadamard<>>{});
  f("affine2 token32 H", composed<kivi_codec<2>, per_token<32>, hadamard<>>{});
  f("affine2 row H", composed<kivi_codec<2>, per_row, hadamard<>>{});
  f("lloyd2 row H", composed<lloyd_max<2>, per_row, hadamard<>>{});
  f("lloyd3 row H", composed<lloyd_max<3>, per_row, hadamard<>>{});
  f("lloyd2 token16 H e4m3", composed<lloyd_max<2, float8_e4m3>, per_token<16>, hadamard<>>{});
  f("lloyd2 token32 H e4m3", composed<lloyd_max<2, float8_e4m3>, per_token<32>, hadamard<>>{});
  f("lloyd2 token64 H", composed<lloyd_max<2>, per_token<64>, hadamard<>>{});
  f("lloyd2 channel32 H e4m3", composed<lloyd_max<2, float8_e4m3>, per_channel<32>, hadamard<>>{});
  f("lloyd3 token64 H e4m3", composed<lloyd_max<3, float8_e4m3>, per_token<64>, hadamard<>>{});
  f("norm affine2 channel32 e4m3 H",
    token_normalized<composed<e4m3_codec<2>, per_channel<32>, hadamard<>>>{});
  f("variance2 tile128 H", schemes::kvarn_type<2, 2, 128>::key_type{});
  f("variance2 tile64 H", schemes::kvarn_type<2, 2, 64>::key_type{});
  f("boosted2 channel128", schemes::kitty_type<128, 125>::key_type{});
  f("boosted2 channel64", schemes::kitty_type<64, 125>::key_type{});
  f("boosted2 25% channel128", schemes::kitty_type<128, 250>::key_type{});
  f("boosted2 12.5% range 128", channel_boost<2, 128, 125, kitty_convention, range_rank>{});
  f("boosted2 12.5% range 64", channel_boost<2, 64, 125, kitty_convention, range_rank>{});
  f("boosted2 25% range 128", channel_boost<2, 128, 250, kitty_convention, range_rank>{});
  f("affine2 channel32 e4m3 H", composed<e4m3_codec<2>, per_channel<32>, hadamard<>>{});
  f("affine2 channel16 e4m3", composed<e4m3_codec<2>, per_channel<16>>{});
  f("norm affine2 channel32 e4m3", token_normalized<composed<e4m3_codec<2>, per_channel<32>>>{});
  f("norm affine2 channel32 H", schemes::oscar_type<2, 32>::key_type{});
  f("norm affine2 channel64 H", schemes::oscar_type<2, 64>::key_type{});
  f("norm affine2 channel128 H", schemes::oscar_type<2, 128>::key_type{});
  f("norm affine2 channel128", token_normalized<composed<kivi_codec<2>, per_channel<128>>>{});
  f("norm affine2 channel64", token_normalized<composed<kivi_codec<2>, per_channel<64>>>{});
}

template <class F>
void each_value(F f) {
  f("affine2 token32", composed<kivi_codec<2>, per_token<32>>{});
  f("affine2 token64", composed<kivi_codec<2>, per_token<64>>{});
  f("affine2 token128", composed<kivi_codec<2>, per_token<128>>{});
  f("affine2 token32 e4m3", composed<e4m3_codec<2>, per_token<32>>{});
  f("affine2 token32 H", composed<kivi_codec<2>, per_token<32>, hadamard<>>{});
  f("affine2 token64 H", composed<kivi_codec<2>, per_token<64>, hadamard<>>{});
  f("affine2 token128 H", composed<kivi_codec<2>, per_token<128>, hadamard<>>{});
  f("lloyd2 row", composed<lloyd_max<2>, per_row>{});
  f("lloyd2 row H", composed<lloyd_max<2>, per_row, hadamard<>>{});
  f("lloyd2 token64 H", composed<lloyd_max<2>, per_token<64>, hadamard<>>{});
  f("lloyd2 token32 H", composed<lloyd_max<2>, per_token<32>, hadamard<>>{});
  f("lloyd1 row H", composed<lloyd_max<1>, per_row, hadamard<>>{});
  f("lloyd3 row H", composed<lloyd_max<3>, per_row, hadamard<>>{});
  f("lloyd2 token32 H e4m3", composed<lloyd_max<2, float8_e4m3>, per_token<32>, hadamard<>>{});
  f("lloyd2 token16 H e4m3", composed<lloyd_max<2, float8_e4m3>, per_token<16>, hadamard<>>{});
  f("lloyd1 token32 H e4m3", composed<lloyd_max<1, float8_e4m3>, per_token<32>, hadamard<>>{});
  f("variance2 tile128 H", schemes::kvarn_type<2, 2, 128>::value_type{});
  f("nf2 token32 H", composed<nf2<>, per_token<32>, hadamard<>>{});
}

}  // namespace

std::vector<std::string> const& isolation_names() {
  static std::vector<std::string> const names{choices[0].name, choices[1].name, choices[2].name};
  return names;
}

void encode_all(kvcrumb_compare::recorded_layer const& layer, std::map<std::string, side_rows>& keys,
                std::map<std::string, side_rows>& values) {
  for (isolation_choice const& isolation : choices) {
    each_key([&](char const* name, auto const& candidate) {
      keys[isolation.name + name] = encode(candidate, side::key, layer, isolation);
    });
    each_value([&](char const* name, auto const& candidate) {
      values[isolation.name + name] = encode(candidate, side::value, layer, isolation);
    });
  }
}

std::vector<named_pair> const& named_pairs() {
  static std::vector<named_pair> const all{
      {"kivi2 g32", "none ", "affine2 channel32", "affine2 token32"},
      {"kivi2 g64", "none ", "affine2 channel64", "affine2 token64"},
      {"kivi2 g128", "none ", "affine2 channel128", "affine2 token128"},
      {"ott2 g64", "pool3 ", "affine2 channel64", "affine2 token64"},
      {"ott2 g128", "pool3 ", "affine2 channel128", "affine2 token128"},
      {"oscar2 g64", "none ", "norm affine2 channel64 H", "affine2 token64 H"},
      {"oscar2 g128", "none ", "norm affine2 channel128 H", "affine2 token128 H"},
      {"kvarn2 g128", "none ", "variance2 tile128 H", "variance2 tile128 H"},
      {"kitty2 g128", "none ", "boosted2 channel128", "affine2 token128"},
      {"crumb2", "pool3 ", "boosted2 25% range 128", "lloyd2 row H"},
      {"turboquant2", "none ", "lloyd2 row H", "lloyd2 row H"},
  };
  return all;
}

}  // namespace recipes
