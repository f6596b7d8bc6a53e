// SPDX-License-Identifier: Apache-2.0
//! @file attend refuses bad arguments with a reason and writes nothing; odd but legal numbers have a defined
//! result.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

struct call {
  rows_view<float const> q;
  int query_heads = 4;
  int queries = 2;
  rows_view<float> o;
  attention_options options{};
  std::int64_t work_less = 0;
};

}  // namespace

TEST_CASE("bad arguments of attend", "[attention][checks]") {
  test::layer_rows const rows = test::random_layer(1, 2, 100, 64);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const q = test::random_queries(1, 4, 2, 64);
  std::vector<float> o(q.size() + 1, 7.0f), lse(8, 7.0f);
  call const good{hnd_rows(q.data(), 2, 64), 4, 2, hnd_rows(o.data(), 2, 64), {}, 0};

  auto const refused = [&](call const& c) {
    std::vector<float> work(test::size(attend_workspace(cache.view(), 4, 2) - c.work_less), 7.0f);
    status const s = attend(cache.view(), c.q, c.query_heads, c.queries, c.o, lse.data(), c.options, work);
    if (s != status::ok) {
      CHECK(o == std::vector<float>(q.size() + 1, 7.0f));
      CHECK(lse == std::vector<float>(8, 7.0f));
      CHECK(work == std::vector<float>(work.size(), 7.0f));
    }
    return s;
  };
  auto const changed = [&](auto change) {
    call c = good;
    change(c);
    return refused(c);
  };
  float const inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");

  CHECK(changed([](call& c) { c.query_heads = 3; }) == status::bad_shape);
  CHECK(changed([](call& c) { c.query_heads = 0; }) == status::bad_shape);
  CHECK(changed([](call& c) { c.query_heads = -2; }) == status::bad_shape);
  CHECK(changed([](call& c) { c.queries = -1; }) == status::bad_shape);
  CHECK(changed([](call& c) { c.q.data = nullptr; }) == status::null_pointer);
  CHECK(changed([](call& c) { c.o.data = nullptr; }) == status::null_pointer);
  CHECK(changed([](call& c) { c.q.stride_head = 63; }) == status::bad_stride);
  CHECK(changed([](call& c) { c.q.stride_token = 63; }) == status::bad_stride);
  CHECK(changed([](call& c) { c.q.stride_token = -64; }) == status::bad_stride);
  CHECK(changed([](call& c) { c.o.stride_head = 0; }) == status::bad_stride);
  CHECK(changed([](call& c) { c.o.stride_token = 1; }) == status::bad_stride);
  CHECK(changed([](call& c) { c.q.stride_head = std::int64_t{1} << 61; }) == status::size_overflow);
  CHECK(changed([](call& c) { c.o.stride_head = INT64_MAX; }) == status::size_overflow);
  for (int offset = 1; offset < 4; ++offset) {
    CHECK(changed([&](call& c) {
            c.q.data = reinterpret_cast<float const*>(reinterpret_cast<std::uintptr_t>(c.q.data) +
                                                      static_cast<unsigned>(offset));
          }) == status::misaligned);
    CHECK(changed([&](call& c) {
            c.o.data = reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(c.o.data) +
                                                static_cast<unsigned>(offset));
          }) == status::misaligned);
  }
  CHECK(changed([&](call& c) { c.options.softmax_scale = nan; }) == status::out_of_range);
  CHECK(changed([&](call& c) { c.options.softmax_scale = inf; }) == status::out_of_range);
  CHECK(changed([&](call& c) { c.options.soft_cap = nan; }) == status::out_of_range);
  CHECK(changed([&](call& c) { c.options.soft_cap = inf; }) == status::out_of_range);
  CHECK(changed([&](call& c) { c.options.soft_cap = -1.0f; }) == status::out_of_range);
  CHECK(changed([](call& c) { c.options.window = -1; }) == status::bad_window);
  CHECK(changed([](call& c) { c.options.first_query = INT64_MAX; }) == status::out_of_range);
  CHECK(changed([](call& c) { c.options.part.first_tile = -1; }) == status::out_of_range);
  CHECK(changed([](call& c) { c.options.part = {3, 2, true}; }) == status::out_of_range);
  CHECK(changed([](call& c) { c.options.part.first_head = -1; }) == status::out_of_range);
  CHECK(changed([](call& c) {
          c.options.part.first_head = 2;
          c.options.part.end_head = 1;
        }) == status::out_of_range);
  CHECK(changed([](call& c) { c.work_less = 1; }) == status::buffer_too_small);
  for (float const sink : {nan, inf}) {
    std::vector<float> const sinks{0.0f, negative_infinity, 0.0f, sink};
    CHECK(changed([&](call& c) { c.options.sink_logits = sinks.data(); }) == status::not_finite);
  }
  for (std::size_t const where : {std::size_t{0}, std::size_t{63}, std::size_t{64}, q.size() - 1}) {
    std::vector<float> bad = q;
    for (float const x : {nan, inf, -inf, 65537.0f, -3.0e38f}) {
      bad[where] = x;
      status const expected = std::isfinite(x) ? status::out_of_range : status::not_finite;
      CHECK(changed([&](call& c) { c.q.data = bad.data(); }) == expected);
    }
  }
  CHECK(changed([](call&) {}) == status::ok);
  CHECK(o.back() == 7.0f);
}

TEST_CASE("a view without heads is refused", "[attention][checks]") {
  cache_view<schemes::q8_0_type, float16> const view;
  std::vector<float> o(128), q(128), work(10);
  CHECK(attend(view, hnd_rows<float const>(q.data(), 1, 128), 1, 1, hnd_rows(o.data(), 1, 128), nullptr, {},
               work) == status::bad_shape);
}

TEST_CASE("the longest windows and the most distant queries", "[attention][checks]") {
  test::layer_rows const rows = test::random_layer(1, 1, 70, 64);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const q = test::random_queries(1, 1, 3, 64);
  auto const plain = test::run_attention(cache.view(), q, 1, 3);
  attention_options options;
  options.window = INT64_MAX;
  CHECK(test::same_bits(test::run_attention(cache.view(), q, 1, 3, options).output, plain.output));
  // Fewer tokens than queries: positions below zero with the longest window.
  auto const two = test::filled(schemes::ott<2, 32>(), test::random_layer(1, 1, 2, 64), 32);
  test::attention_result const r = test::run_attention(two.view(), q, 1, 3, options);
  CHECK(r.lse[0] == negative_infinity);
  CHECK(std::isfinite(r.lse[2]));
  options.first_query = std::int64_t{1} << 60;
  options.window = 0;
  options.causal = true;
  test::check_attention_of(cache, q, 1, 3, options);
  options.window = 5;
  CHECK(test::run_attention(cache.view(), q, 1, 3, options).lse[0] == negative_infinity);
}

TEST_CASE("strided queries and outputs", "[attention]") {
  // Queries [token][head][dim] with gaps, outputs [head][token][dim] with canaries between the rows.
  test::layer_rows const rows = test::random_layer(1, 2, 100, 64);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const q = test::random_queries(1, 4, 3, 64);
  auto const plain = test::run_attention(cache.view(), q, 4, 3);
  std::vector<float> spread(3 * 4 * 70, std::nanf("")), o(4 * 3 * 67, 99.0f), lse(12);
  for (std::size_t h = 0; h < 4; ++h) {
    for (std::size_t i = 0; i < 3; ++i) {
      std::copy_n(q.begin() + static_cast<std::ptrdiff_t>((h * 3 + i) * 64), 64,
                  spread.begin() + static_cast<std::ptrdiff_t>((i * 4 + h) * 70));
    }
  }
  std::vector<float> work(test::size(attend_workspace(cache.view(), 4, 3)));
  REQUIRE(attend(cache.view(), rows_view<float const>{spread.data(), 70, 280}, 4, 3,
                 rows_view<float>{o.data(), 201, 67}, lse.data(), {}, work) == status::ok);
  for (std::size_t i = 0; i < 12; ++i) {
    CHECK(std::memcmp(o.data() + i * 67, plain.output.data() + i * 64, 64 * sizeof(float)) == 0);
    CHECK((o[i * 67 + 64] == 99.0f && o[i * 67 + 65] == 99.0f && o[i * 67 + 66] == 99.0f));
  }
  CHECK(test::same_bits(lse, plain.lse));
}
