// SPDX-License-Identifier: Apache-2.0
//! @file Kitty: which channels are boosted, where their bits lie, and what they are good for.
#include "kvcrumb/schemes/kitty.hpp"

#include <numeric>

#include "unit/schemes/tile_scheme_checks.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr tile_shape small{64, 64};
using keys_of_32 = schemes::kitty_type<32>::key_type;
constexpr auto published = schemes::kitty();
constexpr auto pro = schemes::kitty_pro();
constexpr auto of_32 = schemes::kitty<32>();
using pooled_type = kv_scheme<keys_of_32, schemes::kitty_type<32>::value_type, token_pool<l1_score>>;
constexpr pooled_type pooled{.flush = {16, 32}, .isolate = {.capacity = 3, .auxiliary = 8, .sinks = 2}};

//! Channels 6, 22, 38, 54 are 6 times as large as the others, channel 11 lies apart, channel 20 grows at
//! token 40.
double uneven(int h, int t, int d) {
  double const x =
      test::mixed(9, static_cast<unsigned>(h), static_cast<unsigned>(t), static_cast<unsigned>(d));
  if (d % 16 == 6) return 6.0 * x;
  if (d == 11) return x + 5.0;
  return d == 20 && t >= 40 ? 9.0 * x : x;
}

//! A rank without any sense, for comparison.
struct random_rank {
  [[maybe_unused]] static constexpr char const* name = "random";
  static float of(float const*, int, int dim) noexcept {
    return static_cast<float>(test::mixed(1, 2, 3, static_cast<unsigned>(dim)));
  }
};
template <int PerMille, class Rank = magnitude_rank>
using boosted_keys = channel_boost<2, 32, PerMille, kitty_convention, Rank>;

// From tests/literature/kitty_test.py.
// record-begin
constexpr double recorded_channels[] = {6, 8,  11, 16, 22, 38, 54, 60, 6, 11, 20, 22, 38, 39, 44, 54,
                                        6, 11, 21, 22, 34, 38, 54, 60, 6, 11, 20, 22, 26, 38, 48, 54};
constexpr double recorded_key_error = 0.185577439;
constexpr double recorded_value_error = 0.758303867;
constexpr double recorded_key_row[] = {-0.3203125,  -1.1796875,  -1.12207031, -2.47070312,
                                       -3.52734375, 0.85546875,  1.19335938,  1.30859375,
                                       -1.11523438, 0.244140625, 23.4433594,  3.8359375};
constexpr double recorded_value_row[] = {-3.84765625, -3.84765625, -3.84765625, -3.84765625,
                                         -3.84765625, 4.92578125,  -3.84765625, 4.92578125,
                                         -3.84765625, -3.84765625, 22.4726562,  4.92578125};
// record-end

}  // namespace

TEST_CASE("Kitty's bits are its formula", "[schemes][kitty]") {
  auto const check = [](auto const& scheme, int group, int per_mille) {
    for (int const width : {64, 96, 128, 256}) {
      tile_shape const shape{width, 128};
      REQUIRE(scheme.supports(shape, 3) == status::ok);
      // keys 2 + 2 B / D + 32 / G + 8 B / (D G), times G D; values 2 + 32 / min(G, D), times D
      int const boosted = width * per_mille / 1000, groups = 128 / group;
      CHECK(8 * scheme.key.section_bytes(side::key, shape) ==
            groups * (2 * group * width + 2 * group * boosted + 32 * width + 8 * boosted));
      CHECK(8 * scheme.value.section_bytes(side::value, shape) ==
            128 * (2 * width + 32 * ((width + group - 1) / group)));
    }
  };
  check(published, 128, 125);
  check(pro, 128, 250);
  check(of_32, 32, 125);
  CHECK(keys_of_32::boosted(128) == 16);
  CHECK(schemes::kitty_type<128, 250>::key_type::boosted(96) == 24);
  auto const cache = test::filled(published, test::random_layer(1, 2, 32 + 256, 128), 128);
  CHECK((cache.tail_tokens() == 0 && cache.sink_tokens() == 32));
  CHECK(cache.bytes_used() == 2 * 2 * cache.blob_stride() + 2 * 32 * 2 * 128 * 2);
}

TEST_CASE("attention, saving and chunking of Kitty", "[schemes][kitty]") {
  test::check_cache_laws(of_32, small, 200);
  test::check_hooks(of_32, small);
  test::check_tracing(of_32.key, side::key, small);
}

TEST_CASE("Kitty with isolated tokens", "[schemes][kitty]") {
  test::layer_rows const rows = test::random_layer(11, 2, 200, 64, 3, 4);
  auto const cache = test::filled(pooled, rows, 32);
  REQUIRE(cache.pool(0).size() == 3);
  test::check_attention_of(cache, test::random_queries(12, 4, 2, 64), 4, 2);

  auto keys = test::made_rows(2, 64, 64, uneven);
  std::vector<std::uint8_t> isolated(128, 0);
  isolated[5] = isolated[8] = isolated[64 + 40] = 1;
  auto const encode = [&] {
    test::section_probe probe(of_32.key, side::key, small, 2);
    probe.encode(keys, 64, 0, 64, 0, isolated);
    return probe.sections;
  };
  auto const before = encode();
  for (std::size_t d = 0; d < 64; ++d)
    keys[5 * 64 + d] = keys[8 * 64 + d] = keys[104 * 64 + d] = d == 1 ? std::nanf("") : 500.0f;
  CHECK(encode() == before);
}

TEST_CASE("low bits of all channels and high bits of the boosted ones lie in two planes",
          "[schemes][kitty]") {
  using keys_type = channel_boost<2, 32, 125, kitty_convention, magnitude_rank, linear>;
  keys_type const keys{};
  test::section_probe<keys_type> probe(keys, side::key, small, 1);
  auto const rows = test::made_rows(1, 64, 64, uneven);
  probe.encode(rows, 64, 0, 64, 0);
  std::byte const* section = probe.sections[0].data();
  // Published order: 4 tokens a byte, LSB first, channel by channel; then the parameters; then rows of high
  // bits.
  std::int64_t const low_bytes = 64 * 64 * 2 / 8, param_bytes = 2 * 2 * 64 * 2,
                     high = low_bytes + param_bytes;
  for (int group = 0; group < 2; ++group) {
    for (int place = 0; place < 8; ++place) {
      int const d = keys.boosted_channel(small, section, group, place);
      CHECK(std::to_integer<int>(section[high + 2 * 8 * 32 * 2 / 8 + group * 8 + place]) == d);
      CHECK((place == 0 || d > keys.boosted_channel(small, section, group, place - 1)));
      group_params const p =
          load_params<float16, linear>(keys_type::spec(side::key, small), section, d, group);
      for (int i = 0; i < 32; ++i) {
        int const t = group * 32 + i;
        unsigned const low_bits = std::to_integer<unsigned>(section[d * 16 + t / 4]) >> (t % 4 * 2) & 3u;
        unsigned const high_bits =
            std::to_integer<unsigned>(section[high + (group * 8 + place) * 8 + i / 4]) >> (i % 4 * 2) & 3u;
        float const x = rows[test::size(t * 64 + d)];
        CHECK(low_bits + 4 * high_bits == affine<4, float16, kitty_convention>{}.encode(x, p));
        CHECK(probe.decoded_row(0, t)[test::size(d)] ==
              p.value[0] * static_cast<float>(low_bits + 4 * high_bits) + p.value[1]);
      }
    }
  }
  test::section_probe<keys_of_32> fragments(of_32.key, side::key, small, 1);
  fragments.encode(rows, 64, 0, 64, 0);
  for (int t = 0; t < 64; ++t)
    CHECK(test::same_bits(fragments.decoded_row(0, t), probe.decoded_row(0, t)));
}

TEST_CASE("every group chooses its own channels; ties go to the lower one", "[schemes][kitty]") {
  test::section_probe<keys_of_32> probe(of_32.key, side::key, small, 1);
  auto const rows = test::made_rows(1, 64, 64, uneven);
  probe.encode(rows, 64, 0, 64, 0);
  auto const chosen = [&](int group) {
    std::vector<int> channels;
    for (int place = 0; place < 8; ++place)
      channels.push_back(of_32.key.boosted_channel(small, probe.sections[0].data(), group, place));
    return channels;
  };
  auto const has = [](std::vector<int> const& list, int d) {
    return std::find(list.begin(), list.end(), d) != list.end();
  };
  for (int const d : {6, 22, 38, 54, 11})
    CHECK((has(chosen(0), d) && has(chosen(1), d)));
  CHECK((!has(chosen(0), 20) && has(chosen(1), 20)));

  std::vector<float> equal(64 * 64, -1.5f);
  equal[3] = std::nanf("");  // channel 3 of the first group ranks below all
  probe.encode(equal, 64, 0, 64, 0);
  CHECK(chosen(0) == std::vector<int>{0, 1, 2, 4, 5, 6, 7, 8});
  CHECK(chosen(1) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(std::isnan(probe.decoded_row(0, 30)[3]));
  CHECK(!std::isnan(probe.decoded_row(0, 30)[4]));
}

TEST_CASE("zero, constant and refused shapes of Kitty", "[schemes][kitty]") {
  test::section_probe<keys_of_32> probe(of_32.key, side::key, small, 1);
  for (float const value : {0.0f, 2.5f, -1e-40f}) {
    probe.encode(std::vector<float>(64 * 64, value), 64, 0, 64, 0);
    for (float const x : probe.decoded_row(0, 17))
      CHECK(std::fabs(x - value) < 1e-6f);
  }
  CHECK(of_32.key.supports(side::value, small, 1) == status::bad_shape);
  CHECK(of_32.key.supports(side::key, {64, 48}, 1) == status::bad_tile_tokens);
  CHECK(published.key.supports(side::key, small, 1) == status::bad_group);
  CHECK((channel_boost<2, 32, 125, kitty_convention, magnitude_rank, linear>{}.supports(
             side::key, {257, 32}, 1) == status::bad_head_dim));
  // A damaged list does not lead outside of the row.
  for (std::size_t i = 0; i < 16; ++i)
    probe.sections[0][probe.sections[0].size() - 1 - i] = std::byte{0xFF};
  CHECK(probe.decoded_row(0, 1).size() == 64);
}

TEST_CASE("claim: boosting the channels of largest |k| beats boosting random ones and none",
          "[schemes][kitty]") {
  auto const rows = test::made_rows(2, 64, 64, uneven);
  auto const error = [&](auto const& keys) { return test::relative_error(keys, side::key, small, 2, rows); };
  double const none = error(boosted_keys<0>{}), chosen = error(boosted_keys<125>{}),
               more = error(boosted_keys<250>{});
  double const random = error(boosted_keys<125, random_rank>{});
  double const plain = error(composed<affine<2, float16, kitty_convention>, per_channel<32>>{});
  CHECK(none == plain);
  CHECK(chosen < 0.5 * plain);
  CHECK(chosen < 0.6 * random);
  CHECK(more < chosen);
}

TEST_CASE("Kitty's channels, codes and errors are those of an independent computation", "[schemes][kitty]") {
  auto const rows = test::made_rows(2, 64, 64, uneven);
  test::section_probe<keys_of_32> keys(of_32.key, side::key, small, 2);
  test::section_probe<schemes::kitty_type<>::value_type> values(published.value, side::value, small, 2);
  keys.encode(rows, 64, 0, 64, 0);
  values.encode(rows, 64, 0, 64, 0);
  for (int i = 0; i < 32; ++i) {
    int const head = i / 16, group = i / 8 % 2;
    CHECK(of_32.key.boosted_channel(small, keys.sections[test::size(head)].data(), group, i % 8) ==
          static_cast<int>(recorded_channels[i]));
  }
  auto const key = keys.decoded_row(1, 45), value = values.decoded_row(1, 45);
  for (std::size_t i = 0; i < 12; ++i) {
    CHECK(std::fabs(static_cast<double>(key[2 * i]) - recorded_key_row[i]) < 1e-5);
    CHECK(std::fabs(static_cast<double>(value[2 * i]) - recorded_value_row[i]) < 1e-5);
  }
  CHECK(std::fabs(test::relative_error(of_32.key, side::key, small, 2, rows) - recorded_key_error) < 1e-6);
  CHECK(std::fabs(test::relative_error(published.value, side::value, small, 2, rows) - recorded_value_error) <
        1e-6);
}

// What was measured: the promise holds where large channels are also wide ones. A large constant bias, as
// that of layer 0 of Qwen2.5, is taken up by the minimum of a channel and needs no bits, but it decides the
// rank.
TEST_CASE("recorded keys: |k| is a good rank unless it is a constant bias", "[schemes][kitty][real]") {
  auto const books = test::real_data("books16m_frankenstein_1024.safetensors");
  auto const qwen = test::real_data("qwen2.5-14b_layer0_220.safetensors");
  if (!books || !qwen)
    KVCRUMB_TEST_SKIP("skipped: no recorded data, books16m_frankenstein_1024 and qwen2.5-14b_layer0_220");
  struct errors {
    double none, chosen, random;
  };
  auto const measure = [](std::vector<float> const& all, int heads, std::ptrdiff_t tokens) {
    std::vector<float> rows;
    for (std::ptrdiff_t h = 0; h < heads; ++h)
      rows.insert(rows.end(), all.begin() + h * tokens * 128, all.begin() + (h * tokens + 128) * 128);
    auto const error = [&](auto const& keys) {
      return test::relative_error(keys, side::key, {128, 128}, heads, rows);
    };
    return errors{error(boosted_keys<0>{}), error(boosted_keys<125>{}),
                  error(boosted_keys<125, random_rank>{})};
  };
  for (int layer = 1; layer < 6; ++layer) {
    errors const e = measure(test::recorded_tensor(*books, "k", layer, 2 * 1024 * 128), 2, 1024);
    CAPTURE(layer, e.none, e.chosen, e.random);
    CHECK(e.chosen < 0.9 * e.none);
    CHECK(e.chosen < 0.97 * e.random);
  }
  errors const biased = measure(test::recorded_tensor(*qwen, "k", 0, 8 * 220 * 128), 8, 220);
  CAPTURE(biased.none, biased.chosen, biased.random);
  CHECK(biased.chosen < biased.none);
  CHECK(biased.chosen > biased.random);
}
