// SPDX-License-Identifier: Apache-2.0
//! @file Groups: where they begin and end, ragged last ones, groups across heads.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kvcrumb/grouping/grouping.hpp"
#include "kvcrumb/reference/quantize_nf4.hpp"
#include "support/catch.hpp"
#include "unit/scheme/section_probe.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

template <int Channels>
using across = per_token<Channels, head_crossing::across_heads>;

//! Values that differ in size from channel to channel, so that every group has its own maximum.
std::vector<float> growing_rows(int heads, int tokens, int head_dim, std::uint64_t seed) {
  auto rows = key_like_rows(heads, tokens, head_dim, seed);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] *= 1.0f + static_cast<float>(i % 1009) * 0x1p-5f;
  return rows;
}

float absmax(std::vector<float> const& rows, std::size_t first, std::size_t count) {
  float largest = 0.0f;
  for (std::size_t i = first; i < first + count; ++i)
    largest = std::max(largest, std::fabs(rows[i]));
  return largest;
}

template <int Tokens>
void check_per_channel(tile_shape shape) {
  using scheme_type = composed<symmetric<8, float>, per_channel<Tokens>, identity, linear>;
  section_probe<scheme_type> probe({}, side::key, shape, 1);
  auto const rows = growing_rows(1, shape.tile_tokens, shape.head_dim, 1);
  probe.encode(rows, shape.tile_tokens, 0, shape.tile_tokens, 0);
  CHECK(probe.spec().groups() == shape.tile_tokens / Tokens);
  int wrong = 0;
  for (int dim = 0; dim < shape.head_dim; ++dim) {
    for (int group = 0; group < shape.tile_tokens / Tokens; ++group) {
      float largest = 0.0f;
      for (int t = group * Tokens; t < (group + 1) * Tokens; ++t) {
        largest = std::max(largest, std::fabs(rows[static_cast<std::size_t>(t * shape.head_dim + dim)]));
      }
      wrong += probe.params(0, dim, group).value[0] != div_rn(largest, 127.0f) ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
}

template <int Channels>
void check_within_head(int head_dim) {
  using scheme_type = composed<symmetric<8, float>, per_token<Channels>, identity, linear>;
  tile_shape const shape{head_dim, 32};
  section_probe<scheme_type> probe({}, side::value, shape, 3);
  auto const rows = growing_rows(3, 32, head_dim, 2);
  probe.encode(rows, 32, 0, 32, 0);
  int const length = std::min(Channels, head_dim), groups = (head_dim + length - 1) / length;
  CAPTURE(Channels, head_dim);
  REQUIRE(probe.spec().groups() == groups);
  int wrong = 0;
  for (int head = 0; head < 3; ++head) {
    for (int t = 0; t < 32; ++t) {
      for (int group = 0; group < groups; ++group) {
        int const begin = group * length, count = std::min(length, head_dim - begin);
        float const largest = absmax(rows, static_cast<std::size_t>((head * 32 + t) * head_dim + begin),
                                     static_cast<std::size_t>(count));
        wrong += probe.params(head, t, group).value[0] != div_rn(largest, 127.0f) ? 1 : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

//! NQKV-like groups against the reference row, heads side by side.
template <int Channels, class Layout>
void check_across(int head_dim, int heads) {
  using scheme_type = composed<nf4<>, across<Channels>, identity, Layout>;
  tile_shape const shape{head_dim, 32};
  scheme_type const scheme{};
  REQUIRE(scheme.supports(side::key, shape, heads) == status::ok);
  section_probe<scheme_type> probe(scheme, side::key, shape, heads);
  auto const rows = growing_rows(heads, 32, head_dim, 3);
  probe.encode(rows, 32, 0, 32, 0);
  CAPTURE(Channels, head_dim, heads);
  auto const wide = doubles(rows);
  int wrong = 0;
  for (int t = 0; t < 32; ++t) {
    auto const row =
        reference::concatenated_heads(wide, static_cast<std::size_t>(heads), 32,
                                      static_cast<std::size_t>(head_dim), static_cast<std::size_t>(t));
    auto const expected = reference::nqkv_row(row, Channels);
    for (int head = 0; head < heads; ++head) {
      for (int dim = 0; dim < head_dim; ++dim) {
        auto const at = static_cast<std::size_t>(head * head_dim + dim);
        wrong += static_cast<int>(probe.code(head, t, dim)) != expected.codes[at] ? 1 : 0;
        // Every head's tile has its own copy of the shared scale.
        double const scale = static_cast<double>(probe.params(head, t, 0).value[0]);
        wrong += scale != expected.absmax[at / Channels] ? 1 : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("per-channel groups run over tokens of one channel", "[grouping]") {
  check_per_channel<8>({46, 32});
  check_per_channel<16>({64, 64});
  check_per_channel<32>({80, 32});
  check_per_channel<64>({64, 128});
  check_per_channel<128>({33, 128});
}

TEST_CASE("per-token groups begin anew with every head and may end ragged", "[grouping]") {
  check_within_head<32>(64);
  check_within_head<64>(96);   // 64 + 32
  check_within_head<40>(128);  // 40 + 40 + 40 + 8
  check_within_head<128>(64);  // a head narrower than the group
  check_within_head<1>(5);
  check_within_head<7>(46);     // 6 * 7 + 4
  check_within_head<128>(576);  // 4 * 128 + 64
}

TEST_CASE("groups across heads are those of the concatenated heads", "[grouping]") {
  check_across<256, fragment>(64, 8);   // four heads a group
  check_across<256, fragment>(64, 6);   // the last group has two heads
  check_across<256, fragment>(128, 4);  // two heads a group
  check_across<256, fragment>(128, 5);  // the last group has one head
  check_across<256, linear>(64, 1);
  check_across<256, linear>(256, 2);  // a head is a group
  check_across<128, linear>(32, 9);
}

TEST_CASE("heads of one span hold equal parameters", "[grouping]") {
  using scheme_type = composed<affine<4>, across<256>>;
  section_probe<scheme_type> probe({}, side::value, {64, 32}, 6);
  auto const rows = growing_rows(6, 32, 64, 4);
  probe.encode(rows, 32, 0, 32, 0);
  for (int t = 0; t < 32; ++t) {
    for (int head : {1, 2, 3})
      CHECK(same_params(probe.params(head, t, 0), probe.params(0, t, 0)));
    CHECK(same_params(probe.params(5, t, 0), probe.params(4, t, 0)));
    CHECK(!same_params(probe.params(4, t, 0), probe.params(3, t, 0)));
  }
}

TEST_CASE("an isolated head of a span takes no part in the shared parameters", "[grouping]") {
  using scheme_type = composed<nf4<>, across<256>, identity, linear>;
  section_probe<scheme_type> probe({}, side::key, {64, 32}, 4);
  auto rows = growing_rows(4, 1, 64, 5);
  for (std::size_t d = 64; d < 128; ++d)
    rows[d] = 1000.0f;  // head 1
  probe.encode(rows, 1, 0, 1, 7, {0, 1, 0, 0});
  float const others = std::max(absmax(rows, 0, 64), absmax(rows, 128, 128));
  for (int head : {0, 2, 3}) {
    CHECK(static_cast<double>(probe.params(head, 7, 0).value[0]) ==
          reference::to_fp16(static_cast<double>(others)));
  }
  CHECK(probe.params(1, 7, 0).value[0] == 0.0f);
}

TEST_CASE("groups across heads wider than the group are those within a head", "[grouping]") {
  auto const rows = growing_rows(3, 32, 96, 6);
  section_probe<composed<affine<3>, across<32>>> a({}, side::value, {96, 32}, 3);
  section_probe<composed<affine<3>, per_token<32>>> b({}, side::value, {96, 32}, 3);
  a.encode(rows, 32, 0, 32, 0);
  b.encode(rows, 32, 0, 32, 0);
  CHECK(a.sections == b.sections);
}

TEST_CASE("one token alone gives the bytes it has among others", "[grouping]") {
  using scheme_type = composed<nf4<>, across<256>>;
  auto const rows = growing_rows(4, 20, 128, 7);
  section_probe<scheme_type> all({}, side::key, {128, 32}, 4), alone({}, side::key, {128, 32}, 4);
  all.encode(rows, 20, 0, 20, 0);
  alone.encode(rows, 20, 13, 1, 13);
  for (int head = 0; head < 4; ++head)
    CHECK(all.decoded_row(head, 13) == alone.decoded_row(head, 13));
}

TEST_CASE("groupings say which shapes they fit", "[grouping]") {
  CHECK(per_channel<32>::fits(7, 32));
  CHECK(!per_channel<64>::fits(128, 32));
  CHECK(!per_channel<128>::fits(128, 64));
  CHECK(per_token<48>::fits(100, 32));
  CHECK(across<256>::fits(64, 32));
  CHECK(across<256>::fits(256, 32));
  CHECK(across<256>::fits(300, 32));
  CHECK(!across<256>::fits(96, 32));
  CHECK(!across<256>::fits(80, 32));
  CHECK(per_row::fits(13, 64));
  CHECK(across<256>::head_span(64) == 4);
  CHECK(across<256>::head_span(256) == 1);
  CHECK(across<256>::head_span(512) == 1);
  CHECK(per_token<256>::head_span(64) == 1);
  CHECK(per_token<256>::group_length(64) == 64);
  CHECK(per_row::group_length(96) == 96);
  CHECK(per_channel<32>::append_tokens == 32);
  CHECK(per_token<32>::append_tokens == 1);
  CHECK(per_row::append_tokens == 1);
  STATIC_REQUIRE(grouping<per_channel<8>>);
  STATIC_REQUIRE(grouping<per_token<5>>);
  STATIC_REQUIRE(grouping<across<128>>);
  STATIC_REQUIRE(grouping<per_row>);
}
