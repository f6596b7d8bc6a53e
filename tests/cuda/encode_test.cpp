// SPDX-License-Identifier: Apache-2.0
//! @file Device bytes equal host bytes: whole sequences (prefill), appends with their flushes, rollback.
#include "kvcrumb/device/encode.cuh"
#include "cuda/empty_batch.hpp"
#include "kvcrumb/device/append.cuh"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

template <int Bits, int Group>
using affine_scheme =
    kv_scheme<composed<affine<Bits>, per_channel<Group>>, composed<affine<Bits>, per_token<Group>>>;
template <int Bits>
using rotated = kv_scheme<composed<symmetric<Bits>, per_channel<64>, hadamard<>>,
                          composed<lloyd_max<Bits>, per_row, hadamard<>>>;
using row_scheme = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
using ott32 = schemes::ott_type<2, 32>;

std::vector<layer_rows> layers_of(std::vector<int> const& lengths, int heads, int dim) {
  std::vector<layer_rows> all;
  for (int const n : lengths)
    all.push_back(random_layer(static_cast<unsigned>(21 + n), heads, n, dim, 4, 7));
  return all;
}

//! Encodes sequences of these lengths at once and compares each with the host's prefill.
template <int HeadDim, int TileTokens, class Input, class Scheme>
void check_prefill(Scheme const& scheme, std::vector<int> const& lengths, int heads = 2) {
  using encoder = device::encoder<Scheme, HeadDim, TileTokens, Input>;
  STATIC_REQUIRE(encoder::supports() == status::ok);
  int const most = *std::max_element(lengths.begin(), lengths.end()), n = static_cast<int>(lengths.size());
  std::vector<layer_rows> const layers = layers_of(lengths, heads, HeadDim);
  input_rows<Input> const input(layers, heads, HeadDim, most);
  empty_batch<Scheme> device(scheme, heads, {HeadDim, TileTokens}, n, most);
  for (int b = 0; b < n; ++b)
    device.tokens(b) = lengths[size(b)];
  typename encoder::request_type const request{device.view(), input.key_view, input.value_view, most,
                                               nullptr};
  REQUIRE(encoder::check(scheme, request) == status::ok);
  std::int64_t const bytes = encoder::workspace(scheme, device.view(), most);
  aligned_array<std::byte> workspace(std::max<std::int64_t>(bytes, 16));
  REQUIRE(encoder::encode(scheme, request, workspace.data(), bytes) == cudaSuccess);
  for (int b = 0; b < n; ++b) {
    kv_cache<Scheme> host = made(scheme, heads, {HeadDim, TileTokens});
    batch_rows<Input const> const k = input.key_view, v = input.value_view;
    rows_view<Input const> const keys{k.row(b, 0, 0), k.stride_head, k.stride_token};
    rows_view<Input const> const values{v.row(b, 0, 0), v.stride_head, v.stride_token};
    REQUIRE(host.prefill(keys, values, lengths[size(b)]) == status::ok);
    device.check_equal(b, host);
  }
}

//! Appends step by step, `count` tokens each, and compares with the host after every step.
template <int HeadDim, int TileTokens, class Scheme>
void check_append(Scheme const& scheme, int tokens, int count, int heads = 2) {
  using appender = device::appender<Scheme, HeadDim, TileTokens, float16>;
  STATIC_REQUIRE(appender::supports() == status::ok);
  std::vector<layer_rows> const layers = layers_of({tokens, tokens}, heads, HeadDim);
  input_rows<float16> const input(layers, heads, HeadDim, tokens);
  empty_batch<Scheme> device(scheme, heads, {HeadDim, TileTokens}, 2, tokens, count);
  std::vector<kv_cache<Scheme>> hosts(2, made(scheme, heads, {HeadDim, TileTokens}));
  for (int done = 0; done + count <= tokens; done += count) {
    INFO("tokens " << done << " + " << count);
    aligned_array<std::int32_t> counts(2);
    counts[0] = count;
    counts[1] = done % (2 * count) == 0 ? count : 0;  // the second sequence pauses every other step
    typename appender::request_type request{device.view(), input.key_view, input.value_view, count,
                                            counts.data()};
    request.keys.data += done * request.keys.stride_token;
    request.values.data += done * request.values.stride_token;
    for (int b = 0; b < 2; ++b)
      device.tokens(b) += counts[b];
    REQUIRE(appender::check(scheme, request) == status::ok);
    REQUIRE(appender::append(scheme, request, device.tickets(), device.ticket_bytes()) == cudaSuccess);
    for (int b = 0; b < 2; ++b) {
      batch_rows<float16 const> const k = request.keys, v = request.values;
      REQUIRE(hosts[size(b)].append(rows_view<float16 const>{k.row(b, 0, 0), k.stride_head, k.stride_token},
                                    rows_view<float16 const>{v.row(b, 0, 0), v.stride_head, v.stride_token},
                                    counts[b]) == status::ok);
      device.check_equal(b, hosts[size(b)]);
    }
  }
}

}  // namespace

TEST_CASE("encoded sequences have the host's bytes: lengths around a tile", "[cuda][encode]") {
  std::vector<int> const lengths{0, 1, 127, 128, 129, 159, 160, 161, 300};
  check_prefill<128, 128, float16>(schemes::ott<2, 128>(), lengths);
  check_prefill<64, 32, float16>(row_scheme{}, {0, 1, 31, 32, 33, 70});
}

TEST_CASE("encoded sequences have the host's bytes: named systems", "[cuda][encode]") {
  check_prefill<128, 128, float16>(schemes::kivi<2, 32>(), {300, 128});
  check_prefill<128, 64, bfloat16>(schemes::nqkv4(), {100, 64}, 4);
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_prefill<128, 32, float>(schemes::qserve4(), {100, 33});
  check_prefill<64, 128, float16>(schemes::fp8(), {100, 200});
#endif
}

#if !defined(KVCRUMB_SIMT_LIGHT)
TEST_CASE("encoded sequences have the host's bytes: bits, heads and tiles", "[cuda][encode]") {
  check_prefill<128, 128, float16>(affine_scheme<1, 128>{}, {300});
  check_prefill<128, 128, float16>(affine_scheme<3, 128>{}, {300});
  check_prefill<96, 32, float16>(affine_scheme<3, 32>{}, {70});
  check_prefill<192, 64, float16>(affine_scheme<8, 32>{}, {130});
  check_prefill<256, 128, float16>(affine_scheme<4, 64>{}, {200});
  check_prefill<128, 128, float16>(rotated<4>{}, {200});
  check_prefill<96, 64, float16>(rotated<3>{}, {130});
}
#endif

TEST_CASE("appended tokens have the host's bytes, one by one and in drafts", "[cuda][append]") {
  check_append<64, 64>(schemes::ott<2, 32>(), 240, 5);
  check_append<64, 32>(row_scheme{}, 40, 1);
  check_append<64, 32>(row_scheme{}, 42, 3);
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_append<64, 64>(schemes::ott<2, 32>(), 170, 1);
  check_append<64, 128>(schemes::kivi<2, 32>(), 270, 7);
  check_append<128, 32>(schemes::nqkv4(), 20, 1, 4);
#endif
}

TEST_CASE("dropped drafts leave no trace", "[cuda][append]") {
  // Append 4, drop 3 of them, append others: equal to never having appended those.
  using appender = device::appender<ott32, 64, 64, float16>;
  ott32 const scheme = schemes::ott<2, 32>();
  int const tokens = 150, heads = 2;
  std::vector<layer_rows> const layers = layers_of({tokens}, heads, 64);
  input_rows<float16> const input(layers, heads, 64, tokens);
  empty_batch<ott32> device(scheme, heads, {64, 64}, 1, tokens, 4);
  kv_cache<ott32> host = made(scheme, heads, {64, 64});
  for (int at = 0; at + 4 <= tokens; ++at) {
    typename appender::request_type request{device.view(), input.key_view, input.value_view, 4, nullptr};
    request.keys.data += at * request.keys.stride_token;
    request.values.data += at * request.values.stride_token;
    device.tokens(0) += 4;
    REQUIRE(appender::append(scheme, request, device.tickets(), device.ticket_bytes()) == cudaSuccess);
    batch_rows<float16 const> const k = request.keys, v = request.values;
    REQUIRE(host.append(rows_view<float16 const>{k.data, k.stride_head, k.stride_token},
                        rows_view<float16 const>{v.data, v.stride_head, v.stride_token}, 4) == status::ok);
    device.tokens(0) -= 3;
    REQUIRE(host.truncate(host.size() - 3) == status::ok);
    device.check_equal(0, host);
  }
}

TEST_CASE("row-independent schemes drop encoded tokens", "[cuda][append]") {
  using appender = device::appender<row_scheme, 64, 32, float16>;
  int const tokens = 75, heads = 2;
  std::vector<layer_rows> const layers = layers_of({tokens}, heads, 64);
  input_rows<float16> const input(layers, heads, 64, tokens);
  for (int const left : {74, 64, 63, 33, 1, 0}) {
    empty_batch<row_scheme> device(row_scheme{}, heads, {64, 32}, 1, tokens, 80);
    kv_cache<row_scheme> host = made(row_scheme{}, heads, {64, 32});
    typename appender::request_type const request{device.view(), input.key_view, input.value_view, tokens,
                                                  nullptr};
    device.tokens(0) = tokens;
    REQUIRE(appender::append(row_scheme{}, request, device.tickets(), device.ticket_bytes()) == cudaSuccess);
    REQUIRE(host.append(layers[0].key_rows(), layers[0].value_rows(), tokens) == status::ok);
    device.check_equal(0, host);
    device.tokens(0) = left;
    REQUIRE(appender::truncate(row_scheme{}, device.view()) == cudaSuccess);
    REQUIRE(host.truncate(left) == status::ok);
    device.check_equal(0, host);
  }
}

TEST_CASE("bad arguments encode nothing", "[cuda][encode]") {
  using encoder = device::encoder<row_scheme, 64, 32, float16>;
  using appender = device::appender<row_scheme, 64, 32, float16>;
  std::vector<layer_rows> const layers = layers_of({40}, 2, 64);
  input_rows<float16> const input(layers, 2, 64, 40);
  empty_batch<row_scheme> device(row_scheme{}, 2, {64, 32}, 1, 40);
  device.tokens(0) = 40;
  typename encoder::request_type const good{device.view(), input.key_view, input.value_view, 40, nullptr};
  auto const refused = [&](status why, auto change) {
    typename encoder::request_type r = good;
    change(r);
    CHECK(encoder::check(row_scheme{}, r) == why);
    CHECK(encoder::encode(row_scheme{}, r, nullptr, 0) == cudaErrorInvalidValue);
  };
  using request = typename encoder::request_type;
  refused(status::bad_head_dim, [](request& r) { r.cache.shape.head_dim = 128; });
  refused(status::null_pointer, [](request& r) { r.cache.tokens = nullptr; });
  refused(status::null_pointer, [](request& r) { r.keys.data = nullptr; });
  refused(status::misaligned, [](request& r) { ++r.values.data; });
  refused(status::misaligned, [](request& r) { r.keys.stride_token = 67; });
  refused(status::bad_stride, [](request& r) { r.keys.stride_token = 56; });
  refused(status::out_of_range, [](request& r) { r.max_tokens = -1; });
  refused(status::bad_stride, [](request& r) { r.cache.values.stride_page = 16; });
  typename appender::request_type a{device.view(), input.key_view, input.value_view, 0, nullptr};
  CHECK(appender::append(row_scheme{}, a, device.tickets(), 4) == cudaErrorInvalidValue);
  a.count = 1;
  CHECK(appender::append(row_scheme{}, a, nullptr, 4) == cudaErrorInvalidValue);
}
