// SPDX-License-Identifier: Apache-2.0
//! @file KVarN: factors of tokens and channels, where they are kept, and what they are good for.
#include "kvcrumb/schemes/kvarn.hpp"

#include "unit/schemes/tile_scheme_checks.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr tile_shape small{64, 32};
using small_type = schemes::kvarn_type<4, 2, 32>;
constexpr auto published = schemes::kvarn();
constexpr auto two_bits = schemes::kvarn<2, 2>();
constexpr auto of_32 = schemes::kvarn<4, 2, 32>();
using pooled_type = kv_scheme<small_type::key_type, small_type::value_type, token_pool<l1_score>>;
constexpr pooled_type pooled{.flush = {16, 32}, .isolate = {.capacity = 3, .auxiliary = 8, .sinks = 2}};

//! Channels 3, 19, ... are 10 times and tokens 5, 21, ... 8 times as large as the others.
double uneven(int h, int t, int d) {
  double const x =
      test::mixed(3, static_cast<unsigned>(h), static_cast<unsigned>(t), static_cast<unsigned>(d));
  return x * (d % 16 == 3 ? 10.0 : 1.0) * (t % 16 == 5 ? 8.0 : 1.0);
}

// From tests/literature/kvarn_test.py.
// record-begin
constexpr double recorded_token_factors[] = {1.53888759, 1.99536648, 1.64531261, 1.97959247,
                                             2.06284849, 14.8371319, 1.85434377, 1.75545504};
constexpr double recorded_channel_factors[] = {1.70650169, 1.99908315, 2.17312638, 23.0271966,
                                               2.02755636, 2.41130986, 1.93955845, 2.29376233};
constexpr double recorded_key_error = 0.0639925479;
constexpr double recorded_value_error = 0.488844917;
constexpr double recorded_key_row[] = {-14.255693,  9.49177566, 9.55575308, -8.25861871,
                                       -8.13311651, 11.8989652, 10.8602976, -12.1521092};
constexpr double recorded_value_row[] = {-15.9387739, 10.6174593, 11.8656437, -10.4254985,
                                         -9.30002928, 13.6364181, 12.3624778, -13.5838954};
// record-end

}  // namespace

TEST_CASE("KVarN's bits are its formula", "[schemes][kvarn]") {
  auto const check = [](auto const& scheme, int key_bits, int value_bits, int group) {
    for (int const width : {64, 128, 256}) {
      tile_shape const shape{width, 128};
      REQUIRE(scheme.supports(shape, 3) == status::ok);
      // keys b + 32 / G + 16 / D; values b + 16 / G + 32 / D; times G D
      int const groups = 128 / group;
      CHECK(8 * scheme.key.section_bytes(side::key, shape) ==
            groups * (key_bits * group * width + 32 * width + 16 * group));
      CHECK(8 * scheme.value.section_bytes(side::value, shape) ==
            groups * (value_bits * group * width + 16 * width + 32 * group));
    }
  };
  check(published, 4, 2, 128);
  check(two_bits, 2, 2, 128);
  check(of_32, 4, 2, 32);
  auto const cache = test::filled(schemes::kvarn(), test::random_layer(1, 1, 256, 64), 128);
  CHECK(cache.tail_tokens() == 0);
  CHECK(cache.bytes_used() == 2 * cache.blob_stride());
}

TEST_CASE("attention, saving and chunking of KVarN", "[schemes][kvarn]") {
  test::check_cache_laws(of_32, {64, 64}, 150);  // two groups a tile
  test::check_hooks(of_32, {64, 64});
  test::check_tracing(of_32.key, side::key, small);
  test::check_tracing(of_32.value, side::value, small);
}

TEST_CASE("KVarN with isolated tokens", "[schemes][kvarn]") {
  test::layer_rows const rows = test::random_layer(11, 2, 150, 64, 3, 4);
  auto const cache = test::filled(pooled, rows, 32);
  REQUIRE(cache.pool(0).size() == 3);
  test::check_attention_of(cache, test::random_queries(12, 4, 2, 64), 4, 2);

  auto keys = test::made_rows(1, 32, 64, uneven);
  std::vector<std::uint8_t> isolated(32, 0);
  isolated[5] = isolated[8] = 1;
  auto const encode = [&](auto const& scheme, side which) {
    test::section_probe probe(scheme, which, small, 1);
    probe.encode(keys, 32, 0, 32, 0, isolated);
    return probe.sections;
  };
  auto const before = encode(pooled.key, side::key), values_before = encode(pooled.value, side::value);
  CHECK(pooled.key.scale(small, before[0].data(), 5) == 0.0f);
  for (std::size_t d = 0; d < 64; ++d)
    keys[5 * 64 + d] = keys[8 * 64 + d] = d == 1 ? std::nanf("") : 500.0f;
  CHECK(encode(pooled.key, side::key) == before);
  CHECK(encode(pooled.value, side::value) == values_before);
}

TEST_CASE("factors even out both axes", "[schemes][kvarn]") {
  auto const rows = test::made_rows(1, 32, 64, uneven);
  for (bool const tokens_first : {true, false}) {
    balanced_scales const found(rows.data(), nullptr, 32, 64, tokens_first, 16);
    double loud = 0.0, quiet = 0.0, wide = 0.0, narrow = 0.0;
    for (int t = 0; t < 32; ++t)
      (t % 16 == 5 ? loud : quiet) += static_cast<double>(found.token[t]) / (t % 16 == 5 ? 2 : 30);
    for (int d = 0; d < 64; ++d)
      (d % 16 == 3 ? wide : narrow) += static_cast<double>(found.channel[d]) / (d % 16 == 3 ? 4 : 60);
    CHECK(std::fabs(loud / quiet - 8.0) < 1.5);
    CHECK(std::fabs(wide / narrow - 10.0) < 1.5);
  }
  balanced_scales const none(rows.data(), nullptr, 32, 64, true, 0);
  CHECK((none.token[5] == 1.0f && none.channel[3] == 1.0f));
}

TEST_CASE("factors of tiles that have nothing to even out", "[schemes][kvarn]") {
  std::vector<float> rows(32 * 64, 0.0f);
  auto const all_one = [&](std::uint8_t const* isolated) {
    balanced_scales const s(rows.data(), isolated, 32, 64, true, 16);
    for (int t = 0; t < 32; ++t) {
      if (isolated == nullptr || isolated[t] == 0) CHECK(s.token[t] == 1.0f);
    }
    CHECK(std::all_of(s.channel, s.channel + 64, [](float c) { return c == 1.0f; }));
  };
  std::vector<std::uint8_t> isolated(32, 1);
  all_one(isolated.data());  // no token
  isolated[3] = 0;
  all_one(isolated.data());  // one token
  rows[70] = std::nanf("");
  all_one(nullptr);
  // standard deviations far below exp(-0.3): nothing but a common factor, as published
  rows = test::made_rows(1, 32, 64, [](int h, int t, int d) { return 0.001 * uneven(h, t, d); });
  balanced_scales const s(rows.data(), nullptr, 32, 64, true, 16);
  CHECK(std::all_of(s.token, s.token + 32, [&](float x) { return x == s.token[0]; }));
  rows.assign(32 * 64, 3.0e38f);  // the sum of a row overflows
  balanced_scales const huge(rows.data(), nullptr, 32, 64, true, 16);
  CHECK(std::all_of(huge.token, huge.token + 32, [](float x) { return is_finite_bits(x) && x > 0.0f; }));
}

TEST_CASE("zero, constant and damaged tiles of KVarN", "[schemes][kvarn]") {
  auto const check = [](auto const& scheme, side which) {
    test::section_probe probe(scheme, which, small, 1);
    for (float const value : {0.0f, 2.5f, 1e-40f}) {
      probe.encode(std::vector<float>(32 * 64, value), 32, 0, 32, 0);
      for (float const x : probe.decoded_row(0, 17))
        CHECK(std::fabs(x - value) < 5e-3f);
    }
    auto rows = test::made_rows(1, 32, 64, uneven);
    rows[7 * 64 + 9] = std::nanf("");
    probe.encode(rows, 32, 0, 32, 0);
    CHECK(std::isnan(probe.decoded_row(0, 7)[9]));
    CHECK(scheme.supports(which == side::key ? side::value : side::key, small, 1) == status::bad_shape);
    CHECK(scheme.supports(which, {64, 48}, 1) == status::bad_tile_tokens);
    CHECK(scheme.supports(which, {63, 32}, 1) == status::bad_head_dim);
  };
  check(of_32.key, side::key);
  check(of_32.value, side::value);
  CHECK(schemes::kvarn().supports({64, 64}, 1) != status::ok);  // groups of 128 need tiles of 128
}

TEST_CASE("a group that was never written does not touch weighted sums", "[schemes][kvarn]") {
  small_type::value_type const values;
  tile_shape const shape{64, 64};
  test::section_probe probe(values, side::value, shape, 1);
  auto const rows = test::made_rows(1, 64, 64, uneven);
  probe.encode(rows, 64, 0, 32, 0);
  auto& section = probe.sections[0];
  for (std::size_t i = section.size() - 128; i < section.size(); ++i)
    section[i] = std::byte{0xFF};  // NaN factors of the second group
  std::vector<float> weights(64, 0.0f), work(test::size(values.tile_floats(side::value, shape))), o(64, 0.0f);
  weights[3] = 1.0f;
  values.load_tile(side::value, shape, section.data(), work.data());
  values.accumulate_tile(shape, work.data(), weights.data(), o.data());
  values.finish(0, 64, o.data(), 1.0f);
  auto const row = probe.decoded_row(0, 3);
  for (std::size_t d = 0; d < 64; ++d)
    CHECK(std::fabs(o[d] - row[d]) < 1e-4f);
}

TEST_CASE("claim: factors on both axes beat those of one where tokens and channels are uneven",
          "[schemes][kvarn]") {
  auto const rows = test::made_rows(1, 32, 64, uneven);
  auto const ordinary = [](int, int t) { return t % 16 != 5; };
  using codes = affine<2, float16, kvarn_convention>;
  double const keys =
      test::relative_error(variance_normalized_keys<2, 32, identity>{}, side::key, small, 1, rows, ordinary);
  double const keys_one_axis =
      test::relative_error(composed<codes, per_channel<32>>{}, side::key, small, 1, rows, ordinary);
  CHECK(keys < 0.4 * keys_one_axis);
  double const values =
      test::relative_error(variance_normalized_values<2, 32, identity>{}, side::value, small, 1, rows);
  double const values_one_axis =
      test::relative_error(composed<codes, per_row>{}, side::value, small, 1, rows);
  CHECK(values < 0.9 * values_one_axis);
  // the channels that are not outliers, which the factors are for: rows without the loud channels
  auto const quiet = [&](auto scheme) {
    test::section_probe probe(scheme, side::value, small, 1);
    probe.encode(rows, 32, 0, 32, 0);
    double error = 0.0, energy = 0.0;
    for (int t = 0; t < 32; ++t) {
      auto const row = probe.decoded_row(0, t);
      for (int d = 0; d < 64; ++d) {
        if (d % 16 == 3) continue;
        double const x = static_cast<double>(rows[test::size(t * 64 + d)]),
                     e = x - static_cast<double>(row[test::size(d)]);
        error += e * e;
        energy += x * x;
      }
    }
    return std::sqrt(error / energy);
  };
  CHECK(quiet(variance_normalized_values<2, 32, identity>{}) < 0.4 * quiet(composed<codes, per_row>{}));
}

TEST_CASE("KVarN's factors, codes and errors are those of an independent computation", "[schemes][kvarn]") {
  std::vector<float> rows;
  for (int t = 0; t < 32; ++t) {  // rotated rows are uneven; rotating needs doubles, as NumPy has
    double x[64];
    for (int d = 0; d < 64; ++d)
      x[d] = uneven(0, t, d);
    for (int h = 1; h < 64; h *= 2) {
      for (int i = 0; i < 64; ++i) {
        if ((i & h) != 0) continue;
        double const a = x[i], b = x[i + h];
        x[i] = a + b;
        x[i + h] = a - b;
      }
    }
    for (int d = 0; d < 64; ++d)
      rows.push_back(test::half(x[d] / 8.0));
  }
  test::section_probe keys(of_32.key, side::key, small, 1);
  test::section_probe values(of_32.value, side::value, small, 1);
  keys.encode(rows, 32, 0, 32, 0);
  values.encode(rows, 32, 0, 32, 0);
  auto const key = keys.decoded_row(0, 9), value = values.decoded_row(0, 9);
  for (std::size_t i = 0; i < 8; ++i) {
    int const n = static_cast<int>(i);
    CHECK(std::fabs(static_cast<double>(of_32.key.scale(small, keys.sections[0].data(), n)) /
                        recorded_token_factors[i] -
                    1.0) < 2e-3);
    CHECK(std::fabs(static_cast<double>(of_32.value.scale(small, values.sections[0].data(), 0, n)) /
                        recorded_channel_factors[i] -
                    1.0) < 2e-3);
    CHECK(std::fabs(static_cast<double>(key[i]) - recorded_key_row[i]) < 2e-2);
    CHECK(std::fabs(static_cast<double>(value[i]) - recorded_value_row[i]) < 2e-2);
  }
  CHECK(std::fabs(test::relative_error(of_32.key, side::key, small, 1, rows) / recorded_key_error - 1.0) <
        5e-3);
  CHECK(std::fabs(test::relative_error(of_32.value, side::value, small, 1, rows) / recorded_value_error -
                  1.0) < 5e-3);
}
