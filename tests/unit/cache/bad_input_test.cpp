// SPDX-License-Identifier: Apache-2.0
//! @file What a cache refuses, with which reason, and that nothing changes then; a default-constructed cache.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Runs f(cache) on a filled cache and checks that the saved bytes stay the same.
template <class Scheme, class F>
void unchanged(Scheme const& scheme, F&& f) {
  test::layer_rows const rows = test::random_layer(1, 2, 70, 64, 3, 4);
  auto cache = test::filled(scheme, rows, 32);
  auto const before = test::saved(cache);
  f(cache);
  CAPTURE(scheme.name);
  CHECK(test::saved(cache) == before);
}

template <class F>
void for_two(F&& f) {
  unchanged(schemes::ott<2, 32>(), f);
  unchanged(schemes::q8_0(), f);
}

}  // namespace

TEST_CASE("NaN, infinity and values beyond fp16 are refused wherever they stand", "[cache][checks]") {
  float const inf = std::numeric_limits<float>::infinity();
  struct bad {
    float value;
    status reason;
  };
  for (bad const b : {bad{std::nanf(""), status::not_finite}, bad{inf, status::not_finite},
                      bad{-inf, status::not_finite}, bad{65520.0f, status::out_of_range},
                      bad{-65520.0f, status::out_of_range}, bad{3.0e38f, status::out_of_range}}) {
    for_two([&](auto& cache) {
      for (int const where : {0, 63, 64, 5 * 64 + 3, 2 * 7 * 64 - 1}) {
        test::layer_rows rows = test::random_layer(2, 2, 7, 64);
        rows.keys[test::size(where)] = b.value;
        CHECK(cache.append(rows.key_rows(), rows.value_rows(), 7) == b.reason);
        std::swap(rows.keys, rows.values);
        CHECK(cache.append(rows.key_rows(), rows.value_rows(), 7) == b.reason);
        auto empty = test::made(cache.scheme(), 2, {64, 32});
        CHECK(empty.prefill(rows.key_rows(), rows.value_rows(), 7) == b.reason);
        CHECK(empty.size() == 0);
      }
    });
  }
}

TEST_CASE("the largest values that round to fp16 are taken", "[cache][checks]") {
  test::layer_rows rows = test::random_layer(2, 2, 40, 64);
  for (std::size_t i = 0; i < rows.keys.size(); ++i) {
    rows.keys[i] = i % 2 == 0 ? 65519.0f : -65519.0f;
    rows.values[i] = i % 3 == 0 ? 65504.0f : -65504.0f;
  }
  test::each_scheme([&](auto const& scheme) {
    auto const cache = test::filled(scheme, rows, 128);
    std::vector<float> k(64), v(64);
    bool finite = true;
    for (std::int64_t t = 0; t < 40; ++t) {
      REQUIRE(cache.read(1, t, k.data(), v.data()) == status::ok);
      for (std::size_t d = 0; d < 64; ++d)
        finite = finite && std::isfinite(k[d]) && std::isfinite(v[d]);
    }
    CAPTURE(scheme.name);
    CHECK(finite);
  });
}

TEST_CASE("bfloat16 input beyond fp16 is refused, a cache of bfloat16 rows takes it", "[cache][checks]") {
  std::vector<bfloat16> rows(2 * 64, from_float<bfloat16>(1.0e10f));
  auto const view = hnd_rows(static_cast<bfloat16 const*>(rows.data()), 1, 64);
  auto narrow = test::made(schemes::q8_0(), 2, {64, 32});
  CHECK(narrow.append(view, view, 1) == status::out_of_range);
  CHECK(narrow.size() == 0);
  auto wide = test::made<schemes::q8_0_type, bfloat16>(schemes::q8_0(), 2, {64, 32});
  CHECK(wide.append(view, view, 1) == status::ok);
  std::vector<bfloat16> const huge(2 * 64, from_float<bfloat16>(2.0f * max_row_magnitude));
  auto const beyond = hnd_rows(huge.data(), 1, 64);
  CHECK(wide.append(beyond, beyond, 1) == status::out_of_range);
  CHECK(wide.size() == 1);
  std::vector<float16> halves(2 * 64, float16{0x7C00});  // infinity
  auto const infinite = hnd_rows(static_cast<float16 const*>(halves.data()), 1, 64);
  CHECK(narrow.append(infinite, infinite, 1) == status::not_finite);
}

TEST_CASE("denormal, zero and constant rows have finite results", "[cache][checks]") {
  test::each_scheme([&](auto const& scheme) {
    for (float const x : {0.0f, -0.0f, 1.0f, 6.0e-8f, -5.96e-8f, 1.0e-40f}) {
      test::layer_rows rows = test::random_layer(2, 2, 140, 64);
      std::fill(rows.keys.begin(), rows.keys.end(), x);
      std::fill(rows.values.begin(), rows.values.end(), x);
      auto const cache = test::filled(scheme, rows, 128);
      auto const r = test::run_attention(cache.view(), test::random_queries(1, 2, 1, 64), 2, 1);
      bool finite = true;
      // 8 / 127 of a constant is the coarsest error here
      for (float const o : r.output)
        finite = finite && std::fabs(o - test::half(static_cast<double>(x))) <= 0.07f * std::fabs(x) + 1e-6f;
      for (float const l : r.lse)
        finite = finite && std::isfinite(l);
      CAPTURE(scheme.name, x);
      CHECK(finite);
    }
  });
}

TEST_CASE("null, misaligned, negative, overlapping and overflowing input", "[cache][checks]") {
  for_two([](auto& cache) {
    test::layer_rows const rows = test::random_layer(2, 2, 7, 64);
    auto const k = rows.key_rows(), v = rows.value_rows();
    auto const with = [&](auto change, std::int64_t count = 7) {
      auto bad = k;
      change(bad);
      status const keys = cache.append(bad, v, count);
      status const values = cache.append(k, bad, count);
      CHECK(keys == values);
      return keys;
    };
    CHECK(with([](auto& r) { r.data = nullptr; }) == status::null_pointer);
    for (unsigned offset = 1; offset < 4; ++offset) {
      CHECK(with([&](auto& r) {
              r.data = reinterpret_cast<float const*>(reinterpret_cast<std::uintptr_t>(r.data) + offset);
            }) == status::misaligned);
    }
    CHECK(with([](auto& r) { r.stride_head = 63; }) == status::bad_stride);
    CHECK(with([](auto& r) { r.stride_token = 63; }) == status::bad_stride);
    CHECK(with([](auto& r) { r.stride_token = 0; }) == status::bad_stride);
    CHECK(with([](auto& r) { r.stride_token = -64; }) == status::bad_stride);
    CHECK(with([](auto& r) { r.stride_head = INT64_MIN; }) == status::bad_stride);
    CHECK(with([](auto& r) { r.stride_head = INT64_MAX; }) == status::size_overflow);
    CHECK(with([](auto& r) { r.stride_token = INT64_MAX; }) == status::size_overflow);
    CHECK(with([](auto& r) { r.stride_token = (std::int64_t{1} << 60) / 7 + 1; }) == status::size_overflow);
    CHECK(cache.append(k, v, -1) == status::bad_shape);
    CHECK(cache.append(k, v, INT64_MIN) == status::bad_shape);
    CHECK(cache.append(k, v, INT64_MAX) == status::size_overflow);
    CHECK(cache.append(k, v, (std::int64_t{1} << 40) + 1) == status::size_overflow);
    // Zero tokens: nothing to read, nothing to do.
    CHECK(cache.append(rows_view<float const>{}, rows_view<float const>{}, 0) == status::ok);
    auto empty = test::made(cache.scheme(), 2, {64, 32});
    CHECK(empty.prefill(rows_view<float const>{}, rows_view<float const>{}, 0) == status::ok);
    CHECK(empty.prefill(k, v, -1) == status::bad_shape);
  });
}

TEST_CASE("read checks its arguments and says where a token is", "[cache]") {
  test::layer_rows const rows = test::random_layer(1, 2, 70, 64, 3, 4);
  auto scheme = schemes::ott<2, 32>(1);
  scheme.isolate.sinks = 2;
  auto const cache = test::filled(scheme, rows, 32);
  std::vector<float> k(64), v(64);
  CHECK(cache.read(0, 0, nullptr, v.data()) == status::null_pointer);
  CHECK(cache.read(0, 0, k.data(), nullptr) == status::null_pointer);
  CHECK(cache.read(-1, 0, k.data(), v.data()) == status::out_of_range);
  CHECK(cache.read(2, 0, k.data(), v.data()) == status::out_of_range);
  CHECK(cache.read(0, -1, k.data(), v.data()) == status::out_of_range);
  CHECK(cache.read(0, 70, k.data(), v.data()) == status::out_of_range);
  token_place place{};
  CHECK((cache.read(0, 1, k.data(), v.data(), &place) == status::ok && place == token_place::sink));
  CHECK((cache.read(0, 69, k.data(), v.data(), &place) == status::ok && place == token_place::tail));
  CHECK((cache.read(0, 34, k.data(), v.data(), &place) == status::ok && place == token_place::tail));
  REQUIRE(cache.pool(0).size() == 1);
  CHECK((cache.read(0, cache.pool(0)[0].position, k.data(), v.data(), &place) == status::ok &&
         place == token_place::pool));
  std::int64_t const other = cache.pool(0)[0].position == 2 ? 3 : 2;
  CHECK((cache.read(0, other, k.data(), v.data(), &place) == status::ok && place == token_place::tile));
}

TEST_CASE("configurations that cannot be held", "[cache][checks]") {
  using ott = schemes::ott_type<2>;
  auto cache = test::filled(schemes::ott(), test::random_layer(1, 1, 5, 128), 128);
  auto const before = test::saved(cache);
  auto const create = [&](cache_config const& c, auto const&... scheme) {
    if constexpr (sizeof...(scheme) == 0) {
      return kv_cache<ott>::create(schemes::ott(), c, cache);
    } else {
      return kv_cache<ott>::create(scheme..., c, cache);
    }
  };
  CHECK(create({0, {128, 128}}) == status::bad_shape);
  CHECK(create({-1, {128, 128}}) == status::bad_shape);
  CHECK(create({65537, {128, 128}}) == status::bad_shape);
  for (int const d : {-1, 0, 1, 32, 46, 65, 80, 100, 112, 120, 160, 512, 576, 1025, INT32_MAX}) {
    CHECK(create({1, {d, 128}}) == status::bad_head_dim);
  }
  for (int const t : {-128, 0, 1, 16, 32, 64, 96, 127, 256, INT32_MAX})
    CHECK(create({1, {128, t}}) == status::bad_tile_tokens);
  for (std::int64_t const a : {-64, 0, 1, 8, 15, 48, 8192})
    CHECK(create({1, {128, 128}, a}) == status::misaligned);
  CHECK(create({1, {128, 128}, 64, 64}) == status::bad_stride);
  CHECK(create({1, {128, 128}, 64, (1 << 20) + 16}) == status::misaligned);
  auto scheme = schemes::ott();
  scheme.flush = {0, 100};
  CHECK(create({1, {128, 128}}, scheme) == status::bad_window);
  scheme.flush = {-1, 128};
  CHECK(create({1, {128, 128}}, scheme) == status::bad_window);
  scheme.flush = {0, -128};
  CHECK(create({1, {128, 128}}, scheme) == status::bad_window);
  scheme.flush = {max_window + 1, 128};
  CHECK(create({1, {128, 128}}, scheme) == status::bad_window);
  CHECK(test::saved(cache) == before);
  CHECK(schemes::nqkv4().supports({96, 128}, 4) == status::bad_group);
  CHECK(schemes::q8_0().supports({48, 32}, 1) == status::bad_head_dim);
}

TEST_CASE("blobs keep their alignment and stride", "[cache]") {
  test::layer_rows const rows = test::random_layer(1, 2, 100, 64);
  auto const plain = test::filled(schemes::q4_0(), rows, 32);
  for (std::int64_t const alignment : {16, 64, 256, 4096}) {
    for (std::int64_t const stride : {std::int64_t{0}, std::int64_t{16384}}) {
      kv_cache<schemes::q4_0_type> cache;
      REQUIRE(kv_cache<schemes::q4_0_type>::create(schemes::q4_0(), {2, {64, 32}, alignment, stride},
                                                   cache) == status::ok);
      test::append(cache, rows, 0, 100);
      for (std::int64_t tile = 0; tile < cache.tiles(); ++tile) {
        for (int h = 0; h < 2; ++h) {
          CHECK(reinterpret_cast<std::uintptr_t>(cache.blob(tile, h)) %
                    static_cast<std::uintptr_t>(alignment) ==
                0);
        }
      }
      std::int64_t const apart = cache.blob(0, 1) - cache.blob(0, 0);
      CHECK(apart == (stride != 0 ? stride : align_up(cache.blob_parts().bytes, alignment)));
      CHECK(cache.bytes_used() == 2 * cache.tiles() * apart);
      CHECK(test::saved(cache) == test::saved(plain));
    }
  }
}

TEST_CASE("a default-constructed cache refuses politely", "[cache][checks]") {
  kv_cache<schemes::ott_type<2>> cache;
  CHECK(cache.size() == 0);
  CHECK(cache.tiles() == 0);
  CHECK(cache.bytes_used() == 0);
  CHECK(cache.bits_per_value() == 0.0);
  test::layer_rows const rows = test::random_layer(1, 1, 5, 128);
  CHECK(cache.append(rows.key_rows(), rows.value_rows(), 5) == status::bad_shape);
  CHECK(cache.prefill(rows.key_rows(), rows.value_rows(), 5) == status::bad_shape);
  CHECK(cache.truncate(0) == status::ok);
  CHECK(cache.truncate(1) == status::out_of_range);
  cache.clear();
  CHECK(cache.append(rows.key_rows(), rows.value_rows(), 5) == status::bad_shape);
  std::vector<float> row(128);
  CHECK(cache.read(0, 0, row.data(), row.data()) == status::out_of_range);
  std::vector<std::byte> file(test::size(saved_bytes(cache)) + 1000);
  CHECK(save(cache, std::span<std::byte>{file}) == status::bad_shape);
  CHECK(cache.pool(0).empty());
  CHECK(cache.auxiliary(0).empty());
  kv_cache<kv_scheme<schemes::q8_0_type::key_type, schemes::q8_0_type::value_type, external>> listed;
  std::int64_t const positions[1] = {3};
  CHECK(listed.isolate(positions) != status::ok);
}
