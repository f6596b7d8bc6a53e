// SPDX-License-Identifier: Apache-2.0
//! @file Token pools chosen by kernels, at once and step by step.
#include "cuda/encode_tools.hpp"

namespace {

using namespace kvcrumb;
using namespace kvcrumb::test;

template <class Codec, int Group, class Score, class Transform = identity>
using traced = kv_scheme<composed<Codec, per_channel<Group>, Transform>,
                         composed<Codec, per_token<Group>, Transform>, token_pool<Score>>;

template <class Scheme, int HeadDim, int TileTokens, class Input = float16>
void check_growth(Scheme const& scheme, int heads, std::vector<int> const& tokens,
                  std::vector<int> const& steps, unsigned seed = 1) {
  growing_batch<Scheme, HeadDim, TileTokens, Input> batch(scheme, heads, tokens, {}, seed);
  for (std::size_t i = 0; !batch.done(); ++i)
    batch.step(steps[i % steps.size()]);
  batch.check();
}

TEST_CASE("encode: the outliers of a prompt are chosen once over all tokens") {
  check_encode<float16, 64, 32>(schemes::ott<2, 32>(), 2, {0, 63, 64, 65, 300});
  check_encode<float16, 128, 128>(schemes::ott<2, 128>(), 1, {300});
  check_encode<float16, 96, 64>(schemes::ott<4, 32>(5), 1, {200});
  check_encode<float16, 64, 32>(schemes::ott<2, 32>(0), 1, {100});
  check_encode<float16, 64, 32>(schemes::ott<2, 32>(70), 1, {100});  // the pool takes all
  check_encode<float, 64, 32>(schemes::ott<2, 32>(), 1, {100});
}

TEST_CASE("encode: scores, scopes and sinks of token pools") {
  check_encode<float16, 96, 32>(traced<affine<2>, 32, l2_score>{.isolate = {.capacity = 4}}, 2, {100});
  check_encode<float16, 64, 32>(traced<affine<2>, 32, absmax_score>{.isolate = {.capacity = 4}}, 2, {100});
  check_encode<float16, 64, 32>(traced<affine<2>, 32, negated<l1_score>>{.isolate = {.capacity = 4}}, 2,
                                {100});
  token_pool<l1_score> joint{.capacity = 4, .across = pool_scope::per_layer, .sinks = 3};
  check_encode<float16, 64, 32>(traced<affine<2>, 32, l1_score>{.isolate = joint}, 5, {100, 33, 3});
}

TEST_CASE("encode: isolated tokens leave the statistics of their groups") {
  // Sums of squares and the mean of what remains depend on the order: that of the host, without gaps.
  check_encode<float16, 64, 32>(traced<lloyd_max<2>, 32, l1_score>{.isolate = {.capacity = 9}}, 1, {100});
  check_encode<float16, 64, 32>(traced<affine<3>, 8, l1_score, hadamard<>>{.isolate = {.capacity = 20}}, 1,
                                {100});
  check_encode<float16, 64, 32>(traced<affine<2>, 8, l1_score>{.isolate = {.capacity = 40}}, 1, {64});
  // More than a block lists, and more than its threads keep in registers.
  check_encode<float16, 64, 32>(traced<affine<2>, 8, l1_score>{.isolate = {.capacity = 70}}, 1, {100});
  check_encode<float16, 64, 128>(traced<affine<2>, 32, negated<l1_score>>{.isolate = {.capacity = 2}}, 1, {8400});
  using across = composed<nf4<>, per_token<256, head_crossing::across_heads>>;
  check_encode<float16, 64, 32>(kv_scheme<across, across, token_pool<>>{.isolate = {.capacity = 5}}, 6, {50});
}

TEST_CASE("encode and append: tokens with NaN keys are the last that a pool takes") {
  auto const scheme = schemes::ott<2, 32>();
  using encoder = device::encoder<schemes::ott_type<2, 32>, 64, 32, float16>;
  int const tokens = 1200;
  std::vector<layer_rows> layers = layers_of({tokens, tokens}, 2, 64);
  std::vector<int> const poisoned{5, 6, 7, 300, 1000};
  for (int const t : poisoned)
    layers[0].keys[size(layers[0].at(0, t) + 9)] = std::nanf("");
  auto cache = device_cache<schemes::ott_type<2, 32>>::make(scheme, {64, 32}, 2, {tokens, tokens});
  cache.set_length(0, tokens);
  cache.set_length(1, tokens);
  device_input<float16> const input(layers, {0, 0}, tokens);
  workspace work(encoder::workspace(scheme, cache.view(), tokens));
  REQUIRE(encoder::encode(scheme, {cache.view(), input.key_rows(), input.value_rows(), tokens}, work.data(),
                          work.size_bytes()) == cudaSuccess);
  synchronize();
  CHECK(cache.intact());
  batch_isolated const& pool = cache.view().pool;
  CHECK(pool.counts[0] == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(std::count(poisoned.begin(), poisoned.end(), pool.positions[i]) == 0);
  auto host = made(scheme, 2, {64, 32});
  REQUIRE(host.prefill(layers[1].key_rows(), layers[1].value_rows(), tokens) == status::ok);
  CHECK(cache.difference(1, host) == "");  // the neighbours of the poisoned sequence

  using growing = growing_batch<schemes::ott_type<2, 32>, 64, 32>;
  growing step(scheme, 1, {64}, {.tail_capacity = 127});
  step.layers[0].keys[size(step.layers[0].at(0, 0))] = std::nanf("");
  device_input<float16> const rows(step.layers, {0}, 64);
  step.cache.set_length(0, 64);
  device::append_request<float16> const request{step.cache.view(), rows.key_rows(), rows.value_rows(), 64};
  REQUIRE(growing::appender::append(scheme, request, step.tickets.data(), step.tickets.size_bytes()) ==
          cudaSuccess);
  synchronize();
  CHECK(step.cache.intact());
  CHECK(step.cache.view().pool.counts[0] == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(step.cache.view().pool.positions[i] != 0);
}

TEST_CASE("append: the streaming rule gives the host's pools and bytes") {
  check_growth<schemes::ott_type<2, 32>, 64, 32>(schemes::ott<2, 32>(), 2, {300, 130}, {1, 5, 3});
  check_growth<schemes::ott_type<2, 32>, 64, 128>(schemes::ott<2, 32>(2), 1, {300}, {8}, 5);
  check_growth<schemes::ott_type<4, 64>, 96, 64>(schemes::ott<4, 64>(), 1, {260}, {4});
  auto frozen = schemes::ott<2, 32>();
  frozen.isolate.auxiliary = 2;  // the pool freezes when two tokens have left it
  check_growth<decltype(frozen), 64, 32>(frozen, 2, {400}, {8}, 3);
  frozen.isolate.auxiliary = 0;
  check_growth<decltype(frozen), 64, 32>(frozen, 1, {200}, {8}, 4);
  check_growth<decltype(frozen), 64, 32>(schemes::ott<2, 32>(0), 1, {200}, {8}, 4);
}

TEST_CASE("append: other scores and the scope of a layer") {
  using layer = traced<affine<2>, 32, l1_score>;
  token_pool<l1_score> joint{.capacity = 3, .auxiliary = 8, .across = pool_scope::per_layer, .sinks = 3};
  check_growth<layer, 64, 32>(layer{.flush = {7, 32}, .isolate = joint}, 3, {200, 60}, {8});
  using large = traced<affine<2>, 16, negated<absmax_score>>;
  check_growth<large, 64, 32>(large{.flush = {0, 32}, .isolate = {.capacity = 2}}, 2, {150}, {5});
  using rows = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>, token_pool<l2_score>>;
  check_growth<rows, 64, 32>(rows{.flush = {4, 1}, .isolate = {.capacity = 3, .auxiliary = 5}}, 2, {90},
                             {1, 3});
}

}  // namespace
