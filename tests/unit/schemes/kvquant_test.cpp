// SPDX-License-Identifier: Apache-2.0
//! @file KVQuant: keys rotated when they are read, calibrated levels, sparse values, and the claims of the
//! paper.
#include "kvcrumb/schemes/kvquant.hpp"

#include <complex>

#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;
using test::size;

namespace {

constexpr int heads = 2, dim = 64;
using rows_type = test::layer_rows;

//! Every channel has its own mean and deviation; one value in a hundred is six times as far from the mean.
rows_type bell_layer(unsigned seed, std::int64_t tokens, double means = 3.0, double far = 6.0) {
  rows_type r{heads, tokens, dim, {}, {}};
  std::mt19937_64 engine{seed};
  std::normal_distribution<double> normal;
  std::vector<double> mean(heads * dim), width(heads * dim);
  for (std::size_t c = 0; c < mean.size(); ++c) {
    mean[c] = means * normal(engine);
    width[c] = std::exp(0.5 * normal(engine));
  }
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (int d = 0; d < dim; ++d) {
        std::size_t const c = size(h * dim + d);
        double const reach = engine() % 100 == 0 ? far : 1.0;
        r.keys.push_back(test::half(mean[c] + reach * width[c] * normal(engine)));
        r.values.push_back(test::half((engine() % 100 == 0 ? far : 1.0) * normal(engine)));
      }
    }
  }
  return r;
}

template <int Bits, int Slots = 2>
kvquant_calibration<Bits> calibrated(rows_type const& rows, kvquant_settings const& settings = {}) {
  kvquant_calibration<Bits> c;
  REQUIRE(calibrate_kvquant<Bits, Slots>(rows.key_rows(), rows.value_rows(), rows.heads, rows.tokens,
                                         rows.dim, settings, c) == status::ok);
  return c;
}

//! The rotation by complex numbers in double: pair i becomes z e^(i angle).
std::vector<double> rotated(std::vector<double> x, rotary const& rope, std::int64_t position) {
  int const n = rope.dims == 0 ? static_cast<int>(x.size()) : rope.dims;
  for (int i = 0; i < n / 2; ++i) {
    double const angle = static_cast<double>(position) * static_cast<double>(rope.position_scale) /
                         std::pow(static_cast<double>(rope.theta), static_cast<double>(2 * i) / n);
    bool const split = rope.pairing == rope_pairing::half_split;
    double &a = x[size(split ? i : 2 * i)], &b = x[size(split ? i + n / 2 : 2 * i + 1)];
    std::complex<double> const z = std::complex<double>(a, b) * std::polar(1.0, angle);
    a = z.real();
    b = z.imag();
  }
  return x;
}

//! All keys rotated by the positions of their tokens, as fp16.
rows_type rotated(rows_type rows, rotary const& rope) {
  for (int h = 0; h < rows.heads; ++h) {
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      auto const row = rows.keys.begin() + rows.at(h, t);
      auto const turned = rotated(std::vector<double>(row, row + rows.dim), rope, t);
      std::transform(turned.begin(), turned.end(), row, test::half);
    }
  }
  return rows;
}

//! Relative L2 errors of what a key scheme and a value scheme decode, tokens one by one.
template <class Scheme>
double relative_error(Scheme const& scheme, side which, rows_type const& rows) {
  tile_shape const shape{rows.dim, 32};
  REQUIRE(scheme.supports(which, shape, rows.heads) == status::ok);
  std::vector<std::byte> section(size(scheme.section_bytes(which, shape)));
  std::byte* at = section.data();
  std::vector<float> in(size(rows.dim)), out(in.size());
  null_tracer nothing;
  double error = 0.0, energy = 0.0;
  for (int h = 0; h < rows.heads; ++h) {
    rows_type const one = rows.head(h);
    for (std::int64_t t = 0; t < rows.tokens; ++t) {
      float const* x = which == side::key ? rows.key(h, t) : rows.value(h, t);
      // all heads must be passed together: the others get the same row
      std::vector<float> all(size(rows.heads) * size(rows.dim));
      std::vector<std::vector<std::byte>> other(size(rows.heads), section);
      std::vector<std::byte*> sections;
      for (auto& s : other)
        sections.push_back(s.data());
      sections[size(h)] = at;
      for (int i = 0; i < rows.heads; ++i)
        std::copy(x, x + rows.dim, all.begin() + i * rows.dim);
      scheme.encode(which, shape, {all.data(), nullptr, sections.data(), rows.heads, 1, 5, t}, nothing);
      scheme.decode_row(which, shape, h, at, 5, out.data());
      for (int d = 0; d < rows.dim; ++d) {
        double const e = static_cast<double>(out[size(d)]) - static_cast<double>(x[d]);
        error += e * e;
        energy += static_cast<double>(x[d]) * static_cast<double>(x[d]);
      }
    }
  }
  return std::sqrt(error / energy);
}

//! Attention over a positional cache against the reference over keys that were rotated beforehand.
template <class Cache>
void check_positional(Cache const& cache, rotary const& rope, int query_heads, int queries,
                      attention_options const& options = {}) {
  int const width = cache.config().shape.head_dim;
  auto const q = test::random_queries(7, query_heads, queries, width);
  auto const got = test::run_attention(cache.view(), q, query_heads, queries, options);
  REQUIRE(got.outcome == status::ok);
  test::decoded_rows rows = test::decode_all(cache);
  for (std::size_t i = 0; i < rows.keys.size(); i += size(width)) {
    auto const token = static_cast<std::int64_t>(i) / width % cache.size();
    auto const begin = rows.keys.begin() + static_cast<std::ptrdiff_t>(i);
    auto const turned = rotated(std::vector<double>(begin, begin + width), rope, token);
    std::copy(turned.begin(), turned.end(), begin);
  }
  auto const expected =
      test::expected_attention(rows, cache.config().kv_heads, width, q, query_heads, queries, options);
  auto const bound =
      test::bound_of(rows, width, q, options.softmax_scale, 4.0);  // sine, cosine, two products
  double lse = 0.0, output = 0.0;
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]);
    lse = e <= lse ? lse : e;
  }
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    output = e <= output ? output : e;
  }
  CAPTURE(cache.size(), query_heads, queries);
  CHECK(lse <= bound.lse);
  CHECK(output <= bound.output);
}

}  // namespace

TEST_CASE("the rotation is a product with a complex number", "[schemes][kvquant]") {
  for (rotary const rope : {rotary{}, rotary{500000.0f, 0, rope_pairing::interleaved},
                            rotary{10000.0f, 48, rope_pairing::half_split, 0.25f},
                            rotary{1000.0f, 2, rope_pairing::interleaved}}) {
    REQUIRE(rope.supports(dim) == status::ok);
    std::vector<float> frequency(dim), row = test::random_queries(3, 1, 1, dim);
    rope.frequencies(dim, frequency.data());
    for (std::int64_t const position : {0, 1, 777, 131071, 10000000}) {
      std::vector<float> turned = row;
      rope.rotate(dim, frequency.data(), position, turned.data());
      auto const expected = rotated(std::vector<double>(row.begin(), row.end()), rope, position);
      double worst = 0.0;
      for (std::size_t i = 0; i < row.size(); ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(turned[i]) - expected[i]));
      CHECK(worst < 2e-6);
    }
  }
  CHECK(rotary{.dims = 66}.supports(64) == status::bad_head_dim);
  CHECK(rotary{.dims = 31}.supports(64) == status::bad_head_dim);
  CHECK(rotary{}.supports(63) == status::bad_head_dim);
  CHECK(rotary{.theta = 0.0f}.supports(64) == status::out_of_range);
  CHECK(rotary{.position_scale = INFINITY}.supports(64) == status::out_of_range);
}

TEST_CASE("recorded keys rotate to the recorded keys after RoPE", "[schemes][kvquant][literature]") {
  auto const path = test::real_data("books16m_frankenstein_1024.safetensors");
  if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data");
  auto const before = test::recorded_tensor(*path, "k_pre_rope"), after = test::recorded_tensor(*path, "k");
  REQUIRE(before.size() == 6u * 2u * 1024u * 128u);
  rotary const rope;  // rope_theta of the model's config.json: 10000; PyTorch's rotation, half split
  std::vector<float> frequency(128);
  rope.frequencies(128, frequency.data());
  // Both tensors are rounded to fp16: at most 2^-11 of the pair's length each.
  double worst = 0.0;
  for (std::size_t i = 0; i < before.size(); i += 128 * 7) {
    std::vector<float> row(before.begin() + static_cast<std::ptrdiff_t>(i),
                           before.begin() + static_cast<std::ptrdiff_t>(i + 128));
    rope.rotate(128, frequency.data(), static_cast<std::int64_t>(i / 128 % 1024), row.data());
    for (std::size_t d = 0; d < 128; ++d) {
      double const length = std::hypot(static_cast<double>(row[d]), static_cast<double>(row[(d + 64) % 128]));
      double const e = std::fabs(static_cast<double>(row[d]) - static_cast<double>(after[i + d]));
      worst = std::max(worst, (e - 1e-5) / length);
    }
  }
  CHECK(worst < std::ldexp(1.0, -10));
  CHECK(worst > 0.0);
}

TEST_CASE("channel_scale and its dual", "[schemes][kvquant][transform]") {
  rows_type const rows = bell_layer(1, 40);
  auto const c = calibrated<3>(rows);
  channel_scale const t{c.key_shift.data(), c.key_scale.data(), {}, heads * dim};
  for (int head = 0; head < heads; ++head) {
    std::vector<float> x(rows.key(head, 3), rows.key(head, 3) + dim), q = test::random_queries(5, 1, 1, dim);
    double exact = 0.0, transformed = 0.0;
    for (std::size_t d = 0; d < dim; ++d)
      exact += static_cast<double>(q[d]) * static_cast<double>(x[d]);
    auto y = x;
    t.forward(head, dim, y.data());
    double const offset = static_cast<double>(t.query(head, dim, q.data()));
    for (std::size_t d = 0; d < dim; ++d)
      transformed += static_cast<double>(q[d]) * static_cast<double>(y[d]);
    CHECK(std::fabs(exact - transformed - offset) < 1e-4);
    for (float& v : y)
      v *= 2.5f;
    t.inverse(head, dim, y.data(), 2.5f);
    for (std::size_t d = 0; d < dim; ++d)
      CHECK(std::fabs(y[d] - 2.5f * x[d]) < 1e-4f);
  }
  CHECK(t.fits(heads, dim));
  CHECK_FALSE(t.fits(heads + 1, dim));
  auto scale = c.key_scale;
  scale[70] = 0.0f;
  CHECK_FALSE(channel_scale{c.key_shift.data(), scale.data()}.fits(heads, dim));
  CHECK_FALSE(channel_scale{nullptr, scale.data()}.fits(heads, dim));
  scale[70] = 2.0f * c.key_scale[70];
  CHECK(channel_scale{c.key_shift.data(), scale.data()}.id(heads, dim) != t.id(heads, dim));
}

TEST_CASE("channel ranges are quantiles", "[schemes][kvquant][calibrate]") {
  std::vector<float> rows(101 * 2), shift(2), scale(2);
  for (int t = 0; t < 101; ++t) {  // 0 ... 100 in some order; a constant
    rows[size(2 * t)] = static_cast<float>(t * 37 % 101);
    rows[size(2 * t + 1)] = 8.0f;
  }
  rows_view<float const> const view = hnd_rows<float const>(rows.data(), 101, 2);
  REQUIRE(channel_ranges(view, 1, 101, 2, 0.9, shift, scale) == status::ok);
  CHECK(shift[0] == test::Approx(50.0));
  CHECK(scale[0] == test::Approx(45.0));  // 5 % of 100 on either side
  CHECK(shift[1] == 8.0f);
  CHECK(scale[1] == test::Approx(45.0 / 4096.0));
  CHECK(channel_ranges(view, 1, 0, 2, 0.9, shift, scale) == status::bad_shape);
  CHECK(channel_ranges(view, 1, 101, 2, 1.1, shift, scale) == status::out_of_range);
  rows[100] = INFINITY;
  CHECK(channel_ranges(view, 1, 101, 2, 0.9, shift, scale) == status::not_finite);
}

TEST_CASE("weighted k-means finds the levels of Max for a normal density", "[schemes][kvquant][literature]") {
  // J. Max 1960: levels and mean squared errors for N(0, 1); the density enters as weights of an even grid.
  std::vector<float> x, w;
  for (int i = -30000; i <= 30000; ++i) {
    x.push_back(static_cast<float>(i) / 5000.0f);
    w.push_back(std::exp(-0.5f * x.back() * x.back()));
  }
  auto const error = [&](std::span<float const> levels) {
    double sum = 0.0, mass = 0.0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      double best = 1e9;
      for (float const l : levels)
        best = std::min(best, std::pow(static_cast<double>(x[i]) - static_cast<double>(l), 2));
      sum += static_cast<double>(w[i]) * best;
      mass += static_cast<double>(w[i]);
    }
    return sum / mass;
  };
  std::vector<float> two(4), three(8), four(16);
  REQUIRE(fit_levels(x, w, two, 2000) == status::ok);
  REQUIRE(fit_levels(x, w, three, 2000) == status::ok);
  REQUIRE(fit_levels(x, w, four) == status::ok);
  double const max2[] = {0.4528, 1.510}, max3[] = {0.2451, 0.7560, 1.344, 2.152};
  for (std::size_t i = 0; i < 2; ++i)
    CHECK(std::fabs(two[2 + i] - static_cast<float>(max2[i])) < 0.002f);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(std::fabs(three[4 + i] - static_cast<float>(max3[i])) < 0.002f);
  CHECK(error(two) == test::Approx(0.1175).epsilon(0.002));
  CHECK(error(three) == test::Approx(0.03454).epsilon(0.002));
  CHECK(error(four) == test::Approx(0.009497).epsilon(0.05));  // 50 rounds
}

TEST_CASE("k-means in small: weights, ties, degenerate and bad input", "[schemes][kvquant][calibrate]") {
  std::vector<float> const x{5.0f, 0.0f, 1.0f, 10.0f};
  std::vector<float> levels(2);
  REQUIRE(fit_levels(x, {}, levels) == status::ok);
  CHECK(levels == std::vector<float>{0.5f, 7.5f});  // 0, 1 | 5, 10
  std::vector<float> const heavy{1.0f, 3.0f, 0.0f, 0.0f};
  REQUIRE(fit_levels(x, heavy, levels) == status::ok);
  CHECK(levels == std::vector<float>{0.0f, 5.0f});
  std::vector<float> const same(9, 3.0f);
  std::vector<float> eight(8);
  REQUIRE(fit_levels(same, {}, eight) == status::ok);
  CHECK(std::adjacent_find(eight.begin(), eight.end(), std::greater_equal<>{}) == eight.end());
  CHECK(fit_levels({}, {}, levels) == status::bad_shape);
  CHECK(fit_levels(x, std::vector<float>(3, 1.0f), levels) == status::bad_shape);
  CHECK(fit_levels(x, std::vector<float>(4, 0.0f), levels) == status::out_of_range);
  CHECK(fit_levels(std::vector<float>{1.0f, std::nanf("")}, {}, levels) == status::not_finite);
}

TEST_CASE("Q-Norm restores mean and standard deviation", "[schemes][kvquant][claim]") {
  std::mt19937_64 engine{4};
  std::normal_distribution<float> normal{0.2f, 0.4f};
  std::vector<float> x(5000);
  for (float& v : x)
    v = normal(engine);
  nuq_table<2> table;
  REQUIRE(fit_levels(x, {}, table.levels) == status::ok);
  std::copy(std::begin(table.levels), std::end(table.levels), table.decoded);
  auto const decoded = [&](std::size_t i) { return static_cast<double>(table.decoded[table.nearest(x[i])]); };
  auto const wanted = moments(x.size(), [&](std::size_t i) { return static_cast<double>(x[i]); });
  CHECK(moments(x.size(), decoded).deviation < 0.97 * wanted.deviation);  // k-means shrinks
  q_norm(std::span<float const>(x), table);
  CHECK(moments(x.size(), decoded).mean == test::Approx(wanted.mean).epsilon(1e-5));
  CHECK(moments(x.size(), decoded).deviation == test::Approx(wanted.deviation).epsilon(1e-5));
  CHECK(table.is_valid());
  // and in a calibration: decoded levels move, those that codes are chosen by do not
  rows_type const rows = bell_layer(9, 200);
  auto const plain = calibrated<2>(rows), normed = calibrated<2>(rows, {.normalise = true});
  CHECK(std::equal(std::begin(plain.keys.levels), std::end(plain.keys.levels), normed.keys.levels));
  CHECK(normed.keys.decoded[3] > plain.keys.decoded[3]);
  CHECK(normed.values.decoded[0] < plain.values.decoded[0]);
  auto const scheme = schemes::kvquant_as_given<2>(normed);
  CHECK(scheme.key.base.codec.unit(3) == normed.keys.decoded[3]);
}

TEST_CASE("bytes: the formula, the sections and what is reported", "[schemes][kvquant]") {
  rows_type const rows = bell_layer(1, 129);
  auto const c = calibrated<3>(rows);
  auto const scheme = schemes::kvquant(c);
  STATIC_REQUIRE(positional_key<decltype(scheme.key)>);
  STATIC_REQUIRE(decltype(scheme)::row_independent);
  for (tile_shape const shape : {tile_shape{64, 32}, tile_shape{128, 128}, tile_shape{256, 64}}) {
    std::int64_t const d = shape.head_dim, t = shape.tile_tokens;
    CHECK(scheme.key.section_bytes(side::key, shape) == t * (3 * d / 8 + 2 * 3));
    CHECK(scheme.value.section_bytes(side::value, shape) == t * (3 * d / 8 + 4 + 2 * 3));
  }
  CHECK(scheme.value.section_bytes(side::value, {512, 32}) == 32 * (3 * 512 / 8 + 4 + 2 * 4));
  double const sections = static_cast<double>(scheme.key.section_bytes(side::key, {128, 128}) +
                                              scheme.value.section_bytes(side::value, {128, 128}));
  CHECK(8.0 * sections / (2 * 128 * 128) == 3.0 + (16.0 + 24.0 * 2) / 128);
  auto const cache = test::filled(scheme, rows, 32);
  CHECK(cache.sink_tokens() == 1);
  CHECK(cache.tile_slots() == 128);
  std::int64_t const blob = 32 * (24 + 6) + 32 * (24 + 4 + 6) + 4;  // both sections are multiples of 16
  CHECK(cache.blob_parts().bytes == blob);
  CHECK(cache.bytes_used() == 4 * heads * align_up(blob, 64) + heads * 2 * dim * 2);
  description d;
  scheme.key.describe(d);
  CHECK(std::string(d.text) ==
        "rope_at_read sparse2(zero) channel_scale+identity | nuq3 per_row0 identity linear");
}

TEST_CASE("attention over keys before RoPE equals the reference over rotated keys", "[schemes][kvquant]") {
  std::int64_t const tokens = GENERATE(1, 2, 33, 100);
  rows_type const rows = bell_layer(2, tokens, 1.0);
  auto const c = calibrated<3>(bell_layer(2, 200, 1.0));
  rotary const rope = GENERATE(rotary{}, rotary{500.0f, 32, rope_pairing::interleaved, 0.5f});
  auto scheme = schemes::kvquant(c, rope);
  check_positional(test::filled(scheme, rows, 32), rope, 6, 1);
  scheme.flush = {5, 1};  // with a tail
  check_positional(test::filled(scheme, rows, 32), rope, 2, tokens > 2 ? 3 : 1, {.window = 40});
}

TEST_CASE("isolated tokens of a positional cache, and keys as given", "[schemes][kvquant]") {
  rows_type const rows = bell_layer(2, 70, 1.0);
  auto const c = calibrated<3>(rows);
  using positional = schemes::kvquant_type<3>;
  kv_scheme<positional::key_type, positional::value_type, external> listed;
  listed.key = schemes::kvquant(c).key;
  listed.value = schemes::kvquant(c).value;
  auto cache = test::made(listed, heads, {dim, 32});
  std::int64_t const exact[] = {3, 40};
  REQUIRE(cache.isolate(exact) == status::ok);
  test::append(cache, rows, 0, 70);
  REQUIRE(cache.pool(1).size() == 2);
  check_positional(cache, {}, 4, 2);

  auto const given = test::filled(schemes::kvquant_as_given(c), rows, 64);
  test::check_attention_of(given, test::random_queries(3, 4, 2, dim), 4, 2);
  // hooks and single slots agree
  tile_shape const shape{dim, 64};
  auto const& scheme = given.scheme();
  auto const view = given.view();
  std::vector<float> work(size(scheme.key.tile_floats(side::key, shape))), scores(64), prepared(dim + 1);
  auto const q = test::random_queries(3, 1, 1, dim);
  scheme.key.prepare_query(1, dim, q.data(), prepared.data());
  scheme.key.load_tile(side::key, shape, view.keys.section(1, 0), work.data());
  scheme.key.score_tile(shape, work.data(), prepared.data(), scores.data());
  std::vector<float> by_tile(dim, 0.0f), by_slot(dim, 0.0f);
  for (int t = 0; t < 64; ++t) {
    CHECK(scores[size(t)] == scheme.key.score(shape, prepared.data(), view.keys.section(1, 0), t));
    scheme.value.accumulate(shape, scores[size(t)], view.values.section(1, 0), t, by_slot.data());
  }
  scheme.value.load_tile(side::value, shape, view.values.section(1, 0), work.data());
  scheme.value.accumulate_tile(shape, work.data(), scores.data(), by_tile.data());
  CHECK(by_tile == by_slot);
}

TEST_CASE("saved, restored, chunked, truncated", "[schemes][kvquant][save]") {
  rows_type const rows = bell_layer(3, 90);
  auto const c = calibrated<3>(rows);
  auto const scheme = schemes::kvquant(c);
  auto cache = test::filled(scheme, rows, 32);
  auto const file = test::saved(cache);
  kv_cache<schemes::kvquant_type<3>> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  check_positional(other, {}, 2, 1);
  auto chunked = test::made(scheme, heads, {dim, 32});
  for (std::int64_t const end : {0, 1, 8, 40, 90})
    test::append(chunked, rows, chunked.size(), end);
  CHECK(test::saved(chunked) == file);
  auto const refused = [&](auto const& different) {
    kv_cache<schemes::kvquant_type<3>> target;
    return restore(std::span<std::byte const>{file}, different, target) == status::scheme_mismatch;
  };
  CHECK(refused(schemes::kvquant(c, {.theta = 500000.0f})));
  auto moved = c;
  moved.key_scale[5] *= 2.0f;
  CHECK(refused(schemes::kvquant(moved)));
  moved = c;
  moved.values.decoded[3] += 0.125f;
  CHECK(refused(schemes::kvquant(moved)));
  REQUIRE(cache.truncate(37) == status::ok);
  auto shorter = test::made(scheme, heads, {dim, 32});
  test::append(shorter, rows, 0, 37);
  CHECK(test::saved(cache) == test::saved(shorter));
  CHECK(scheme.supports({80, 32}, heads) == status::bad_shape);  // the calibration is for 64 channels
  CHECK(scheme.supports({2, 32}, heads) == status::ok);
  CHECK(scheme.key.supports(side::value, {dim, 32}, heads) == status::bad_shape);
  CHECK(schemes::kvquant_type<3>{}.supports({dim, 32}, heads) == status::out_of_range);  // no levels
}

TEST_CASE("sparse values are kept exactly, the farthest first", "[schemes][kvquant]") {
  rows_type const rows = bell_layer(3, 40);
  auto const c = calibrated<3>(rows);
  auto const values = schemes::kvquant(c).value;
  tile_shape const shape{dim, 32};
  std::vector<float> row(rows.value(0, 7), rows.value(0, 7) + dim);
  row[9] = 40.0f;
  row[60] = -35.5f;
  row[33] = 30.0f;  // the third one has no slot
  struct checker {
    std::vector<float> in, out;
    int rows = 0;
    void on_row(side, int, std::int64_t, float const*, int) { ++rows; }
    void on_element(element_coordinate, float x, float x_hat) { in.push_back(x), out.push_back(x_hat); }
  };
  auto const encoded = [&](std::vector<float> x, std::uint8_t isolated, checker& seen) {
    std::vector<std::byte> section(size(values.section_bytes(side::value, shape)), std::byte{0x5A});
    std::byte* at = section.data();
    values.encode(side::value, shape, {x.data(), &isolated, &at, 1, 1, 4, 0}, seen);
    return section;
  };
  auto const decoded = [&](std::vector<std::byte> const& section) {
    std::vector<float> x(dim);
    values.decode_row(side::value, shape, 0, section.data(), 4, x.data());
    return x;
  };
  checker seen;
  auto const section = encoded(row, 0, seen);
  auto const back = decoded(section);
  CHECK((back[9] == 40.0f && back[60] == -35.5f && back[33] != 30.0f));
  CHECK(seen.rows == 1);
  CHECK(seen.in == row);
  CHECK(seen.out == back);
  // the same row without slots: the two far values decide the range
  auto const& base = values.base;
  std::vector<std::byte> dense(size(base.section_bytes(side::value, shape)));
  std::byte* at = dense.data();
  auto copy = row;
  copy[9] = copy[60] = 0.0f;
  null_tracer nothing;
  base.encode(side::value, shape, {copy.data(), nullptr, &at, 1, 1, 4, 0}, nothing);
  auto const range = base.params(base.spec(side::value, shape), dense.data(), 4, 0).value[0];
  CHECK(base.params(base.spec(side::value, shape), section.data(), 4, 0).value[0] == range);
  // nothing but slot 4 was written; isolated tokens leave zeros there
  for (int t = 0; t < 32; ++t) {
    std::byte const* kept = section.data() + base.section_bytes(side::value, shape) + t * 6;
    CHECK(std::all_of(kept, kept + 6, [](std::byte b) { return b == std::byte{0x5A}; }) == (t != 4));
  }
  checker quiet;
  auto const isolated = encoded(row, 1, quiet);
  CHECK((quiet.rows == 1 && quiet.in.empty()));
  CHECK(isolated[size(base.section_bytes(side::value, shape)) + 4 * 6] == std::byte{0});

  // constant, zero, denormal
  for (float const x : {0.0f, -0.0f, 3.25f, -100.0f, 0x1p-140f}) {
    auto const same = decoded(encoded(std::vector<float>(dim, x), 0, quiet));
    for (float const y : same)
      CHECK(std::fabs(y - x) <= std::ldexp(1.0f, -24));
  }
  // a NaN or an infinity stays visible on both sides
  for (float const bad : {std::nanf(""), INFINITY}) {
    auto broken = row;
    broken[20] = bad;
    auto const out = decoded(encoded(broken, 0, quiet));
    CHECK(std::all_of(out.begin(), out.end(), [](float x) { return is_nan_bits(x); }));
    auto const keys = schemes::kvquant(c).key;
    std::vector<std::byte> key_section(size(keys.section_bytes(side::key, shape)));
    std::byte* key_at[] = {key_section.data()};
    keys.encode(side::key, shape, {broken.data(), nullptr, key_at, 1, 1, 4, 0}, nothing);
    std::vector<float> prepared(size(keys.query_floats(dim)));
    keys.prepare_query(0, dim, row.data(), prepared.data());
    CHECK(is_nan_bits(keys.score_at(shape, prepared.data(), key_section.data(), 4, 9)));
  }
}

TEST_CASE("parameters as text", "[schemes][kvquant][calibrate]") {
  auto const c = calibrated<3>(bell_layer(3, 40), {.normalise = true});
  std::string text;
  REQUIRE(write_parameters(c.parameters("12"), text) == status::ok);
  CHECK(text.substr(0, 53) == "kvcrumb-parameters 1\n12.shape 2\n40000000 42800000\n12.");
  std::vector<named_parameters> arrays;
  REQUIRE(read_parameters(text, arrays) == status::ok);
  kvquant_calibration<3> back;
  REQUIRE(kvquant_calibration<3>::from(arrays, "12", back) == status::ok);
  CHECK(back.parameters("12") == c.parameters("12"));
  CHECK(schemes::kvquant(back).key.state_id(heads, dim) == schemes::kvquant(c).key.state_id(heads, dim));
  kvquant_calibration<2> narrow;
  CHECK(kvquant_calibration<2>::from(arrays, "12", narrow) == status::bad_header);
  CHECK(kvquant_calibration<3>::from(arrays, "1", back) == status::bad_header);
  auto const read = [](std::string_view t) {
    std::vector<named_parameters> out;
    return read_parameters(t, out);
  };
  CHECK(read("") == status::bad_magic);
  CHECK(read("kvcrumb-parameters 2\n") == status::bad_version);
  CHECK(read("kvcrumb-parameters 1\na 2\n3f800000\n") == status::truncated);
  CHECK(read("kvcrumb-parameters 1\na 99999999 3f800000\n") == status::truncated);
  CHECK(read("kvcrumb-parameters 1\na 1 3f8\n") == status::bad_header);
  CHECK(read("kvcrumb-parameters 1\na 1 3f80000g\n") == status::bad_header);
  CHECK(read("kvcrumb-parameters 1\na 1 7f800000\n") == status::not_finite);
  CHECK(read("kvcrumb-parameters 1\na 0\na 0\n") == status::bad_header);
  CHECK(read("kvcrumb-parameters 1\nA 0\n") == status::bad_header);
  CHECK(write_parameters(std::vector<named_parameters>{{"a", {INFINITY}}}, text) == status::not_finite);
  CHECK(write_parameters(std::vector<named_parameters>{{"a b", {}}}, text) == status::bad_header);
  kvquant_calibration<3> none;
  std::vector<float> const nothing;
  CHECK(calibrate_kvquant<3>(hnd_rows<float const>(nothing.data(), 0, 64),
                             hnd_rows<float const>(nothing.data(), 0, 64), 1, 0, 64, {},
                             none) == status::bad_shape);
}

TEST_CASE("per channel beats per token, nuq beats uniform, slots beat none", "[schemes][kvquant][claim]") {
  rows_type const fitted = bell_layer(11, 300),
                  rows = bell_layer(11, 400);  // the same channels, 100 tokens more
  auto const c = calibrated<3>(fitted);
  auto const scheme = schemes::kvquant_as_given(c);
  double const per_channel = relative_error(scheme.key, side::key, rows);
  CHECK(1.5 * per_channel < relative_error(scheme.value, side::key, rows));
  // uniform levels over the same ranges
  auto uniform = c;
  for (int i = 0; i < 8; ++i) {
    uniform.keys.levels[i] = uniform.keys.decoded[i] = static_cast<float>(2 * i - 7) / 7.0f;
    uniform.values.levels[i] = uniform.values.decoded[i] = uniform.keys.levels[i];
  }
  auto const even = schemes::kvquant_as_given(uniform);
  double const nuq_values = relative_error(scheme.value, side::value, rows);
  CHECK(1.1 * per_channel < relative_error(even.key, side::key, rows));
  CHECK(1.05 * nuq_values < relative_error(even.value, side::value, rows));
  // no slots: ranges must hold everything
  auto const full = calibrated<3>(fitted, {.kept = 1.0});
  using dense = composed<nuq<3, nuq_range::fixed>, per_row, channel_scale, linear>;
  dense const without{{full.keys}, {full.key_shift.data(), full.key_scale.data()}};
  CHECK(1.3 * per_channel < relative_error(without, side::key, rows));
  CHECK(1.2 * nuq_values < relative_error(scheme.value.base, side::value, rows));
}

TEST_CASE("keys before RoPE are coded better than after it", "[schemes][kvquant][claim]") {
  SECTION("constant channel means") {
    rows_type const before = bell_layer(5, 400, 4.0, 1.0), after = rotated(before, {});
    auto const a = calibrated<3>(before), b = calibrated<3>(after);
    CHECK(2.0 * relative_error(schemes::kvquant_as_given(a).key, side::key, before) <
          relative_error(schemes::kvquant_as_given(b).key, side::key, after));
  }
  SECTION("recorded keys") {
    auto const path = test::real_data("books16m_frankenstein_1024.safetensors");
    if (!path) KVCRUMB_TEST_SKIP("skipped: no recorded data");
    auto const before = test::recorded_tensor(*path, "k_pre_rope"), after = test::recorded_tensor(*path, "k");
    for (int const layer : {0, 2, 5}) {
      double error[2];
      for (int i = 0; i < 2; ++i) {
        auto const& x = i == 0 ? before : after;
        auto const begin = x.begin() + layer * 2 * 1024 * 128;
        rows_type const rows{1, 1024, 128, {begin, begin + 1024 * 128}, {begin, begin + 1024 * 128}};
        auto const c = calibrated<3>(rows);
        error[i] = relative_error(schemes::kvquant_as_given(c).key, side::key, rows);
      }
      CAPTURE(layer);
      CHECK(error[0] < error[1]);
    }
  }
}
