// SPDX-License-Identifier: Apache-2.0
//! @file Measured bytes: bytes_used() against a count of every part, the promised compression, settings that
//! apply.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Everything a cache holds, counted through its view and its lists.
template <class Cache>
std::int64_t counted(Cache const& cache, std::int64_t alignment) {
  auto const view = cache.view();
  std::int64_t const row =
      2 * view.shape.head_dim * static_cast<std::int64_t>(sizeof(typename Cache::row_type));
  std::int64_t const blob = (view.scheme.blob(view.shape).bytes + alignment - 1) / alignment * alignment;
  std::int64_t bytes =
      (view.sinks.count + view.tail.count) * view.kv_heads * row + view.tiles() * view.kv_heads * blob;
  for (int h = 0; h < view.kv_heads; ++h) {
    bytes += (view.pool.counts[h] + view.aux.counts[h]) * (row + 8 + 4);  // position and score
  }
  isolation auto const& i = view.scheme.isolate;
  bytes += ((i.pool_capacity() > 0 ? 4 : 0) + (i.aux_capacity() > 0 ? 4 : 0)) * view.kv_heads;  // counts
  return bytes;
}

}  // namespace

TEST_CASE("bytes_used is the sum of all parts", "[cache][bytes]") {
  test::each_scheme([](auto const& scheme) {
    for (std::int64_t const tokens : {0, 1, 31, 127, 128, 129, 300}) {
      auto const cache = test::filled(scheme, test::random_layer(1, 3, tokens, 64, 3, 4), 128);
      CAPTURE(scheme.name, tokens);
      CHECK(cache.bytes_used() == counted(cache, 64));
      CHECK(cache.bytes_reserved() >= cache.bytes_used());
      double const values = 2.0 * 3.0 * 64.0 * static_cast<double>(tokens);
      CHECK(cache.bits_per_value() ==
            (tokens == 0 ? 0.0 : 8.0 * static_cast<double>(cache.bytes_used()) / values));
      // A file holds the same: no padding, the header, and counts always.
      std::int64_t const padding =
          cache.tiles() * 3 * (align_up(cache.blob_parts().bytes, 64) - cache.blob_parts().bytes);
      std::int64_t const counts =
          8 * 3 -
          ((scheme.isolate.pool_capacity() > 0 ? 4 : 0) + (scheme.isolate.aux_capacity() > 0 ? 4 : 0)) * 3;
      CHECK(saved_bytes(cache) == cache.bytes_used() - padding + counts + 640);
    }
  });
  kv_scheme<schemes::q8_0_type::key_type, schemes::q8_0_type::value_type, external> listed;
  auto cache = test::made(listed, 2, {64, 32});
  std::vector<std::int64_t> const list{1, 5, 9};
  REQUIRE(cache.isolate(list) == status::ok);
  test::append(cache, test::random_layer(1, 2, 40, 64), 0, 40);
  CHECK(cache.bytes_used() == counted(cache, 64) + 3 * 8);
}

TEST_CASE("bytes are given back", "[cache][bytes]") {
  test::layer_rows const rows = test::random_layer(1, 2, 300, 64);
  auto cache = test::filled(schemes::q8_0(), rows, 32);
  REQUIRE(cache.truncate(33) == status::ok);
  CHECK(cache.bytes_used() == counted(cache, 64));
  CHECK(cache.tiles() == 2);
  cache.clear();
  CHECK(cache.bytes_used() == 0);
  CHECK(cache.bytes_reserved() < 4096);
}

TEST_CASE("the compression of OTT-2 that the README promises", "[cache][bytes]") {
  // fp16 takes 16 bits for each value; pool and auxiliary pool as full as a stream leaves them.
  for (auto const& [tokens, least] :
       {std::pair{std::int64_t{8192}, 6.2}, std::pair{std::int64_t{32768}, 6.8}}) {
    // One table of rows, appended again and again: norms repeat, the pool still fills.
    test::layer_rows const rows = test::random_layer(1, 1, 512, 128, 4, 8);
    auto streamed = test::made(schemes::ott(), 1, {128, 128});
    for (std::int64_t at = 0; at < tokens; at += 512)
      test::append(streamed, rows, 0, 512);
    REQUIRE(streamed.size() == tokens);
    REQUIRE(streamed.pool(0).size() == 3);
    double const measured = 16.0 / streamed.bits_per_value();
    CAPTURE(tokens, measured);
    CHECK(measured >= least);
    CHECK(measured < 16.0 / 2.25);  // codes and parameters alone
    CHECK(static_cast<double>(streamed.bytes_used()) >=
          2.25 / 8.0 * 2.0 * 128.0 * static_cast<double>(streamed.tile_slots()));
  }
}

TEST_CASE("bits and settings really change the bytes", "[cache][bytes]") {
  test::layer_rows const rows = test::random_layer(1, 1, 256, 128, 3, 4);
  auto const bits = [&](auto const& scheme) { return test::filled(scheme, rows, 128).bits_per_value(); };
  CHECK(bits(schemes::kivi<1, 128>()) < bits(schemes::kivi<2, 128>()));
  CHECK(bits(schemes::kivi<2, 128>()) < bits(schemes::kivi<3, 128>()));
  CHECK(bits(schemes::kivi<3, 128>()) < bits(schemes::kivi<4, 128>()));
  CHECK(bits(schemes::kivi<4, 128>()) < bits(schemes::kivi<8, 128>()));
  CHECK(bits(schemes::kivi<2, 128>()) < bits(schemes::kivi<2, 32>()));
  // all-in: bits + 32 / group, and 16 bytes of validity bits for 2 x 128 x 128 values, padded to 64
  CHECK(bits(schemes::kivi<2, 128>()) == 2.25 + 8.0 * 64.0 / (2.0 * 128.0 * 128.0));
  CHECK(bits(schemes::kivi<4, 32>()) == 5.0 + 8.0 * 64.0 / (2.0 * 128.0 * 128.0));
  CHECK(bits(schemes::q8_0()) == 8.5 + 8.0 * 64.0 / (2.0 * 128.0 * 128.0));
  CHECK(bits(schemes::q4_0()) == 4.5 + 8.0 * 64.0 / (2.0 * 128.0 * 128.0));
  CHECK(bits(schemes::fp16()) == 16.0);
  auto const a = test::filled(schemes::kivi<2, 32>(), rows, 128);
  auto const b = test::filled(schemes::kivi<2, 64>(), rows, 128);
  CHECK(test::saved(a) != test::saved(b));
  CHECK(test::saved(test::filled(schemes::ott(1), rows, 128)) !=
        test::saved(test::filled(schemes::ott(3), rows, 128)));
}
