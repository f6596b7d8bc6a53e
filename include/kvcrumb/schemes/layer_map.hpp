// SPDX-License-Identifier: Apache-2.0
//! @file Other bits for other layers: AsymKV's rule, a choice under a budget as in KVTuner, and the schemes
//! behind them.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "kvcrumb/schemes.hpp"

namespace kvcrumb::inline v0 {

//! Bits of the codes of one layer's keys and values.
struct layer_bits {
  int key = 2;
  int value = 2;
  friend constexpr bool operator==(layer_bits, layer_bits) = default;
};

//! AsymKV (arXiv 2410.13212): keys have 2 bits in the first `key_layers` layers and values in the first
//! `value_layers`, 1 bit elsewhere. Keys deserve more: key_layers >= value_layers ("AsymKV-16/0").
constexpr layer_bits asymkv_bits(int layer, int key_layers, int value_layers) noexcept {
  return {layer < key_layers ? 2 : 1, layer < value_layers ? 2 : 1};
}

namespace schemes {

//! KIVI's scheme with other bits for keys than for values.
template <int KeyBits, int ValueBits, int Group = 32, layout Layout = fragment>
using mixed_kivi_type =
    kv_scheme<composed<affine<KeyBits, float16, kivi_convention>, per_channel<Group>, identity, Layout>,
              composed<affine<ValueBits, float16, kivi_convention>, per_token<Group>, identity, Layout>>;

template <int KeyBits, int ValueBits, int Group = 32, layout Layout = fragment>
constexpr mixed_kivi_type<KeyBits, ValueBits, Group, Layout> mixed_kivi() noexcept {
  return {.name = "mixed_kivi", .flush = {0, 128}};
}

}  // namespace schemes

//! f(schemes::mixed_kivi<key, value, Group>()) for bits that are known at run time; bad_bits unless both are
//! among `Bits`. f is compiled for every pair, so name only what is needed, as in
//! with_layer_bits<32, 1, 2>(bits, f). f returns a status.
template <int Group, int... Bits, class F>
status with_layer_bits(layer_bits bits, F&& f) {
  status result = status::bad_bits;
  auto const with_value = [&]<int Key, int Value>() {
    if (bits == layer_bits{Key, Value}) result = f(schemes::mixed_kivi<Key, Value, Group>());
  };
  auto const with_key = [&]<int Key>() { (with_value.template operator()<Key, Bits>(), ...); };
  (with_key.template operator()<Bits>(), ...);
  return result;
}

//! What one choice of bits does to one layer, measured on recorded rows.
struct layer_choice {
  layer_bits bits{};
  double error = 0.0;  //!< errors of layers are added; one that is NaN is never chosen
};

//! Bits for every layer so that the sum of errors is least and the mean of all key and value bits is at most
//! `budget`: choices of a layer that another one beats in both are dropped (KVTuner's intra-layer pruning,
//! arXiv 2502.04420), then an exact search over the sum of bits takes the place of its layer clusters and
//! evolutionary search. choices[layer] are the candidates of a layer. Empty if a layer has no candidate or
//! even the fewest bits exceed the budget. Of equal errors the fewer bits win.
//! Cost: layers x choices x (sum of the largest bits) steps.
inline std::vector<layer_bits> choose_layer_bits(std::span<std::vector<layer_choice> const> choices,
                                                 double budget) {
  auto const cost = [](layer_choice const& c) { return c.bits.key + c.bits.value; };
  std::int64_t most = 0;
  for (auto const& layer : choices) {
    int largest = 0;
    for (layer_choice const& c : layer)
      largest = cost(c) > largest ? cost(c) : largest;
    most += largest;
  }
  double const limit = budget * 2.0 * static_cast<double>(choices.size()) + 1e-9;
  if (choices.empty() || !(limit >= 0.0)) return {};
  if (limit < static_cast<double>(most)) most = static_cast<std::int64_t>(limit);
  constexpr double none = std::numeric_limits<double>::infinity();
  auto const width = static_cast<std::size_t>(most + 1);
  std::vector<double> best(width, none);  // least error of the layers so far with exactly so many bits
  best[0] = 0.0;
  std::vector<std::vector<int>> taken;
  for (auto const& layer : choices) {
    std::vector<double> next(width, none);
    std::vector<int> pick(width, -1);
    for (std::size_t i = 0; i < layer.size(); ++i) {
      layer_choice const& c = layer[i];
      bool beaten = false;
      for (layer_choice const& other : layer)
        beaten = beaten || (cost(other) < cost(c) && other.error <= c.error);
      auto const bits = static_cast<std::size_t>(cost(c));
      for (std::size_t used = bits; !beaten && used < width; ++used) {
        double const error = best[used - bits] + c.error;
        if (error < next[used]) {
          next[used] = error;
          pick[used] = static_cast<int>(i);
        }
      }
    }
    best = next;
    taken.push_back(pick);
  }
  std::size_t at = 0;
  for (std::size_t used = 1; used < width; ++used)
    at = best[used] < best[at] ? used : at;
  if (best[at] == none) return {};
  std::vector<layer_bits> result(choices.size());
  for (std::size_t layer = choices.size(); layer-- > 0;) {
    layer_choice const& c = choices[layer][static_cast<std::size_t>(taken[layer][at])];
    result[layer] = c.bits;
    at -= static_cast<std::size_t>(cost(c));
  }
  return result;
}

}  // namespace kvcrumb::inline v0
