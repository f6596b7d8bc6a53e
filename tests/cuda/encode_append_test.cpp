// SPDX-License-Identifier: Apache-2.0
//! @file Appending token by token and in chunks, flushing on the device, rolling back: the host's bytes at
//! every step.
#include "cuda/encode_tools.hpp"

namespace {

using namespace kvcrumb;
using namespace kvcrumb::test;

template <class Codec, int Group, class Transform = identity>
using mixed =
    kv_scheme<composed<Codec, per_channel<Group>, Transform>, composed<Codec, per_token<Group>, Transform>>;
template <class Side>
using both = kv_scheme<Side, Side>;

//! Grows sequences by steps of these sizes in turn; compares after every step.
template <int HeadDim, int TileTokens, class Input = float16, class Scheme>
void check_growth(Scheme const& scheme, int heads, std::vector<int> const& tokens,
                  std::vector<int> const& steps, device_options options = {}) {
  int const largest = *std::max_element(steps.begin(), steps.end());
  if (options.encoded && scheme.flush.block > 0)  // no more than needed: the ring wraps at once
    options.tail_capacity = scheme.flush.recent + scheme.flush.block + largest - 1;
  growing_batch<Scheme, HeadDim, TileTokens, Input> batch(scheme, heads, tokens, options);
  for (std::size_t i = 0; !batch.done(); ++i) {
    batch.step(steps[i % steps.size()]);
    batch.check();
  }
}

TEST_CASE("append: KIVI token by token and in chunks") {
  mixed<affine<2, float16, kivi_convention>, 32> const kivi{.flush = {0, 32}};
  check_growth<64, 32>(kivi, 2, {70, 33}, {1});
  check_growth<64, 32>(kivi, 1, {140, 99}, {2, 5, 3});
  check_growth<64, 128>(kivi, 1, {140}, {5});  // four flushes fill one tile
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_growth<96, 64>(schemes::kivi<2, 64>(), 1, {270}, {32});
  check_growth<64, 128>(schemes::kivi<4, 32>(), 1, {260}, {31});
#endif
  auto recent = kivi;
  recent.flush = {9, 32};
  check_growth<64, 64>(recent, 1, {150}, {4});
  recent.flush = {3, 96};  // a flush covers parts of three tiles
  check_growth<64, 64>(recent, 1, {300}, {17});
  recent.flush = {0, 0};
  check_growth<64, 64>(recent, 1, {30}, {7});
}

#if !defined(KVCRUMB_SIMT_LIGHT)
TEST_CASE("append: open tiles of every width keep what they have") {
  check_growth<64, 64>(mixed<affine<1>, 16>{.flush = {0, 16}}, 1, {70}, {16});
  check_growth<64, 128>(mixed<affine<3>, 16>{.flush = {0, 16}}, 1, {140}, {16});
  check_growth<96, 32>(mixed<affine<3>, 8>{.flush = {2, 8}}, 1, {70}, {5});
  check_growth<128, 64>(mixed<symmetric<4>, 32, hadamard<>>{.flush = {0, 32}}, 1, {70}, {11});
  check_growth<64, 32>(mixed<affine<8>, 8>{.flush = {0, 8}}, 1, {40}, {8});
  check_growth<64, 32>(mixed<lloyd_max<2, float>, 16>{.flush = {0, 16}}, 1, {40}, {8});
}
#endif

TEST_CASE("append: row-independent schemes, with and without a tail") {
  check_growth<64, 32>(schemes::qserve4(), 2, {70, 34}, {1, 3});
  check_growth<64, 32>(schemes::qserve4(), 2, {70, 34}, {1, 3}, {.encoded = false});
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_growth<96, 64, bfloat16>(schemes::qserve4(), 1, {70}, {5}, {.encoded = false});
  check_growth<64, 32>(schemes::nqkv4(), 5, {40, 20}, {3}, {.encoded = false});
  check_growth<128, 32>(schemes::nqkv4(), 3, {40}, {1}, {});
  check_growth<64, 64>(schemes::fp8(), 1, {70}, {2}, {.encoded = false});
  check_growth<64, 32>(both<composed<raw<float16>, per_row>>{}, 1, {40}, {3}, {.encoded = false});
  check_growth<192, 32>(both<composed<nf3<>, per_token<64>>>{}, 1, {40}, {3}, {.encoded = false});
#endif
  auto window = schemes::qserve4();
  window.flush = {5, 4};
  check_growth<64, 32>(window, 1, {50}, {4, 1});
}

TEST_CASE("append: sinks come first") {
  using sinks = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>, prefix<4>>;
  check_growth<64, 32>(sinks{}, 2, {40, 3}, {3}, {.encoded = false});
  check_growth<64, 32>(sinks{}, 1, {40}, {5});
}

TEST_CASE("append: float and bfloat16 rows are rounded first") {
  mixed<affine<2>, 32> const scheme{.flush = {0, 32}};
  check_growth<64, 32, float>(scheme, 1, {70}, {5});
}

TEST_CASE("append: continues what encode began") {
  auto const scheme = schemes::ott<2, 32>();
  using type = schemes::ott_type<2, 32>;
  growing_batch<type, 64, 32> batch(scheme, 2, {200, 150});
  std::vector<int> const prompt{100, 64};
  std::vector<layer_rows> const& layers = batch.layers;
  device_input<float16> const input(layers, {0, 0}, 100);
  using encoder = device::encoder<type, 64, 32, float16>;
  for (std::size_t s = 0; s < 2; ++s) {
    batch.cache.set_length(static_cast<int>(s), prompt[s]);
    batch.lengths[s] = prompt[s];
    REQUIRE(batch.hosts[s].prefill(layers[s].key_rows(), layers[s].value_rows(), prompt[s]) == status::ok);
  }
  workspace work(encoder::workspace(scheme, batch.cache.view(), 100));
  REQUIRE(encoder::encode(scheme, {batch.cache.view(), input.key_rows(), input.value_rows(), 100},
                          work.data(), work.size_bytes()) == cudaSuccess);
  batch.check();
  while (!batch.done()) {
    batch.step(8);
    batch.check();
  }
}

TEST_CASE("append: rows of all sequences one after the other") {
  using scheme = mixed<affine<2, float16, kivi_convention>, 32>;
  scheme const kivi{.flush = {0, 32}};
  growing_batch<scheme, 64, 32> batch(kivi, 2, {50, 43}, {.tail_capacity = 81});
  std::vector<int> const counts{50, 43};
  layer_rows joined{2, 93, 64, {}, {}};
  for (int h = 0; h < 2; ++h) {
    for (layer_rows const& layer : batch.layers) {
      joined.keys.insert(joined.keys.end(), layer.key(h, 0), layer.key(h, 0) + layer.tokens * 64);
      joined.values.insert(joined.values.end(), layer.value(h, 0), layer.value(h, 0) + layer.tokens * 64);
    }
  }
  device_input<float16> const input({joined}, {0}, 93);
  device_vector<std::int32_t> const lengths{50, 43};
  device_vector<std::int64_t> const first_row{0, 50};
  for (std::size_t s = 0; s < 2; ++s) {
    append(batch.hosts[s], batch.layers[s], 0, counts[s]);
    batch.lengths[s] = counts[s];
    batch.cache.set_length(static_cast<int>(s), counts[s]);
  }
  using appender = growing_batch<scheme, 64, 32>::appender;
  appender::request_type request{batch.cache.view(), input.key_rows(), input.value_rows(), 50,
                                 lengths.data(),     first_row.data()};
  request.keys.stride_sequence = request.values.stride_sequence = 0;
  REQUIRE(appender::check(kivi, request) == status::ok);
  REQUIRE(appender::append(kivi, request, batch.tickets.data(), batch.tickets.size_bytes()) == cudaSuccess);
  synchronize();
  batch.check();
}

TEST_CASE("append: tokens of the tail can be taken back by lowering the length") {
  mixed<affine<2>, 32> const scheme{.flush = {8, 32}};
  growing_batch<mixed<affine<2>, 32>, 64, 32> batch(scheme, 1, {300});
  std::mt19937 random{1};
  while (!batch.done()) {
    batch.step(8);
    int const tail = static_cast<int>(batch.hosts[0].tail_tokens());
    int const dropped = std::min(tail, static_cast<int>(random() % 6));
    batch.roll_back(0, batch.lengths[0] - dropped);
    batch.check();
  }
}

TEST_CASE("truncate: encoded tokens of row-independent schemes leave nothing behind") {
  auto const check = [](auto const& scheme, bool encoded) {
    using type = std::remove_cvref_t<decltype(scheme)>;
    growing_batch<type, 64, 32> batch(scheme, 2, {90, 90}, {.encoded = encoded});
    using appender = device::appender<type, 64, 32, float16>;
    std::mt19937 random{2};
    while (!batch.done()) {
      batch.step(7);
      for (std::size_t s = 0; s < 2; ++s) {
        if (random() % 3 != 0) continue;
        batch.roll_back(s, std::max(0, batch.lengths[s] - static_cast<int>(random() % 12)));
      }
      REQUIRE(appender::truncate(scheme, batch.cache.view()) == cudaSuccess);
      batch.check();
    }
    batch.roll_back(0, 5);
    batch.roll_back(1, 0);
    REQUIRE(appender::truncate(scheme, batch.cache.view()) == cudaSuccess);
    batch.check();
  };
  check(schemes::qserve4(), false);
  check(schemes::qserve4(), true);
#if !defined(KVCRUMB_SIMT_LIGHT)
  check(both<composed<nf3<>, per_token<16>>>{}, false);
#endif
  using rows = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>, token_pool<>>;
  check(rows{.isolate = {.capacity = 3, .auxiliary = 6}}, true);
  check(rows{.isolate = {.capacity = 3, .auxiliary = 6}}, false);
  check(rows{.flush = {6, 1}, .isolate = {.capacity = 3, .auxiliary = 6, .sinks = 4}}, true);
}

TEST_CASE("append: a sequence alone and in a batch has the same bytes") {
  auto const scheme = schemes::ott<2, 32>();
  growing_batch<schemes::ott_type<2, 32>, 64, 32> batch(scheme, 2, {150, 90, 149});
  while (!batch.done())
    batch.step(8);
  batch.check();  // every host cache has grown alone
}

}  // namespace
