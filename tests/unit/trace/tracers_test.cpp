// SPDX-License-Identifier: Apache-2.0
//! @file Tracers: which hooks are called, in which order, with which coordinates.
#include <cmath>
#include <vector>

#include "kvcrumb/trace/pair.hpp"
#include "kvcrumb/trace/tracers.hpp"
#include "support/catch.hpp"
#include "unit/scheme/section_probe.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

struct element {
  element_coordinate at;
  float x, x_hat;
};
struct row {
  side which;
  int head;
  std::int64_t token;
  std::vector<float> values;
};

struct recorder {
  std::vector<element>* elements;
  std::vector<row>* rows;
  void on_element(element_coordinate c, float x, float x_hat) { elements->push_back({c, x, x_hat}); }
  void on_row(side s, int head, std::int64_t token, float const* values, int head_dim) {
    rows->push_back({s, head, token, std::vector<float>(values, values + head_dim)});
  }
};
struct rows_only {
  int calls = 0;
  void on_row(side, int, std::int64_t, float const*, int) { ++calls; }
};
struct scores_only {
  float sum = 0.0f;
  void on_score(score_coordinate, float logit) { sum += logit; }
};

template <class Scheme>
void check_coordinates(Scheme const& scheme, side which, int tokens) {
  constexpr int heads = 3, dim = 64;
  tile_shape const shape{dim, 64};
  section_probe<Scheme> probe(scheme, which, shape, heads);
  auto const input = key_like_rows(heads, tokens, dim, 1);
  std::vector<std::uint8_t> isolated(static_cast<std::size_t>(heads * tokens), 0);
  isolated[1] = isolated[static_cast<std::size_t>(tokens + 2)] = 1;
  std::vector<element> elements;
  std::vector<row> rows;
  recorder tracer{&elements, &rows};
  probe.encode(input, tokens, 0, tokens, 0, isolated, tracer);
  // Every row once, before any transform, the isolated ones too; positions count from the request's first one
  // (1000).
  REQUIRE(rows.size() == static_cast<std::size_t>(heads * tokens));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const at = input.begin() + static_cast<std::ptrdiff_t>(i) * dim;
    CHECK(rows[i].which == which);
    CHECK(rows[i].head == static_cast<int>(i) / tokens);
    CHECK(rows[i].token == 1000 + static_cast<std::int64_t>(i) % tokens);
    CHECK(rows[i].values == std::vector<float>(at, at + dim));
  }
  // Every encoded value once, with what it decodes to in the scheme's basis; none of the isolated ones.
  auto transformed = input;
  for (int r = 0; r < heads * tokens; ++r)
    scheme.transform.forward(r / tokens, dim, transformed.data() + r * dim);
  std::vector<int> seen(input.size(), 0);
  int wrong = 0;
  section_spec const s = probe.spec();
  for (element const& e : elements) {
    int const token = static_cast<int>(e.at.token - 1000);
    auto const at = static_cast<std::size_t>((e.at.head * tokens + token) * dim + e.at.dim);
    ++seen[at];
    wrong += e.at.which != which || e.x != transformed[at] ? 1 : 0;
    int const owner = s.per_channel ? e.at.dim : token, group = (s.per_channel ? token : e.at.dim) / s.group;
    float const stored =
        decode(scheme.codec, probe.code(e.at.head, token, e.at.dim), probe.params(e.at.head, owner, group));
    wrong += e.x_hat != stored ? 1 : 0;
  }
  for (std::size_t i = 0; i < seen.size(); ++i)
    wrong += seen[i] != (isolated[i / dim] != 0 ? 0 : 1) ? 1 : 0;
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("hooks get each row and each encoded value once", "[trace]") {
  check_coordinates(composed<affine<2>, per_channel<32>>{}, side::key, 64);
  check_coordinates(composed<affine<4>, per_token<32>, hadamard<>>{}, side::value, 10);
  check_coordinates(composed<nf4<>, per_token<256, head_crossing::across_heads>>{}, side::key, 10);
}

TEST_CASE("a tracer needs one hook and gets no other", "[trace]") {
  STATIC_REQUIRE(tracer<null_tracer>);
  STATIC_REQUIRE(tracer<rows_only>);
  STATIC_REQUIRE(tracer<scores_only>);
  STATIC_REQUIRE(tracer<recorder>);
  STATIC_REQUIRE(!tracer<int>);
  STATIC_REQUIRE(!traces_elements<rows_only>);
  STATIC_REQUIRE(!traces_rows<null_tracer>);
  STATIC_REQUIRE(!traces_elements<null_tracer>);
  STATIC_REQUIRE(!traces_scores<null_tracer>);
  using both = tracer_pair<rows_only, scores_only>;
  STATIC_REQUIRE(tracer<both>);
  STATIC_REQUIRE(traces_rows<both>);
  STATIC_REQUIRE(traces_scores<both>);
  STATIC_REQUIRE(!traces_elements<both>);
  STATIC_REQUIRE(tracer<error_tracer>);
  STATIC_REQUIRE(tracer<channel_absmax_tracer>);
  STATIC_REQUIRE(tracer<row_norm_tracer>);
}

TEST_CASE("a pair calls both tracers for the hooks they have", "[trace]") {
  rows_only rows;
  scores_only scores;
  tracer_pair<rows_only, scores_only> pair{rows, scores};
  float const values[2] = {1.0f, 2.0f};
  pair.on_row(side::key, 0, 5, values, 2);
  pair.on_score({}, 2.5f);
  CHECK(rows.calls == 1);
  CHECK(scores.sum == 2.5f);
  std::vector<element> elements;
  std::vector<row> seen;
  recorder record{&elements, &seen};
  error_tracer error;
  tracer_pair<recorder, error_tracer> other{record, error};
  other.on_element({side::value, 1, 7, 3}, 2.0f, 1.5f);
  other.on_row(side::value, 1, 7, values, 2);
  CHECK(elements.size() == 1);
  CHECK(elements[0].at.dim == 3);
  CHECK(seen.size() == 1);
  CHECK(error.count[1] == 1);
  // Pairs nest.
  tracer_pair<tracer_pair<rows_only, scores_only>, rows_only> nested{pair, rows};
  nested.on_row(side::key, 0, 5, values, 2);
  CHECK(rows.calls == 3);
}

TEST_CASE("error sums are kept per side", "[trace]") {
  error_tracer t;
  CHECK(t.relative(side::key) == 0.0);
  t.on_element({side::key, 0, 0, 0}, 2.0f, 1.5f);
  t.on_element({side::key, 0, 0, 1}, -1.0f, -1.0f);
  t.on_element({side::value, 0, 0, 0}, 4.0f, 5.0f);
  CHECK(t.count[0] == 2);
  CHECK(t.count[1] == 1);
  CHECK(t.value_squares[0] == 5.0);
  CHECK(t.error_squares[0] == 0.25);
  CHECK(t.relative(side::key) == 0.05);
  CHECK(t.relative(side::value) == 1.0 / 16.0);
}

TEST_CASE("channel maxima and row norms look at one side", "[trace]") {
  std::vector<float> maxima(4, 0.0f), norms(6, -1.0f);
  channel_absmax_tracer m{side::key, maxima.data()};
  row_norm_tracer n{side::value, norms.data(), 3};
  float const a[2] = {1.0f, -3.0f}, b[2] = {-2.0f, 2.5f};
  m.on_row(side::key, 0, 0, a, 2);
  m.on_row(side::key, 0, 1, b, 2);
  m.on_row(side::key, 1, 0, b, 2);
  m.on_row(side::value, 0, 0, std::vector<float>(2, 99.0f).data(), 2);
  CHECK(maxima == std::vector<float>{2.0f, 3.0f, 2.0f, 2.5f});
  n.on_row(side::value, 0, 1, a, 2);
  n.on_row(side::value, 1, 2, b, 2);
  n.on_row(side::key, 0, 0, a, 2);
  n.on_row(side::value, 0, 3, a, 2);  // beyond the last position: ignored
  CHECK(norms == std::vector<float>{-1.0f, 4.0f, -1.0f, -1.0f, -1.0f, 4.5f});
}
