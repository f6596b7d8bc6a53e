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

//! Rows with zeros of both signs, subnormals, numbers at the end of fp16 and constants, a kind for every 16
//! channels and 16 tokens; if not `finite` also some infinities and NaN.
inline void make_special(layer_rows& rows, unsigned seed, bool finite) {
  std::mt19937 random{seed};
  for (auto* part : {&rows.keys, &rows.values}) {
    for (std::size_t i = 0; i < part->size(); ++i) {
      float& x = (*part)[i];
      auto const dim = static_cast<std::size_t>(rows.dim);
      bool const odd = random() % 2 != 0;
      float const sign = odd ? -1.0f : 1.0f, step = static_cast<float>(random() % 4u);
      switch ((i % dim / 16 + i / dim / 16 * 3 + seed) % 9) {
        case 0: x = sign * 0.0f; break;
        case 1: x = -0.0f; break;
        case 2: x = sign * step * 0x1p-24f; break;
        case 3: x = sign * (65504.0f - 32.0f * step); break;
        case 4: x = 1.5f; break;
        case 5: x = 1000.0f + 0.5f * step; break;
        case 6: x = !finite && random() % 64u == 0 ? sign * INFINITY : x; break;
        case 7: x = !finite && random() % 64u == 0 ? sign * NAN : x; break;
        default: break;
      }
    }
  }
}

//! Encodes layers on both sides and compares everything.
template <class Input, int HeadDim, int TileTokens, class Scheme>
void check_layers(Scheme const& scheme, int heads, std::vector<int> const& lengths,
                  std::vector<layer_rows> const& layers, device_options const& options = {}) {
  CAPTURE(scheme.name, HeadDim, TileTokens, heads, lengths);
  using encoder = device::encoder<Scheme, HeadDim, TileTokens, Input>;
  static_assert(encoder::supports() == status::ok);
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

//! The same with random layers of these lengths.
template <class Input, int HeadDim, int TileTokens, class Scheme>
void check_encode(Scheme const& scheme, int heads, std::vector<int> const& lengths,
                  device_options const& options = {}, unsigned seed = 1) {
  check_layers<Input, HeadDim, TileTokens>(scheme, heads, lengths, layers_of(lengths, heads, HeadDim, seed),
                                           options);
}
//! And with make_special().
template <int HeadDim, int TileTokens, class Scheme>
void check_special(Scheme const& scheme, int heads, std::vector<int> const& lengths) {
  for (unsigned seed = 0; seed < 9; seed += 2) {
    auto layers = layers_of(lengths, heads, HeadDim, seed);
    for (layer_rows& rows : layers)
      make_special(rows, seed, true);
    check_layers<float16, HeadDim, TileTokens>(scheme, heads, lengths, layers);
  }
}

//! Sections of one sequence of `tiles` tiles against those of the scheme itself, because the host's cache
//! takes no infinities and NaN. Every token is encoded.
template <int HeadDim, int TileTokens, class Scheme>
void check_not_finite(Scheme const& scheme, int tiles) {
  using encoder = device::encoder<Scheme, HeadDim, TileTokens, float16>;
  constexpr tile_shape shape{HeadDim, TileTokens};
  int const length = tiles * TileTokens;
  for (unsigned seed = 0; seed < 9; ++seed) {
    CAPTURE(scheme.name, seed);
    auto layers = layers_of({length}, 1, HeadDim, seed);
    make_special(layers[0], seed, false);
    auto cache = device_cache<Scheme>::make(scheme, shape, 1, {length}, {});
    cache.set_length(0, length);
    device_input<float16> const input(layers, {0}, length);
    workspace work(encoder::workspace(scheme, cache.view(), length));
    device::encode_request<float16> const request{cache.view(), input.key_rows(), input.value_rows(), length};
    REQUIRE(encoder::encode(scheme, request, work.data(), work.size_bytes()) == cudaSuccess);
    synchronize();
    CHECK(cache.intact());
    auto const compare = [&](auto const& side_scheme, side which, std::vector<float>& rows,
                             auto const& sections) {
      auto const bytes = static_cast<std::size_t>(side_scheme.section_bytes(which, shape));
      for (int t = 0; t < tiles; ++t) {
        std::vector<std::byte> expected(bytes);
        std::byte* const section = expected.data();
        encode_request r;
        r.rows = rows.data() + t * TileTokens * HeadDim;
        r.sections = &section;
        r.heads = 1;
        r.count = TileTokens;
        null_tracer none;
        side_scheme.encode(which, shape, r, none);
        CHECK(std::memcmp(sections.section(cache.view().pages.page(0, t), 0), section, bytes) == 0);
      }
    };
    compare(scheme.key, side::key, layers[0].keys, cache.view().keys);
    compare(scheme.value, side::value, layers[0].values, cache.view().values);
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
