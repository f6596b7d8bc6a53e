// SPDX-License-Identifier: Apache-2.0
//! @file Copies are independent; a cache that was moved from is as if default-constructed.
#include <utility>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

using cache_type = kv_cache<decltype(schemes::ott<2, 32>())>;
constexpr int heads = 2, width = 64, tokens = 150;

cache_type filled() {
  cache_type cache;
  REQUIRE(cache_type::create(schemes::ott<2, 32>(), {heads, {width, 32}}, cache) == status::ok);
  std::vector<float> rows(static_cast<std::size_t>(heads) * tokens * width);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = static_cast<float>((i * 37) % 101) - 50.0f;
  REQUIRE(cache.append(hnd_rows(rows.data(), tokens, width), hnd_rows(rows.data(), tokens, width), tokens) ==
          status::ok);
  return cache;
}

std::vector<std::byte> bytes_of(cache_type const& cache) {
  std::vector<std::byte> file(static_cast<std::size_t>(saved_bytes(cache)));
  REQUIRE(save(cache, std::span<std::byte>(file)) == status::ok);
  return file;
}

}  // namespace

TEST_CASE("moving takes everything and leaves an empty cache that refuses work") {
  cache_type source = filled();
  std::vector<std::byte> const before = bytes_of(source);
  cache_type constructed = std::move(source);
  CHECK(bytes_of(constructed) == before);
  cache_type assigned = filled();
  assigned = std::move(constructed);
  CHECK(bytes_of(assigned) == before);
  for (cache_type* moved : {&source, &constructed}) {
    CHECK(moved->size() == 0);
    CHECK(moved->bytes_used() == 0);
    CHECK(moved->tiles() == 0);
    float row[width] = {};
    CHECK(moved->read(0, 0, row, row) == status::out_of_range);
    CHECK(moved->append(hnd_rows(row, 1, width), hnd_rows(row, 1, width), 1) == status::bad_shape);
  }
}

TEST_CASE("a copy does not change with its original") {
  cache_type original = filled();
  cache_type const copy = original;
  std::vector<std::byte> const before = bytes_of(copy);
  REQUIRE(original.truncate(tokens - 3) == status::ok);
  CHECK(bytes_of(copy) == before);
  CHECK(bytes_of(original) != before);
}
