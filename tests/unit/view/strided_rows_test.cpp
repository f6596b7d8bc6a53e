// SPDX-License-Identifier: Apache-2.0
//! @file Strided input: both orders of axes, different strides for keys and values, canaries, offsets past
//! 2^31.
#include <sys/mman.h>

#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Rows of one side spread over a larger buffer; everything between them is NaN.
struct spread_rows {
  std::vector<float> buffer;
  rows_view<float const> view;
};

spread_rows spread(std::vector<float> const& rows, int heads, std::int64_t tokens, int dim,
                   std::int64_t stride_head, std::int64_t stride_token, std::int64_t offset) {
  spread_rows s;
  s.buffer.assign(test::size(offset + heads * stride_head + tokens * stride_token), std::nanf(""));
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::copy_n(rows.begin() + (h * tokens + t) * dim, dim,
                  s.buffer.begin() + offset + h * stride_head + t * stride_token);
    }
  }
  s.view = {s.buffer.data() + offset, stride_head, stride_token};
  return s;
}

}  // namespace

TEST_CASE("row addresses, computed by hand", "[view]") {
  float x[64] = {};
  CHECK(hnd_rows(x, 4, 8).row(1, 2) == x + 32 + 16);
  CHECK(nhd_rows(x, 3, 8).row(1, 2) == x + 8 + 48);
  sections_view<float> const s{x, 4, 12, nullptr};
  CHECK(s.section(2, 3) == x + 8 + 36);
  std::int32_t const table[2] = {3, 1};
  sections_view<float> const paged{x, 4, 12, table};
  CHECK(paged.section(2, 0) == x + 8 + 36);
  CHECK(paged.section(0, 1) == x + 12);
}

TEST_CASE("every layout of the input gives the same bytes", "[view][cache]") {
  int const heads = 3, dim = 64;
  std::int64_t const tokens = 100;
  test::layer_rows const rows = test::random_layer(2, heads, tokens, dim, 3, 4);
  auto const expected = test::saved(test::filled(schemes::ott<2, 32>(), rows, 32));
  struct strides {
    std::int64_t head, token, offset;
  };
  std::vector<strides> const layouts{
      {tokens * dim, dim, 0},
      {dim, heads * dim, 0},
      {tokens * (dim + 3) + 1, dim + 3, 5},
      {dim + 1, heads * (dim + 1) + 7, 3},
      {dim, 2 * heads * dim, dim * heads}};  // the last one: K and V interleaved
  for (strides const& k : layouts) {
    for (strides const& v : layouts) {
      spread_rows const keys = spread(rows.keys, heads, tokens, dim, k.head, k.token, k.offset);
      spread_rows const values = spread(rows.values, heads, tokens, dim, v.head, v.token, v.offset);
      auto cache = test::made(schemes::ott<2, 32>(), heads, {dim, 32});
      CAPTURE(k.head, k.token, v.head, v.token);
      REQUIRE(cache.append(keys.view, values.view, tokens) ==
              status::ok);  // a NaN between the rows would be refused
      CHECK(test::saved(cache) == expected);
      REQUIRE(cache.view().tokens == tokens);
      auto at_once = test::made(schemes::ott<2, 32>(), heads, {dim, 32});
      auto plain = at_once;
      REQUIRE(at_once.prefill(keys.view, values.view, tokens) == status::ok);
      REQUIRE(plain.prefill(rows.key_rows(), rows.value_rows(), tokens) == status::ok);
      CHECK(test::saved(at_once) == test::saved(plain));
    }
  }
}

TEST_CASE("one token or one head ignores the stride it never uses", "[view]") {
  test::layer_rows const rows = test::random_layer(2, 1, 1, 64);
  auto cache = test::made(schemes::q8_0(), 1, {64, 32});
  rows_view<float const> const k{rows.keys.data(), 0, 0}, v{rows.values.data(), -5, 1};
  CHECK(cache.append(k, v, 1) == status::ok);
}

TEST_CASE("offsets beyond 2^31 elements and 2^32 bytes", "[view][cache]") {
  // 2^34 bytes of address space, of which only the pages of the rows are ever touched.
  std::size_t const bytes = std::size_t{1} << 34;
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) KVCRUMB_TEST_SKIP("skipped: no 16 GiB of address space");
  auto* const base = static_cast<float*>(memory);
  int const heads = 2, dim = 64;
  std::int64_t const tokens = 3, stride_head = (std::int64_t{1} << 31) + 192,
                     stride_token = (std::int64_t{1} << 29) + 64;
  test::layer_rows const rows = test::random_layer(2, heads, tokens, dim);
  rows_view<float> const keys{base, stride_head, stride_token};
  rows_view<float> const values{base + 4096, stride_head, stride_token + 8192};  // another stride
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::copy_n(rows.key(h, t), dim, keys.row(h, t));
      std::copy_n(rows.value(h, t), dim, values.row(h, t));
    }
  }
  CHECK(keys.row(1, 2) - base > (std::int64_t{1} << 31));
  auto cache = test::made(schemes::fp16(), heads, {dim, 32});
  REQUIRE(cache.append(rows_view<float const>{keys.data, keys.stride_head, keys.stride_token},
                       rows_view<float const>{values.data, values.stride_head, values.stride_token},
                       tokens) == status::ok);
  CHECK(test::saved(cache) == test::saved(test::filled(schemes::fp16(), rows, 32)));

  // Queries and outputs as far apart.
  auto const q = test::random_queries(4, 2, 2, dim);
  auto const plain = test::run_attention(cache.view(), q, 2, 2);
  rows_view<float> const far_q{base + 16384, stride_head, stride_token},
      far_o{base + 32768, stride_head, stride_token};
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i)
      std::copy_n(q.data() + (h * 2 + i) * dim, dim, far_q.row(h, i));
  }
  std::vector<float> work(test::size(attend_workspace(cache.view(), 2, 2)));
  REQUIRE(attend(cache.view(), rows_view<float const>{far_q.data, stride_head, stride_token}, 2, 2, far_o,
                 nullptr, {}, work) == status::ok);
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i) {
      CHECK(std::memcmp(far_o.row(h, i), plain.output.data() + (h * 2 + i) * dim, dim * sizeof(float)) == 0);
    }
  }
  munmap(memory, bytes);
}
