// SPDX-License-Identifier: Apache-2.0
//! @file Results over parts of the tokens, joined, equal the result over all of them; un-normalized states
//! likewise.
#include "kvcrumb/device/merge_states.cuh"
#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

TEST_CASE("joined parts equal the whole", "[cuda][merge]") {
  int const parts = 3, rows = 9, dim = 96;
  std::mt19937 engine{3};
  std::normal_distribution<float> normal;
  device_vector<float> o(size(parts * rows * dim)), lse(size(parts * rows)), out(size(rows * dim), -1.0f),
      joined(size(rows), -1.0f);
  for (float& x : o)
    x = normal(engine);
  for (float& x : lse)
    x = 20.0f * normal(engine);
  lse[4] = lse[size(rows + 5)] = negative_infinity;
  for (int i = 0; i < parts; ++i)
    lse[size(i * rows + 7)] = negative_infinity;
  for (int d = 0; d < dim; ++d)
    o[size(4 * dim + d)] = std::nanf("");  // an empty part may hold anything
  REQUIRE(device::merge_states(o.data(), lse.data(), parts, rows, dim, out.data(), joined.data()) ==
          cudaSuccess);
  synchronize();
  for (int r = 0; r < rows; ++r) {
    std::vector<float> expected(size(dim), 0.0f);
    float total = negative_infinity;
    for (int i = 0; i < parts; ++i)
      merge_outputs(expected.data(), total, o.data() + (i * rows + r) * dim, lse[size(i * rows + r)], dim);
    CAPTURE(r);
    REQUIRE(joined[size(r)] == Approx(total).epsilon(1e-6));
    for (int d = 0; d < dim; ++d)
      REQUIRE(out[size(r * dim + d)] == Approx(expected[size(d)]).epsilon(1e-5).margin(1e-6));
  }
  // A NaN of one part is not taken for an empty part, and the first part's log-sum-exps may be overwritten.
  for (int i = 0; i < parts; ++i)
    lse[size(i * rows + 2)] = std::nanf("");
  lse[size(rows + 3)] = std::nanf("");
  REQUIRE(device::merge_states(o.data(), lse.data(), parts, rows, dim, out.data(), lse.data()) ==
          cudaSuccess);
  synchronize();
  for (int r = 0; r < rows; ++r) {
    bool const nan = r == 2 || r == 3;
    CHECK(std::isnan(lse[size(r)]) == nan);
    CHECK((nan || lse[size(r)] == joined[size(r)]));
    for (int d = 0; d < dim; ++d)
      REQUIRE(std::isnan(out[size(r * dim + d)]) == nan);
  }
  CHECK(device::merge_states(o.data(), lse.data(), 0, rows, dim, out.data(), joined.data()) ==
        cudaErrorInvalidValue);
  CHECK(device::merge_states<float>(nullptr, lse.data(), 1, rows, dim, out.data(), joined.data()) ==
        cudaErrorInvalidValue);
  CHECK(device::merge_states(o.data(), lse.data(), parts, 0, dim, out.data(), joined.data()) == cudaSuccess);
}

TEST_CASE("states and un-normalized outputs are what the normalized ones come from", "[cuda][merge]") {
  using scheme = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
  using decoder = device::decoder<scheme, 64, 32, float16, float>;
  host_batch<scheme> batch(caches_of(scheme{}, 1, {64, 32}, {150, 0}));
  device_vector<float16> q(2 * 2 * 64);
  std::mt19937 engine{3};
  std::normal_distribution<float> normal;
  for (float16& x : q)
    x = from_float<float16>(normal(engine));
  device_vector<float> o(q.size()), raw(q.size()), lse(4), states(8);
  decoder::request_type r;
  r.cache = batch.view();
  r.q = {q.data(), 128, 64, 64};
  r.o = {o.data(), 128, 64, 64};
  r.lse = lse.data();
  r.query_heads = 2;
  r.options.blocks = 2;
  std::int64_t bytes = 0;
  REQUIRE(decoder::workspace(r, bytes) == cudaSuccess);
  aligned_array<std::byte> work(bytes);
  REQUIRE(decoder::attend(scheme{}, r, work.data(), bytes) == cudaSuccess);
  r.o.data = raw.data();
  r.states = states.data();
  REQUIRE(decoder::attend(scheme{}, r, work.data(), bytes) == cudaSuccess);
  synchronize();
  for (int row = 0; row < 4; ++row) {
    float const max = states[size(2 * row)], sum = states[size(2 * row + 1)];
    if (row >= 2) {  // the sequence without tokens
      CHECK((max == negative_infinity && sum == 0.0f && lse[size(row)] == negative_infinity));
      continue;
    }
    CHECK(max + std::log(sum) == Approx(lse[size(row)]).epsilon(1e-6));
    for (int d = 0; d < 64; ++d)
      REQUIRE(raw[size(row * 64 + d)] / sum == Approx(o[size(row * 64 + d)]).epsilon(1e-5).margin(1e-6));
  }
}
