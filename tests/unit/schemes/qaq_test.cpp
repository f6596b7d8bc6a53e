// SPDX-License-Identifier: Apache-2.0
//! @file QAQ: the criterion, the mean-centred codec, a cache whose tokens have their own widths.
#include "kvcrumb/schemes/qaq.hpp"

#include <limits>

#include "kvcrumb/outlier/importance.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using codes_scheme = kv_scheme<mean_codes, mean_codes>;

codes_scheme codes(int bits, int outliers) {
  return {.name = "codes", .flush = {0, 1}, .key = {bits, outliers}, .value = {bits, outliers}};
}

//! Encodes one row into slot 3 of a section of 32 slots and decodes it.
std::vector<float> round_trip(mean_codes const& s, std::vector<float> row) {
  tile_shape const shape{static_cast<int>(row.size()), 32};
  std::vector<std::byte> section(test::size(s.section_bytes(side::key, shape)), std::byte{0xA5});
  auto const before = section;
  std::byte* at = section.data();
  null_tracer t;
  s.encode(side::key, shape, {row.data(), nullptr, &at, 1, 1, 3, 0}, t);
  std::size_t const slot = test::size(s.slot_bytes(shape.head_dim));
  CHECK(std::equal(section.begin(), section.begin() + static_cast<std::ptrdiff_t>(3 * slot), before.begin()));
  CHECK(std::equal(section.begin() + static_cast<std::ptrdiff_t>(4 * slot), section.end(),
                   before.begin() + static_cast<std::ptrdiff_t>(4 * slot)));
  s.decode_row(side::key, shape, 0, section.data(), 3, row.data());
  return row;
}

qaq_cache<> made(qaq_options const& options, test::layer_rows const& rows) {
  qaq_cache<> cache;
  REQUIRE(qaq_cache<>::create(options, {rows.heads, {rows.dim, 32}}, cache) == status::ok);
  return cache;
}

void fill(qaq_cache<>& cache, test::layer_rows const& rows, std::int64_t begin, std::int64_t end) {
  REQUIRE(cache.append(rows.key_rows(begin), rows.value_rows(begin), end - begin) == status::ok);
}

//! Attention of a size that differs from token to token.
std::vector<float> some_attention(unsigned seed, int heads, std::int64_t tokens) {
  std::mt19937_64 engine{seed};
  std::vector<float> a(test::size(heads * tokens));
  for (float& x : a)
    x = std::ldexp(1.0f, -static_cast<int>(engine() % 10));
  return a;
}

//! Token t of every head is scaled by 2^((5 t) mod 6 - 3).
test::layer_rows uneven_layer(unsigned seed, int heads, std::int64_t tokens, int dim) {
  test::layer_rows rows = test::random_layer(seed, heads, tokens, dim);
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (int d = 0; d < dim; ++d) {
        std::size_t const i = test::size(rows.at(h, t) + d);
        rows.keys[i] = std::ldexp(rows.keys[i], static_cast<int>(5 * t % 6) - 3);
        rows.values[i] = std::ldexp(rows.values[i], static_cast<int>(5 * t % 6) - 3);
      }
    }
  }
  return rows;
}

struct measured {
  double bits = 0.0;       //!< mean code bits of keys and values
  double key_error = 0.0;  //!< mean square
  double value_error = 0.0;
};
measured measure(qaq_cache<> const& cache, test::layer_rows const& rows) {
  measured m;
  std::vector<float> k(test::size(rows.dim)), v(k.size());
  std::int64_t n = 0;
  for (int h = 0; h < rows.heads; ++h) {
    for (std::int64_t t = 0; t < rows.tokens; ++t, ++n) {
      qaq_width w;
      REQUIRE(cache.read(h, t, k.data(), v.data(), &w) == status::ok);
      m.bits += 0.5 * (w.key + w.value);
      for (int d = 0; d < rows.dim; ++d) {
        m.key_error += std::pow(static_cast<double>(k[test::size(d)] - rows.key(h, t)[d]), 2) / rows.dim;
        m.value_error += std::pow(static_cast<double>(v[test::size(d)] - rows.value(h, t)[d]), 2) / rows.dim;
      }
    }
  }
  double const all = static_cast<double>(n);
  return {m.bits / all, m.key_error / all, m.value_error / all};
}

void check_qaq_attention(qaq_cache<> const& cache, int ratio, int queries, attention_options const& options) {
  int const heads = cache.config().kv_heads * ratio, dim = cache.config().shape.head_dim;
  auto const q = test::random_queries(8, heads, queries, dim);
  std::size_t const rows = test::size(heads * queries), values = q.size();
  std::vector<float> o(values + 1, 7.0f), lse(rows + 1, 7.0f);
  std::vector<float> work(test::size(cache.workspace(heads, queries)) + 1, std::nanf(""));
  work.back() = 7.0f;
  REQUIRE(cache.attend(hnd_rows(q.data(), queries, dim), heads, queries, hnd_rows(o.data(), queries, dim),
                       lse.data(), options, std::span<float>{work.data(), work.size() - 1}) == status::ok);
  CHECK((o.back() == 7.0f && lse.back() == 7.0f && work.back() == 7.0f));
  auto const seen = test::decode_all(cache);
  auto const expected =
      test::expected_attention(seen, cache.config().kv_heads, dim, q, heads, queries, options);
  // each of the up to 17 parts rounds once more when it is merged
  auto const bound = test::bound_of(seen, dim, q, options.softmax_scale, 4.0);
  double worst = 0.0, worst_lse = 0.0;
  for (std::size_t i = 0; i < values; ++i) {
    double const e = std::fabs(static_cast<double>(o[i]) - expected.output[i]);
    worst = e <= worst ? worst : e;
  }
  for (std::size_t i = 0; i < rows; ++i) {
    REQUIRE(std::isinf(lse[i]) == std::isinf(expected.log_sum_exp[i]));
    if (std::isinf(lse[i])) continue;
    double const e = std::fabs(static_cast<double>(lse[i]) - expected.log_sum_exp[i]);
    worst_lse = e <= worst_lse ? worst_lse : e;
  }
  CAPTURE(ratio, queries, options.window);
  CHECK(worst <= bound.output);
  CHECK(worst_lse <= bound.lse);
}

}  // namespace

TEST_CASE("the criterion gives the numbers of an independent computation", "[schemes][qaq]") {
  // tests/literature/qaq_test.py; range, n, target, |q| or largest attention, error, bits
  // clang-format off
  std::vector<double> const criterion{8.0, 1024.0, 1.0, 300.0, 0.7446857485836363, 3.0, 8.0, 1024.0, 0.001, 300.0, 0.16942787734457657, 5.0, 20.0, 64.0, 0.001, 300.0, 0.012887796997867221, 8.0, 20.0, 64.0, 0.0001, 300.0, 0.0012901053143294084, 8.0, 2.5, 4096.0, 0.0003, 90000.0, 0.011077963146566441, 7.0, 100.0, 2.0, 0.01, 1.0, 0.09796000228037426, 8.0, 3.0, 1024.0, 0.1, 0.5, 0.021650635094610966, 7.0, 3.0, 1024.0, 0.1, 0.01, 1.0825317547305482, 2.0, 12.0, 100.0, 0.05, 1.0, 0.017320508075688773, 8.0, 12.0, 100.0, 0.0125, 1.0, 0.004330127018922193, 8.0, 0.5, 16.0, 1.0, 0.25, 3.4641016151377544, 1.0, 40.0, 32768.0, 0.3, 0.9, 0.006378879538497859, 8.0};
  // clang-format on
  for (std::size_t i = 0; i < criterion.size(); i += 6) {
    double const* c = criterion.data() + i;
    std::int64_t const n = static_cast<std::int64_t>(c[1]);
    double const error = i < 36 ? qaq_key_error(c[3], n, c[2]) : qaq_value_error(c[3], n, c[2]);
    CAPTURE(i / 6);
    CHECK(std::fabs(error / c[4] - 1.0) < 1e-12);
    CHECK(qaq_bits(c[0], error, 1, 8) == static_cast<int>(c[5]));
  }
}

TEST_CASE("edges of the criterion", "[schemes][qaq]") {
  CHECK(qaq_bits(6.0, 1.0, 1, 8) == 2);  // 6 / 2 + 1 = 4 cells exactly
  CHECK(qaq_bits(6.001, 1.0, 1, 8) == 3);
  CHECK(qaq_bits(0.0, 1.0, 1, 8) == 1);
  CHECK(qaq_bits(0.0, 1.0, 3, 8) == 3);
  CHECK(qaq_bits(1e30, 1e-30, 1, 8) == 8);
  CHECK(qaq_bits(5.0, qaq_value_error(0.0, 10, 1.0), 2, 8) == 2);  // a token that nobody looks at
  CHECK(qaq_bits(5.0, qaq_key_error(300.0, 1, 1.0), 2, 8) == 2);
  qaq_options const options{.least = 2, .most = 8, .widths = 1u << 2 | 1u << 4 | 1u << 8};
  CHECK(options.bits(0.0, 1.0) == 2);
  CHECK(options.bits(10.0, 1.0) == 4);   // 3 wanted
  CHECK(options.bits(100.0, 1.0) == 8);  // 6 wanted
  qaq_options const few{.least = 2, .most = 8, .widths = 1u << 3};
  CHECK(few.bits(1000.0, 1.0) == 3);  // the largest there is
}

TEST_CASE("the codec decodes to the numbers of an independent computation", "[schemes][qaq]") {
  std::vector<float> row;
  for (int d = 0; d < 32; ++d)
    row.push_back(static_cast<float>((d * 37 + 11) % 64 - 20) / 16.0f);
  row[5] = 9.0f;
  row[17] = -7.5f;
  // clang-format off
  std::vector<double> const codec2{0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 4.8984375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, -7.4765625, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375, 0.7734375};
  std::vector<double> const codec3{-0.58447265625, 1.68115234375, -0.13134765625, 2.13427734375, 0.77490234375, 9.0, 1.22802734375, -0.58447265625, 2.13427734375, 0.32177734375, 2.13427734375, 0.77490234375, -1.03759765625, 1.68115234375, -0.13134765625, 2.13427734375, 0.32177734375, -7.5, 1.22802734375, -0.58447265625, 1.68115234375, -0.13134765625, 2.13427734375, 0.77490234375, -1.03759765625, 1.22802734375, -0.58447265625, 1.68115234375, 0.32177734375, 2.13427734375, 0.77490234375, -1.03759765625};
  std::vector<double> const codec4{-0.48876953125, 1.83154296875, 0.14404296875, 2.25341796875, 0.77685546875, 9.0, 1.40966796875, -0.27783203125, 2.04248046875, 0.35498046875, 2.5625, 0.77685546875, -0.91064453125, 1.40966796875, -0.27783203125, 2.04248046875, 0.35498046875, -7.5, 0.98779296875, -0.69970703125, 1.62060546875, -0.06689453125, 2.25341796875, 0.56591796875, -1.0625, 1.19873046875, -0.48876953125, 1.83154296875, 0.14404296875, 2.25341796875, 0.77685546875, -0.91064453125};
  // clang-format on
  auto const check = [&](int bits, int outliers, std::vector<double> const& expected) {
    std::vector<float> const got = round_trip({bits, outliers}, row);
    CHECK(std::vector<double>(got.begin(), got.end()) == expected);
  };
  check(2, 0, codec2);
  check(3, 1, codec3);
  check(4, 2, codec4);
}

TEST_CASE("laws of the codec", "[schemes][qaq]") {
  int const bits = GENERATE(1, 2, 3, 5, 8), outliers = GENERATE(0, 1, 5);
  mean_codes const s{bits, outliers};
  auto const rows = test::random_layer(3, 1, 40, 80, 4);
  CHECK(s.slot_bytes(80) == 4 + 6 * outliers + 10 * bits);
  CHECK(s.section_bytes(side::key, {80, 32}) == 32 * s.slot_bytes(80));
  for (int t = 0; t < 40; ++t) {
    std::vector<float> const x(rows.key(0, t), rows.key(0, t) + 80);
    std::vector<float> const y = round_trip(s, x);
    std::vector<float> sorted = x;
    std::sort(sorted.begin(), sorted.end());
    float const low = sorted[test::size(outliers)], high = sorted[test::size(79 - outliers)];
    double mean = 0.0;
    for (int i = outliers; i < 80 - outliers; ++i)
      mean += static_cast<double>(sorted[test::size(i)]) / (80 - 2 * outliers);
    double const scale = static_cast<double>(high - low) / (1 << bits), slack = scale / 256 + 0.01;
    CHECK(s.range_of(x.data(), 80) == high - low);
    int exact = 0;
    for (std::size_t d = 0; d < 80; ++d) {
      exact += x[d] == y[d] ? 1 : 0;
      double const at = (static_cast<double>(x[d]) - mean) / scale, half = std::ldexp(1.0, bits - 1);
      double const beyond = std::max({0.0, -half - at, at - (half - 1.0)});
      if (x[d] < low || x[d] > high) {
        CHECK(x[d] == y[d]);
      } else {
        CHECK(std::fabs(static_cast<double>(x[d] - y[d])) <= std::max(0.5, beyond) * scale + slack);
      }
    }
    CHECK(exact >= 2 * outliers);
  }
}

TEST_CASE("edges of the codec", "[schemes][qaq]") {
  int const outliers = GENERATE(0, 2);
  mean_codes const s{3, outliers};
  std::vector<float> const zero(64, 0.0f), constant(64, 1.5f), tiny(64, 1e-41f);
  CHECK(round_trip(s, zero) == zero);
  CHECK(round_trip(s, constant) == constant);
  for (float const x : round_trip(s, tiny))
    CHECK(x == 0.0f);
  for (float const bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    std::vector<float> row(64, 1.0f);
    row[63] = bad;
    for (float const x : round_trip(s, row))
      CHECK(std::isnan(x));
  }
  std::vector<float> huge(64, 1e5f);
  huge[0] = -1e5f;
  for (float const x : round_trip(s, huge))
    CHECK(std::isfinite(x));
  // the scale is rounded up, so that a range below its resolution is not lost: here to 2^-24
  std::vector<float> narrow(64, 0.0f);
  for (std::size_t d = 0; d < 64; d += 2)
    narrow[d] = 1e-6f;
  std::vector<float> const close = round_trip({8, 0}, narrow);
  for (std::size_t d = 0; d < 64; ++d)
    CHECK(std::fabs(close[d] - narrow[d]) < 6e-8f);
  // isolated tokens leave an empty slot, cleared ones too
  tile_shape const shape{64, 32};
  std::vector<std::byte> section(test::size(s.section_bytes(side::key, shape)), std::byte{0xFF});
  std::byte* at = section.data();
  std::uint8_t const isolated[2] = {1, 0};
  std::vector<float> two(128, 2.0f), row(64);
  null_tracer t;
  s.encode(side::key, shape, {two.data(), isolated, &at, 1, 2, 0, 0}, t);
  s.decode_row(side::key, shape, 0, section.data(), 0, row.data());
  CHECK(row == zero);
  s.decode_row(side::key, shape, 0, section.data(), 1, row.data());
  CHECK(row == std::vector<float>(64, 2.0f));
  s.clear(side::key, shape, 1, 1, section.data());
  s.decode_row(side::key, shape, 0, section.data(), 1, row.data());
  CHECK(row == zero);
  CHECK(mean_codes{9, 0}.supports(side::key, shape, 1) == status::bad_bits);
  CHECK(mean_codes{0, 0}.supports(side::key, shape, 1) == status::bad_bits);
  CHECK(mean_codes{4, 32}.supports(side::key, shape, 1) == status::out_of_range);
  CHECK(mean_codes{4, 0}.supports(side::key, {257, 32}, 1) == status::bad_head_dim);
  CHECK(mean_codes{4, 0}.supports(side::key, {64, 33}, 1) == status::bad_tile_tokens);
}

TEST_CASE("the codec in a cache: attention, tile hooks, files", "[schemes][qaq][attention]") {
  auto const rows = test::random_layer(5, 2, 70, 80, 3, 4);
  codes_scheme const scheme = codes(3, 1);
  auto cache = test::filled(scheme, rows, 32);
  auto const q = test::random_queries(3, 4, 3, 80);
  test::check_attention_of(cache, q, 4, 3);
  test::check_attention_of(cache, q, 4, 3, {.window = 20});
  auto chunked = test::made(scheme, 2, {80, 32});
  test::append(chunked, rows, 0, 33);
  test::append(chunked, rows, 33, 70);
  auto const file = test::saved(cache);
  CHECK(test::saved(chunked) == file);
  kv_cache<codes_scheme> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  CHECK(restore(std::span<std::byte const>{file}, codes(4, 1), other) == status::scheme_mismatch);
  CHECK(restore(std::span<std::byte const>{file}, codes(3, 0), other) == status::scheme_mismatch);
  // score and accumulate of slots against those of the tile
  tile_shape const shape{80, 32};
  auto const view = cache.view();
  std::vector<float> work(test::size(scheme.key.tile_floats(side::key, shape))), scores(32), o(80),
      slotwise(80);
  scheme.key.load_tile(side::key, shape, view.keys.section(1, 1), work.data());
  scheme.key.score_tile(shape, work.data(), q.data(), scores.data());
  for (int t = 0; t < 32; ++t)
    CHECK(scores[test::size(t)] == scheme.key.score(shape, q.data(), view.keys.section(1, 1), t));
  scheme.value.load_tile(side::value, shape, view.values.section(1, 1), work.data());
  scheme.value.accumulate_tile(shape, work.data(), scores.data(), o.data());
  for (int t = 0; t < 32; ++t)
    scheme.value.accumulate(shape, scores[test::size(t)], view.values.section(1, 1), t, slotwise.data());
  CHECK(o == slotwise);
  REQUIRE(cache.truncate(37) == status::ok);
  auto shorter = test::made(scheme, 2, {80, 32});
  test::append(shorter, rows, 0, 37);
  CHECK(test::saved(cache) == test::saved(shorter));
}

TEST_CASE("attention over tokens of all widths equals the reference", "[schemes][qaq][attention]") {
  auto const rows = uneven_layer(7, 2, 130, 64);
  auto cache = made({.key_error = 0.002, .value_error = 0.02, .recent = 5, .outliers = 1}, rows);
  fill(cache, rows, 0, 130);
  check_qaq_attention(cache, 2, 3, {});  // nothing encoded yet
  REQUIRE(cache.compress(some_attention(3, 2, 130)) == status::ok);
  CHECK(cache.tail_tokens() == 5);
  CHECK(cache.classes(0).size() >= 8);
  float const sinks[6] = {0.5f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f};
  for (std::int64_t const window : {0, 40, 3}) {
    check_qaq_attention(cache, 3, 1, {.window = window, .sink_logits = sinks});
    check_qaq_attention(cache, 2, 4, {.window = window});
  }
  check_qaq_attention(cache, 1, 2, {.softmax_scale = 0.2f, .soft_cap = 3.0f, .first_query = 60});
  check_qaq_attention(cache, 1, 2, {.causal = false});
  // a tracer sees every head and every position in sight
  auto const q = test::random_queries(2, 4, 2, 64);
  std::vector<float> logits(4 * 2 * 130, negative_infinity), o(q.size());
  std::vector<float> work(test::size(cache.workspace(4, 2)));
  REQUIRE(cache.attend(hnd_rows(q.data(), 2, 64), 4, 2, hnd_rows(o.data(), 2, 64), nullptr, {},
                       std::span<float>{work}, logit_recorder{logits.data(), 2, 130}) == status::ok);
  auto const seen = test::decode_all(cache);
  double worst = 0.0;
  for (int row = 0; row < 8; ++row) {
    for (int t = 0; t < 130; ++t) {
      float const got = logits[test::size(row * 130 + t)];
      REQUIRE(std::isinf(got) == (t > 128 + row % 2));
      if (std::isinf(got)) continue;
      double dot = 0.0;
      for (int d = 0; d < 64; ++d)
        dot += static_cast<double>(q[test::size(row * 64 + d)]) *
               seen.keys[test::size((row / 4 * 130 + t) * 64 + d)];
      worst = std::max(worst, std::fabs(static_cast<double>(got) - dot / 8.0));
    }
  }
  CHECK(worst < 1e-4);
}

TEST_CASE("every token keeps the width it was given", "[schemes][qaq]") {
  auto const rows = uneven_layer(9, 2, 100, 64);
  qaq_options const options{.key_error = 0.002, .value_error = 0.02, .recent = 6};
  auto cache = made(options, rows);
  fill(cache, rows, 0, 60);
  REQUIRE(cache.compress(some_attention(3, 2, 60)) == status::ok);
  std::vector<qaq_width> first(108);
  std::vector<float> k(64), v(64), k_after(64), v_after(64);
  for (int i = 0; i < 108; ++i)
    REQUIRE(cache.read(i / 54, i % 54, k.data(), v.data(), &first[test::size(i)]) == status::ok);
  REQUIRE(cache.read(1, 7, k.data(), v.data()) == status::ok);
  fill(cache, rows, 60, 100);
  REQUIRE(cache.compress(some_attention(4, 2, 100)) == status::ok);
  CHECK(cache.size() == 100);
  CHECK(cache.tail_tokens() == 6);
  for (int i = 0; i < 108; ++i) {
    qaq_width w;
    REQUIRE(cache.read(i / 54, i % 54, k_after.data(), v_after.data(), &w) == status::ok);
    CHECK(w == first[test::size(i)]);
  }
  REQUIRE(cache.read(1, 7, k_after.data(), v_after.data()) == status::ok);
  CHECK((test::same_bits(k, k_after) && test::same_bits(v, v_after)));
  // the widths are those of the criterion, with the length and the attention of their time
  auto const attention = some_attention(4, 2, 100);
  std::int64_t bytes = 6 * 2 * 2 * 64 * 2;
  for (int h = 0; h < 2; ++h) {
    std::int64_t held = 0;
    for (auto const& c : cache.classes(h)) {
      held += c.tokens.size();
      CHECK(c.tokens.size() == static_cast<std::int64_t>(c.positions.size()));
      bytes += c.tokens.bytes_used() + 8 * c.tokens.size();
      // 32 slots of both sides and their mask
      std::int64_t const blob =
          align_up(align_up(32 * (4 + 8 * c.width.key), 16) + 32 * (4 + 8 * c.width.value) + 4, 64);
      CHECK(c.tokens.bytes_used() == (c.tokens.size() + 31) / 32 * blob);
    }
    CHECK(held == 94);
    for (std::int64_t t = 54; t < 94; ++t) {
      qaq_width w;
      REQUIRE(cache.read(h, t, k.data(), v.data(), &w) == status::ok);
      auto const range = [](float const* x) {
        return static_cast<double>(*std::max_element(x, x + 64) - *std::min_element(x, x + 64));
      };
      double const a = static_cast<double>(attention[test::size(h * 100 + t)]);
      double const by_key = std::sqrt(12.0 / 300.0 * std::log(1e6 / 99.0 * 0.002 * 0.002 + 1.0)),
                   by_value = std::sqrt(12.0 / 100.0) * 0.02 / a;
      auto const width = [](double bits) { return bits <= 2 ? 2 : bits <= 3 ? 3 : bits <= 4 ? 4 : 8; };
      CHECK(w.key == width(std::ceil(std::log2(range(rows.key(h, t)) / (2 * by_key) + 1.0))));
      CHECK(w.value == width(std::ceil(std::log2(range(rows.value(h, t)) / (2 * by_value) + 1.0))));
    }
  }
  CHECK(cache.bytes_used() == bytes);
  CHECK(cache.bits_per_value() == 8.0 * static_cast<double>(bytes) / (2 * 100 * 2 * 64));
  auto moved = std::move(cache);
  CHECK(moved.size() == 100);
  CHECK(cache.size() == 0);
  CHECK(cache.bytes_used() == 0);
}

TEST_CASE("a smaller target gives more bits and less error", "[schemes][qaq][claim]") {
  auto const rows = uneven_layer(13, 2, 200, 64);
  measured last{};
  for (double const target : {10.0, 0.01, 0.003, 0.001, 0.0003, 0.0001}) {
    auto cache = made({.key_error = target, .value_error = 30 * target, .widths = 0x1FFu, .recent = 0}, rows);
    fill(cache, rows, 0, 200);
    REQUIRE(cache.compress(std::vector<float>(400, 0.1f)) == status::ok);
    measured const m = measure(cache, rows);
    CAPTURE(target, m.bits, last.bits);
    if (last.bits > 0.0) {
      CHECK(m.bits > last.bits);
      CHECK(m.key_error < last.key_error);
      CHECK(m.value_error <= last.value_error);
    } else {
      CHECK(m.bits < 2.5);
    }
    last = m;
  }
}

TEST_CASE("at equal mean bits own widths beat one width", "[schemes][qaq][claim]") {
  // token ranges differ by up to 32: a width for each spends bits where the steps are large
  auto const rows = uneven_layer(17, 2, 240, 64);
  auto const run = [&](qaq_options options) {
    options.recent = 0;
    auto cache = made(options, rows);
    fill(cache, rows, 0, 240);
    REQUIRE(cache.compress(std::vector<float>(480, 0.1f)) == status::ok);
    return measure(cache, rows);
  };
  measured const uniform = run({.least = 4, .most = 4});
  CHECK(uniform.bits == 4.0);
  measured own{};
  double target = 1.0;
  for (; own.bits < 3.9; target /= 1.02)
    own = run({.key_error = target * 0.02, .value_error = target, .least = 2, .most = 8, .widths = 0x1FCu});
  UNSCOPED_INFO("one width: " << uniform.bits << " bits, mean squares " << uniform.key_error << " "
                              << uniform.value_error);
  UNSCOPED_INFO("own widths: " << own.bits << " bits, mean squares " << own.key_error << " "
                               << own.value_error);
  CHECK(own.bits <= 4.0);
  CHECK(own.key_error < 0.6 * uniform.key_error);
  CHECK(own.value_error < 0.6 * uniform.value_error);
}

TEST_CASE("QAQ's cache refuses bad input", "[schemes][qaq]") {
  auto rows = test::random_layer(1, 2, 20, 64);
  qaq_cache<> cache;
  CHECK(cache.append(rows.key_rows(), rows.value_rows(), 1) == status::bad_shape);
  CHECK(cache.compress({}) == status::bad_shape);
  auto const created = [&](qaq_options const& options, cache_config const& config = {2, {64, 32}}) {
    return qaq_cache<>::create(options, config, cache);
  };
  CHECK(created({.least = 0}) == status::bad_bits);
  CHECK(created({.most = 9}) == status::bad_bits);
  CHECK(created({.widths = 1u << 1}) == status::bad_bits);
  CHECK(created({.key_error = 0.0}) == status::out_of_range);
  CHECK(created({.value_error = std::nan("")}) == status::out_of_range);
  CHECK(created({.query_norm = -1.0}) == status::out_of_range);
  CHECK(created({.recent = -1}) == status::out_of_range);
  CHECK(created({.outliers = 32}) == status::out_of_range);
  CHECK(created({}, {0, {64, 32}}) == status::bad_shape);
  CHECK(created({}, {2, {512, 32}}) == status::bad_head_dim);
  REQUIRE(created({.recent = 0}) == status::ok);
  fill(cache, rows, 0, 20);
  std::vector<float> attention(40, 0.5f);
  CHECK(cache.compress(std::span(attention).first(39)) == status::buffer_too_small);
  attention[39] = std::nanf("");
  CHECK(cache.compress(attention) == status::not_finite);
  attention[39] = -0.5f;
  CHECK(cache.compress(attention) == status::out_of_range);
  CHECK(cache.tail_tokens() == 20);
  rows.keys[5] = std::nanf("");
  CHECK(cache.append(rows.key_rows(), rows.value_rows(), 20) == status::not_finite);
  CHECK(cache.size() == 20);
  auto const q = test::random_queries(1, 2, 1, 64);
  std::vector<float> o(128), work(test::size(cache.workspace(2, 1)));
  auto const ask = [&](attention_options const& options, std::size_t floats) {
    return cache.attend(hnd_rows(q.data(), 1, 64), 2, 1, hnd_rows(o.data(), 1, 64), nullptr, options,
                        std::span<float>{work.data(), floats});
  };
  CHECK(ask({}, work.size() - 1) == status::buffer_too_small);
  CHECK(ask({.part = {.exact_rows = false}}, work.size()) == status::out_of_range);
  CHECK(ask({}, work.size()) == status::ok);
  float k[64], v[64];
  CHECK(cache.read(0, 20, k, v) == status::out_of_range);
  CHECK(cache.read(2, 0, k, v) == status::out_of_range);
  CHECK(cache.read(0, 0, nullptr, v) == status::null_pointer);
}
