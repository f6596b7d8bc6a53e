// SPDX-License-Identifier: Apache-2.0
//! @file supports(): ok, or the first reason why not; descriptions and states that tell schemes apart.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "unit/scheme/section_probe.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

template <class Scheme>
std::string text_of(Scheme const&) {
  description d;
  Scheme::describe(d);
  return d.text;
}

}  // namespace

TEST_CASE("schemes say which head sizes they hold", "[scheme][supports]") {
  auto const fragment_scheme = schemes::kivi<2>().key;
  auto const linear_scheme = schemes::kivi<2, 32, linear>().key;
  for (int const dim : {64, 96, 128, 192, 256}) {
    CHECK(fragment_scheme.supports(side::key, {dim, 128}, 8) == status::ok);
    CHECK(linear_scheme.supports(side::key, {dim, 128}, 8) == status::ok);
  }
  for (int const dim : {1, 46, 72, 80, 112, 120, 160, 512, 576, 1024}) {
    CAPTURE(dim);
    CHECK(fragment_scheme.supports(side::key, {dim, 128}, 8) == status::bad_head_dim);
    CHECK(linear_scheme.supports(side::key, {dim, 128}, 8) == status::ok);
  }
  for (int const dim : {0, -1, 1025, std::numeric_limits<int>::max()}) {
    CHECK(linear_scheme.supports(side::key, {dim, 128}, 8) == status::bad_head_dim);
  }
  for (int const dim : {46, 80, 100})
    CHECK(schemes::q8_0().key.supports(side::key, {dim, 32}, 1) == status::bad_head_dim);
  CHECK(schemes::q8_0().key.supports(side::key, {96, 32}, 1) == status::ok);
  CHECK(schemes::nqkv4<linear>().key.supports(side::key, {80, 32}, 1) == status::bad_group);
  CHECK(schemes::nqkv4<>().key.supports(side::key, {96, 32}, 1) == status::bad_group);
  CHECK(schemes::nqkv4<>().key.supports(side::key, {64, 32}, 1) == status::ok);
}

TEST_CASE("schemes say which tiles, groups, bits and heads they hold", "[scheme][supports]") {
  auto const ott = schemes::ott().key;  // groups of 128 tokens
  CHECK(ott.supports(side::key, {128, 128}, 1) == status::ok);
  CHECK(ott.supports(side::key, {128, 64}, 1) == status::bad_group);
  CHECK(ott.supports(side::key, {128, 32}, 1) == status::bad_group);
  for (int const tokens : {0, 16, 100, 256, -128}) {
    CHECK(ott.supports(side::key, {128, tokens}, 1) == status::bad_tile_tokens);
  }
  CHECK(ott.supports(side::key, {128, 128}, 0) == status::bad_shape);
  CHECK(ott.supports(side::key, {128, 128}, -3) == status::bad_shape);
  CHECK(composed<affine<5>, per_row>{}.supports(side::key, {128, 32}, 1) == status::bad_bits);
  CHECK(composed<affine<6>, per_row>{}.supports(side::key, {128, 32}, 1) == status::bad_bits);
  CHECK(composed<affine<7>, per_row>{}.supports(side::key, {128, 32}, 1) == status::bad_bits);
  CHECK(composed<affine<5>, per_row, identity, linear>{}.supports(side::key, {128, 32}, 1) == status::ok);
  CHECK(composed<affine<4>, per_token<32>, identity, ggml_block>{}.supports(side::key, {128, 32}, 1) ==
        status::bad_group);
  CHECK(composed<symmetric<4>, per_token<64>, identity, ggml_block>{}.supports(side::key, {128, 32}, 1) ==
        status::bad_group);
  CHECK(composed<symmetric<4, float>, per_token<32>, identity, ggml_block>{}.supports(
            side::key, {128, 32}, 1) == status::bad_group);
}

TEST_CASE("an invalid user table is refused", "[scheme][supports]") {
  using scheme_type = composed<codebook<user_table<2>>, per_row>;
  scheme_type scheme{};
  CHECK(scheme.supports(side::key, {64, 32}, 1) == status::out_of_range);
  scheme.codec.table = {{-1.0f, 0.0f, 0.5f, 1.0f}};
  CHECK(scheme.supports(side::key, {64, 32}, 1) == status::ok);
  scheme.codec.table.levels[2] = -0.5f;
  CHECK(scheme.supports(side::key, {64, 32}, 1) == status::out_of_range);
}

TEST_CASE("a shape that needs more means than were given is refused", "[scheme][supports]") {
  std::vector<float> const means(4 * 64, 1.0f);
  using scheme_type = composed<affine<2>, per_row, mean_center, linear>;
  scheme_type scheme{};
  scheme.transform.means = means.data();
  CHECK(scheme.supports(side::key, {64, 32}, 400) == status::ok);  // no count stated: the caller vouches
  scheme.transform.count = 4 * 64;
  CHECK(scheme.supports(side::key, {64, 32}, 4) == status::ok);
  CHECK(scheme.supports(side::key, {32, 32}, 8) == status::ok);
  CHECK(scheme.supports(side::key, {64, 32}, 5) == status::bad_shape);
  CHECK(scheme.supports(side::key, {65, 32}, 4) == status::bad_shape);
  scheme.transform.means = nullptr;
  CHECK(scheme.supports(side::key, {64, 32}, 5) == status::ok);
}

TEST_CASE("states that change bytes have identities of their own", "[scheme]") {
  using user = composed<codebook<user_table<2>>, per_row>;
  user a{{{{-1.0f, 0.0f, 0.5f, 1.0f}}}, {}}, b{{{{-1.0f, 0.0f, 0.25f, 1.0f}}}, {}};
  CHECK(a.state_id(4, 64) != b.state_id(4, 64));
  CHECK(a.state_id(4, 64) == user{a}.state_id(4, 64));
  auto means = number_source(1).bells(4 * 64);
  using centered_scheme = composed<affine<2>, per_row, mean_center>;
  centered_scheme with{}, without{};
  with.transform.means = means.data();
  std::uint64_t const before = with.state_id(4, 64);
  CHECK(before != without.state_id(4, 64));
  means[200] += 1.0f;
  CHECK(with.state_id(4, 64) != before);
}

TEST_CASE("everything else that changes bytes is in the description", "[scheme]") {
  CHECK(text_of(schemes::kivi<2>().key) ==
        "affine2(minimum,half_even,f16,binary16,nearest) per_channel32 identity fragment");
  std::vector<std::string> const texts{
      text_of(composed<affine<2>, per_channel<32>>{}),
      text_of(composed<affine<3>, per_channel<32>>{}),
      text_of(composed<affine<2>, per_channel<64>>{}),
      text_of(composed<affine<2>, per_token<32>>{}),
      text_of(composed<affine<2>, per_token<32, head_crossing::across_heads>>{}),
      text_of(composed<affine<2>, per_row>{}),
      text_of(composed<affine<2>, per_channel<32>, hadamard<>>{}),
      text_of(composed<affine<2>, per_channel<32>, mean_center>{}),
      text_of(composed<affine<2>, per_channel<32>, centered<hadamard<>>>{}),
      text_of(composed<affine<2>, per_channel<32>, identity, linear>{}),
      text_of(composed<nf4<>, per_token<32>>{}),
      text_of(schemes::q4_0().key),
      text_of(schemes::q8_0().key)};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      CHECK(texts[i] != texts[j]);
  }
}

TEST_CASE("descriptions are cut at their capacity and say so", "[scheme]") {
  description d;
  d << "a" << std::int64_t{0} << "b" << std::int64_t{-9223372036854775807 - 1} << "c" << std::int64_t{42};
  CHECK(std::string(d.text) == "a0b-9223372036854775808c42");
  CHECK(!d.overflowed);
  description same;
  same << "a0b-9223372036854775808c42";
  CHECK(d == same);
  for (int i = 0; i < 300; ++i)
    d << "x";
  CHECK(d.overflowed);
  CHECK(d.length == description::capacity);
  CHECK(d.text[description::capacity] == '\0');
  CHECK(!(d == same));
}

TEST_CASE("head sizes that no fragment holds work in the linear layout", "[scheme]") {
  for (int const dim : {1, 2, 46, 72, 80, 112, 576}) {
    using scheme_type = composed<affine<4>, per_token<64>, hadamard<>, linear>;
    tile_shape const shape{dim, 32};
    section_probe<scheme_type> probe({}, side::key, shape, 2);
    auto const rows = key_like_rows(2, 32, dim, 3);
    probe.encode(rows, 32, 0, 32, 0);
    float worst = 0.0f;
    for (int head = 0; head < 2; ++head) {
      for (int t = 0; t < 32; ++t) {
        auto const row = probe.decoded_row(head, t);
        for (int d = 0; d < dim; ++d) {
          worst = std::max(worst, std::fabs(row[static_cast<std::size_t>(d)] -
                                            rows[static_cast<std::size_t>((head * 32 + t) * dim + d)]));
        }
      }
    }
    CAPTURE(dim);
    CHECK(worst < 4.0f);
  }
}
