// SPDX-License-Identifier: Apache-2.0
//! @file Encodes the same layers on the (emulated) device and on the host, for comparison.
#pragma once

#include "cuda/device_cache.hpp"
// after it
#include "kvcrumb/device/append.cuh"
#include "kvcrumb/device/encode.cuh"

namespace kvcrumb::test {

//! Bytes of workspace with undefined content, or zeros.
struct workspace {
  device_vector<std::byte> bytes;
  explicit workspace(std::int64_t n, std::byte content = std::byte{0xAB}) : bytes(size(n), content) {}
  void* data() { return bytes.data(); }
  std::int64_t size_bytes() const { return static_cast<std::int64_t>(bytes.size()); }
};

inline std::vector<layer_rows> layers_of(std::vector<int> const& lengths, int heads, int dim,
                                         unsigned seed = 1) {
  std::vector<layer_rows> layers;
  for (std::size_t s = 0; s < lengths.size(); ++s)
    layers.push_back(
        random_layer(seed + static_cast<unsigned>(s), heads, lengths[s], dim, 3, lengths[s] / 9));
  return layers;
}

//! Rows as an input of this type holds them.
template <class Input>
void round_to(layer_rows& rows) {
  for (auto* part : {&rows.keys, &rows.values}) {
    for (float& x : *part)
      x = to_float(convert<Input>(x));
  }
}

//! The scheme with pointers that kernels can follow: `count` means of each side are copied into `memory`.
template <class Scheme>
Scheme on_device(Scheme scheme, int count, std::vector<device_vector<float>>& memory) {
  auto const move_means = [&](auto& transform) {
    if constexpr (requires { transform.means; }) {
      if (transform.means == nullptr) return;
      memory.emplace_back(transform.means, transform.means + count);
      transform.means = memory.back().data();
    }
  };
  move_means(scheme.key.transform);
  move_means(scheme.value.transform);
  return scheme;
}

//! Encodes layers of these lengths on both sides and compares everything.
template <class Input, int HeadDim, int TileTokens, class Scheme>
void check_encode(Scheme const& scheme, int heads, std::vector<int> const& lengths,
                  device_options const& options = {}, unsigned seed = 1) {
  CAPTURE(scheme.name, HeadDim, TileTokens, heads, lengths);
  using encoder = device::encoder<Scheme, HeadDim, TileTokens, Input>;
  static_assert(encoder::supports() == status::ok);
  std::vector<layer_rows> const layers = layers_of(lengths, heads, HeadDim, seed);
  auto cache = device_cache<Scheme>::make(scheme, {HeadDim, TileTokens}, heads, lengths, options);
  for (std::size_t s = 0; s < lengths.size(); ++s)
    cache.set_length(static_cast<int>(s), lengths[s]);
  int const longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  device_input<Input> const input(layers, std::vector<int>(lengths.size(), 0), longest);
  workspace work(encoder::workspace(scheme, cache.view(), longest));
  device::encode_request<Input> const request{cache.view(), input.key_rows(), input.value_rows(), longest};
  REQUIRE(encoder::check(scheme, request) == status::ok);
  std::vector<device_vector<float>> means;
  REQUIRE(encoder::encode(on_device(scheme, heads * HeadDim, means), request, work.data(),
                          work.size_bytes()) == cudaSuccess);
  synchronize();
  CHECK(cache.intact());
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    layer_rows rows = layers[s];
    round_to<Input>(rows);
    auto host = made(scheme, heads, {HeadDim, TileTokens});
    REQUIRE(host.prefill(rows.key_rows(), rows.value_rows(), rows.tokens) == status::ok);
    CHECK(cache.difference(static_cast<int>(s), host) == "");
  }
}

//! Sequences that grow step by step on the device and on the host alike.
template <class Scheme, int HeadDim, int TileTokens, class Input = float16>
struct growing_batch {
  using appender = device::appender<Scheme, HeadDim, TileTokens, Input>;
  Scheme scheme;
  int heads;
  std::vector<layer_rows> layers;
  std::vector<kv_cache<Scheme>> hosts;
  std::vector<int> lengths;
  device_cache<Scheme> cache;
  workspace tickets;

  growing_batch(Scheme const& s, int kv_heads, std::vector<int> const& tokens,
                device_options const& options = {}, unsigned seed = 1)
      : scheme{s},
        heads{kv_heads},
        layers{layers_of(tokens, kv_heads, HeadDim, seed)},
        lengths(tokens.size(), 0),
        cache{device_cache<Scheme>::make(s, {HeadDim, TileTokens}, kv_heads, tokens, options)},
        tickets{appender::workspace(cache.view()), std::byte{0}} {
    for (layer_rows& layer : layers)
      round_to<Input>(layer);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      hosts.push_back(made(s, kv_heads, {HeadDim, TileTokens}));
  }
  int total(std::size_t s) const { return static_cast<int>(layers[s].tokens); }
  bool done() const {
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      if (lengths[s] < total(s)) return false;
    }
    return true;
  }
  //! Appends up to `count` tokens to each sequence.
  void step(int count) {
    device_vector<std::int32_t> counts;
    std::vector<int> const begin = lengths;
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      int const n = std::min(count, total(s) - lengths[s]);
      counts.push_back(n > 0 ? n : -1);
      append(hosts[s], layers[s], lengths[s], lengths[s] + n);
      lengths[s] += n;
      cache.set_length(static_cast<int>(s), lengths[s]);
    }
    device_input<Input> const input(layers, begin, count);
    device::append_request<Input> const request{cache.view(), input.key_rows(), input.value_rows(), count,
                                                counts.data()};
    REQUIRE(appender::check(scheme, request) == status::ok);
    REQUIRE(appender::append(scheme, request, tickets.data(), tickets.size_bytes()) == cudaSuccess);
    synchronize();
  }
  //! Lowers the length of a sequence, which drops tokens of the tail.
  void roll_back(std::size_t s, int tokens) {
    lengths[s] = tokens;
    cache.set_length(static_cast<int>(s), tokens);
    REQUIRE(hosts[s].truncate(tokens) == status::ok);
  }
  void check() const {
    CHECK(cache.intact());
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      CAPTURE(scheme.name, s, lengths[s]);
      CHECK(cache.difference(static_cast<int>(s), hosts[s]) == "");
    }
    bool zero = true;
    for (std::byte const b : tickets.bytes)
      zero = zero && b == std::byte{0};
    CHECK(zero);
  }
};

}  // namespace kvcrumb::test
