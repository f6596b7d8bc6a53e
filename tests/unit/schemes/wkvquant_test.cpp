// SPDX-License-Identifier: Apache-2.0
//! @file WKVQuant's cache: static channel ranges and dynamic token groups together, the newest token exact.
#include "kvcrumb/schemes/wkvquant.hpp"

#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;
using test::size;

namespace {

wkvquant_calibration calibrated(test::layer_rows const& rows) {
  wkvquant_calibration c;
  REQUIRE(calibrate_wkvquant(rows.key_rows(), rows.value_rows(), rows.heads, rows.tokens, rows.dim, c) ==
          status::ok);
  return c;
}

//! Relative L2 error of the keys in tiles.
template <class Scheme>
double key_error(Scheme const& scheme, test::layer_rows const& rows) {
  auto const cache = test::filled(scheme, rows, 32);
  std::vector<float> key(size(rows.dim)), value(size(rows.dim));
  double error = 0.0, energy = 0.0;
  for (int h = 0; h < rows.heads; ++h) {
    for (std::int64_t t = 0; t < cache.tile_slots(); ++t) {
      REQUIRE(cache.read(h, t, key.data(), value.data()) == status::ok);
      for (int d = 0; d < rows.dim; ++d) {
        double const x = static_cast<double>(rows.key(h, t)[d]), e = x - static_cast<double>(key[size(d)]);
        error += e * e;
        energy += x * x;
      }
    }
  }
  return std::sqrt(error / energy);
}

}  // namespace

TEST_CASE("bytes and bits are those of the formula", "[schemes][wkvquant]") {
  auto const c = calibrated(test::random_layer(1, 2, 20, 128));
  auto const scheme = schemes::wkvquant(c);
  STATIC_REQUIRE(decltype(scheme)::row_independent);
  STATIC_REQUIRE(tile_hooks<decltype(scheme)::key_type>);
  CHECK(scheme.flush == window{1, 1});
  CHECK(scheme.key.section_bytes(side::key, {128, 128}) == 128 * (64 + 4));
  CHECK(8.0 * static_cast<double>(scheme.key.section_bytes(side::key, {128, 128})) / (128 * 128) ==
        4.0 + 32.0 / 128);  // 4.25, as notes on the paper say
  test::layer_rows const rows = test::random_layer(1, 2, 65, 128);
  auto const cache = test::filled(scheme, rows, 32);
  CHECK(cache.tile_slots() == 64);
  CHECK(cache.bytes_used() == 2 * 2 * align_up(2 * 32 * 68 + 4, 64) + 2 * 2 * 128 * 2);
}

TEST_CASE("only the past is coded: the newest token is exact", "[schemes][wkvquant]") {
  test::layer_rows const rows = test::random_layer(1, 2, 40, 64, 2);
  auto const c = calibrated(rows);
  auto cache = test::made(schemes::wkvquant(c), 2, {64, 32});
  std::vector<float> key(64), value(64);
  for (std::int64_t t = 0; t < 40; ++t) {
    test::append(cache, rows, t, t + 1);
    token_place place{};
    REQUIRE(cache.read(1, t, key.data(), value.data(), &place) == status::ok);
    CHECK(place == token_place::tail);
    CHECK(std::equal(key.begin(), key.end(), rows.key(1, t)));
    CHECK(std::equal(value.begin(), value.end(), rows.value(1, t)));
    CHECK(cache.tail_tokens() == 1);
  }
}

TEST_CASE("attention equals the reference on the same rows", "[schemes][wkvquant]") {
  std::int64_t const tokens = GENERATE(1, 2, 33, 100);
  test::layer_rows const rows = test::random_layer(2, 2, tokens, 64, 3);
  auto const c = calibrated(test::random_layer(3, 2, 100, 64, 3));
  auto const cache = test::filled(schemes::wkvquant<4, 32>(c), rows, 32);
  test::check_attention_of(cache, test::random_queries(3, 6, 1, 64), 6, 1);
  if (tokens > 2)
    test::check_attention_of(cache, test::random_queries(4, 2, 3, 64), 2, 3,
                             {.soft_cap = 20.0f, .window = 30});
}

TEST_CASE("saved, restored, chunked, refused", "[schemes][wkvquant][save]") {
  test::layer_rows const rows = test::random_layer(2, 2, 70, 64, 3);
  auto const c = calibrated(rows);
  auto const scheme = schemes::wkvquant(c);
  auto const cache = test::filled(scheme, rows, 32);
  auto const file = test::saved(cache);
  kv_cache<schemes::wkvquant_type<>> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  auto chunked = test::made(scheme, 2, {64, 32});
  for (std::int64_t const end : {1, 34, 70})
    test::append(chunked, rows, chunked.size(), end);
  CHECK(test::saved(chunked) == file);
  auto moved = c;
  moved.value_shift[100] += 1.0f;
  CHECK(restore(std::span<std::byte const>{file}, schemes::wkvquant(moved), other) ==
        status::scheme_mismatch);
  CHECK(scheme.supports({64, 32}, 3) == status::bad_shape);
  moved.key_scale[7] = -1.0f;
  CHECK(schemes::wkvquant(moved).supports({64, 32}, 2) == status::bad_shape);
  wkvquant_calibration none;
  CHECK(calibrate_wkvquant(rows.key_rows(), rows.value_rows(), 2, 0, 64, none) == status::bad_shape);
  CHECK(calibrate_wkvquant(rows.key_rows(), rows.value_rows(), 0, 70, 64, none) == status::bad_shape);
}

TEST_CASE("constant rows, zeros and broken values", "[schemes][wkvquant]") {
  test::layer_rows flat = test::random_layer(2, 1, 40, 64);
  std::fill(flat.keys.begin(), flat.keys.end(), 2.5f);
  std::fill(flat.values.begin(), flat.values.end(), 0.0f);
  auto const c = calibrated(flat);
  auto const cache = test::filled(schemes::wkvquant(c), flat, 32);
  std::vector<float> key(64), value(64);
  REQUIRE(cache.read(0, 3, key.data(), value.data()) == status::ok);
  CHECK(std::all_of(key.begin(), key.end(), [](float x) { return x == 2.5f; }));
  CHECK(std::all_of(value.begin(), value.end(), [](float x) { return x == 0.0f; }));
  auto const scheme = schemes::wkvquant(c).key;
  std::vector<std::byte> section(size(scheme.section_bytes(side::key, {64, 32})));
  std::byte* at[] = {section.data()};
  for (float const bad : {std::nanf(""), -INFINITY}) {
    std::vector<float> row(64, 1.0f);
    row[11] = bad;
    null_tracer nothing;
    scheme.encode(side::key, {64, 32}, {row.data(), nullptr, at, 1, 1, 2, 0}, nothing);
    scheme.decode_row(side::key, {64, 32}, 0, section.data(), 2, key.data());
    CHECK(std::all_of(key.begin(), key.end(), [](float x) { return is_nan_bits(x); }));
  }
}

TEST_CASE("codes and parameters equal an independent computation", "[schemes][wkvquant][literature]") {
  // x[t][d] = ((37 t + 11 d) mod 23 - 11) (t + 1) / 16 + (d mod 5 = 0 ? 4 : 0); recorded from
  // tests/literature/wkvquant_test.py, which checks these lines.
  constexpr char const* recorded[] = {
      "0acbedf9 2d58 b9c3",
      "7080819f 3045 bc00",
      "0f0f0f0a 3045 bc00",
      "f1f0f0f0 3045 bc00",
  };
  test::layer_rows rows{1, 4, 8, {}, {}};
  for (int t = 0; t < 4; ++t) {
    for (int d = 0; d < 8; ++d)
      rows.keys.push_back(static_cast<float>(((37 * t + 11 * d) % 23 - 11) * (t + 1)) / 16.0f +
                          (d % 5 == 0 ? 4.0f : 0.0f));
  }
  rows.values = rows.keys;
  auto const c = calibrated(rows);
  auto const key = schemes::wkvquant<4, 8, linear>(c).key;
  tile_shape const shape{8, 32};
  REQUIRE(key.supports(side::key, shape, 1) == status::ok);
  std::vector<std::byte> section(size(key.section_bytes(side::key, shape)));
  std::byte* at[] = {section.data()};
  null_tracer nothing;
  auto copy = rows.keys;
  key.encode(side::key, shape, {copy.data(), nullptr, at, 1, 4, 0, 0}, nothing);
  auto const spec = key.spec(side::key, shape);
  for (int t = 0; t < 4; ++t) {
    std::string text;
    auto const digits = [&](std::uint32_t bits, int count) {
      for (int i = count - 1; i >= 0; --i)
        text += "0123456789abcdef"[(bits >> (4 * i)) & 15u];
    };
    for (int d = 0; d < 8; ++d)
      digits(linear::load(spec, section.data(), t, d), 1);
    group_params const p = key.params(spec, section.data(), t, 0);
    for (float const x : p.value) {
      text += ' ';
      digits(from_float<float16>(x).bits, 4);
    }
    CHECK(text == recorded[t]);
  }
}

TEST_CASE("two dimensions beat token groups alone on channel outliers", "[schemes][wkvquant][claim]") {
  using plain = kv_scheme<composed<affine<4>, per_token<128>>, composed<affine<4>, per_token<128>>>;
  SECTION("channels with large means") {
    test::layer_rows const rows = test::random_layer(2, 2, 200, 64, 4);
    auto const c = calibrated(test::random_layer(9, 2, 200, 64, 4));  // other rows of the same kind
    CHECK(2.0 * key_error(schemes::wkvquant(c), rows) < key_error(plain{}, rows));
  }
  SECTION("recorded keys") {
    auto const path = test::real_data("qwen2.5-14b_layer0_220.safetensors");
    if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data");
    auto const k = test::recorded_tensor(*path, "k");
    test::layer_rows const rows{8, 220, 128, k, k};
    REQUIRE(k.size() == 8u * 220u * 128u);
    auto const c = calibrated(rows);
    CHECK(2.0 * key_error(schemes::wkvquant(c), rows) < key_error(plain{}, rows));
  }
}
