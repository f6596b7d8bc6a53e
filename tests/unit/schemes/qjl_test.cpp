// SPDX-License-Identifier: Apache-2.0
//! @file QJL: what a section holds, the mean and the variance of its estimates, outlier channels, attention.
#include "kvcrumb/schemes/qjl.hpp"

#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr int dim = 64, bits = 128, tile = 64, group = 32;
constexpr double half_pi = 1.5707963267948966;

//! A projection and its memory.
struct held_projection {
  std::vector<float> memory;
  sketch_projection value{};
  held_projection(std::uint64_t seed, int count = bits, int width = dim,
                  projection_kind kind = projection_kind::orthogonal)
      : memory(test::size(count) * test::size(width)) {
    REQUIRE(fill_projection(kind, seed, count, width, memory, value) == status::ok);
  }
};

using scheme_type = schemes::qjl_type<bits, group>;
using keys_type = scheme_type::key_type;

//! Rows of one head in one section.
template <class Keys>
std::vector<std::byte> encoded(Keys const& keys, std::vector<float> rows, int width = dim,
                               std::vector<std::uint8_t> const& isolated = {}, int tokens = tile) {
  std::vector<std::byte> section(test::size(keys.section_bytes(side::key, {width, tile})));
  std::byte* at = section.data();
  encode_request const r{rows.data(), isolated.empty() ? nullptr : isolated.data(), &at, 1, tokens, 0, 0};
  null_tracer t;
  keys.encode(side::key, {width, tile}, r, t);
  return section;
}
template <class Keys>
float scored(Keys const& keys, std::vector<std::byte> const& section, int slot, float const* q,
             int width = dim) {
  std::vector<float> prepared(test::size(Keys::query_floats(width)));
  keys.prepare_query(0, width, q, prepared.data());
  return keys.score({width, tile}, prepared.data(), section.data(), slot);
}

//! Reads a section by its description alone.
struct section_reader {
  std::byte const* bytes;
  std::size_t at(std::size_t offset) const { return std::to_integer<std::size_t>(bytes[offset]); }
  int sign(int slot, int j) const {
    std::size_t const row = test::size(slot) * (bits / 8);
    return (at(row + test::size(j / 8)) >> (j % 8) & 1u) != 0u ? 1 : -1;
  }
  int outlier_sign(int slot, int j) const {
    std::size_t const row = tile * bits / 8 + test::size(slot) * (bits / 16);
    return (at(row + test::size(j / 8)) >> (j % 8) & 1u) != 0u ? 1 : -1;
  }
  double norm(int slot, int plane) const {
    std::size_t const i = tile * bits / 8 + tile * bits / 16 + 2 * test::size(plane * tile + slot);
    return static_cast<double>(to_float(float16{static_cast<std::uint16_t>(at(i) | at(i + 1) << 8)}));
  }
  int channel(int slot, int i) const {
    return static_cast<int>(
        at(tile * bits / 8 + tile * bits / 16 + 4 * tile + test::size(slot / group * 8 + i)));
  }
  bool outlier(int slot, int d) const {
    for (int i = 0; i < 8; ++i) {
      if (channel(slot, i) == d) return true;
    }
    return false;
  }
  //! Scores are linear in the query; this is the vector that they are products with.
  std::vector<double> effective_key(sketch_projection const& s, int slot) const {
    double const unit = std::sqrt(3.14159265358979324 / dim) *
                        std::exp(std::lgamma((dim + 1) / 2.0) - std::lgamma(dim / 2.0));
    std::vector<double> k(dim, 0.0);
    for (int d = 0; d < dim; ++d) {
      bool const out = outlier(slot, d);
      int const n = out ? bits / 2 : bits;
      for (int j = 0; j < n; ++j)
        k[test::size(d)] += static_cast<double>(s.row(j)[d]) * (out ? outlier_sign(slot, j) : sign(slot, j));
      k[test::size(d)] *= unit / n * norm(slot, out ? 1 : 0);
    }
    return k;
  }
};

double product(float const* a, float const* b, int n = dim) {
  double sum = 0.0;
  for (int d = 0; d < n; ++d)
    sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum;
}

}  // namespace

TEST_CASE("a key is 1.5 m + 32 bits and 64 / 32 for the channels", "[schemes][qjl]") {
  STATIC_REQUIRE(key_scheme<keys_type>);
  STATIC_REQUIRE(tile_hooks<keys_type>);
  STATIC_REQUIRE_FALSE(decodable<keys_type>);
  STATIC_REQUIRE_FALSE(scheme_type::row_independent);
  STATIC_REQUIRE(qjl_keys<bits, 0, 0>::append_tokens == 1);
  schemes::qjl_type<256> const published = schemes::qjl<256>({});
  tile_shape const shape{128, 128};
  auto const bits_of = [&](std::int64_t bytes) { return 8.0 * static_cast<double>(bytes) / (128.0 * 128.0); };
  CHECK(bits_of(published.key.section_bytes(side::key, shape)) ==
        2.0 + 16.0 / 128 + 1.0 + 16.0 / 128 + 64.0 / (32 * 128));
  CHECK(bits_of(published.value.section_bytes(side::value, shape)) == 3.0);
  CHECK(published.append_tokens == 32);
  CHECK(published.flush == window{0, 128});

  held_projection const s(1);
  auto const rows = test::random_layer(3, 2, 256, dim);
  auto const cache = test::filled(schemes::qjl<bits, group>(s.value), rows, tile);
  std::int64_t const key = tile * (bits + bits / 2 + 32) / 8 + tile / group * 8, value = tile * dim * 3 / 8;
  CHECK(cache.blob_parts().bytes == key + value + tile / 8);
  CHECK(cache.bytes_used() == 2 * 4 * align_up(key + value + tile / 8, 64));
}

TEST_CASE("rows of a projection are orthogonal within each basis", "[schemes][qjl]") {
  held_projection const s(7, 150, dim);  // two bases and a part of a third
  double worst = 0.0;
  for (int i = 0; i < 150; ++i) {
    for (int j = i / dim * dim; j <= i; ++j)
      worst =
          std::max(worst, std::fabs(product(s.value.row(i), s.value.row(j)) / dim - (i == j ? 1.0 : 0.0)));
  }
  CHECK(worst < 2e-7);
  CHECK(std::fabs(product(s.value.row(0), s.value.row(dim))) > 1e-3);  // the next basis is another one
}

TEST_CASE("a projection is the Q factor of a Gaussian matrix", "[schemes][qjl][literature]") {
  // numpy.linalg.qr of SplitMix64 polar normals, in tests/literature/qjl_test.py; signs chosen so that R has
  // a positive diagonal
  held_projection const s(42, 4, 4), g(42, 4, 4, projection_kind::gaussian);
  double const q[16] = {0.552986981,  -0.778528426, -1.437099406, -1.011357596, -0.601012904, 0.651855664,
                        -1.385243161, 1.137967077,  -0.375697605, -1.720253919, 0.125773586,  0.940084448,
                        1.786572192,  0.098509577,  0.005262077,  0.893547971};
  double const n[4] = {0.492950656, -0.694005667, -1.281077348, -0.901557193};
  for (int i = 0; i < 16; ++i)
    CHECK(static_cast<double>(s.memory[test::size(i)]) == test::Approx(q[i]).margin(3e-7));
  for (int i = 0; i < 4; ++i)
    CHECK(static_cast<double>(g.memory[test::size(i)]) == test::Approx(n[i]).margin(3e-7));
  CHECK(held_projection(1).value.id() != held_projection(2).value.id());
  CHECK(held_projection(1).value.id() == held_projection(1).value.id());
}

TEST_CASE("projections are refused with a reason", "[schemes][qjl]") {
  std::vector<float> memory(64);
  sketch_projection out;
  auto const fill = [&](int count, int width, std::span<float> to) {
    return fill_projection(projection_kind::orthogonal, 1, count, width, to, out);
  };
  CHECK(fill(8, 9, memory) == status::buffer_too_small);
  CHECK(fill(0, 8, memory) == status::bad_shape);
  CHECK(fill(1, 0, memory) == status::bad_head_dim);
  CHECK(fill(1, 1025, memory) == status::bad_head_dim);
  CHECK(fill(1, 1, {}) == status::null_pointer);
  CHECK(out.rows == nullptr);
  held_projection const s(1), few(1, bits - 8), wide(1, 16, 260);
  keys_type const keys{s.value};
  CHECK(keys.supports(side::key, {dim, tile}, 2) == status::ok);
  CHECK(keys.supports(side::value, {dim, tile}, 2) == status::bad_shape);
  CHECK(keys.supports(side::key, {dim, tile}, 0) == status::bad_shape);
  CHECK(keys.supports(side::key, {128, tile}, 2) == status::bad_head_dim);
  CHECK(keys.supports(side::key, {dim, 48}, 2) == status::bad_tile_tokens);
  CHECK(keys_type{}.supports(side::key, {dim, tile}, 2) == status::null_pointer);
  CHECK(keys_type{few.value}.supports(side::key, {dim, tile}, 2) == status::bad_shape);
  CHECK(qjl_keys<16>{wide.value}.supports(side::key, {260, tile}, 2) == status::bad_head_dim);
  CHECK(qjl_keys<bits, bits / 2, 8, 64>{s.value}.supports(side::key, {dim, 32}, 2) == status::bad_group);
  kv_cache<scheme_type> cache;
  CHECK(kv_cache<scheme_type>::create(schemes::qjl<bits, group>({}), {2, {dim, tile}, 64}, cache) ==
        status::null_pointer);
}

TEST_CASE("a section holds signs, norms and outlier channels of its groups", "[schemes][qjl]") {
  held_projection const s(3);
  auto const layer = test::random_layer(5, 1, tile, dim, 5);
  std::vector<std::uint8_t> isolated(tile, 0);
  isolated[2] = isolated[40] = 1;
  std::vector<float> rows = layer.keys;
  for (int d = 0; d < dim; ++d)
    rows[test::size(2 * dim + d)] = d == 20 ? 1000.0f : 0.0f;  // must not make channel 20 an outlier
  auto const section = encoded(keys_type{s.value}, rows, dim, isolated);
  section_reader const in{section.data()};
  int wrong_signs = 0, wrong_channels = 0;
  double worst_norm = 0.0;
  for (int first = 0; first < tile; first += group) {
    std::vector<std::pair<double, int>> energy;
    for (int d = 0; d < dim; ++d) {
      double sum = 0.0;
      for (int t = first; t < first + group; ++t) {
        double const x = static_cast<double>(rows[test::size(t * dim + d)]);
        if (isolated[test::size(t)] == 0) sum += x * x;
      }
      energy.push_back({-sum, d});
    }
    std::sort(energy.begin(), energy.end());
    for (int i = 0; i < 8; ++i)
      wrong_channels += in.outlier(first, energy[test::size(i)].second) ? 0 : 1;
    for (int i = 1; i < 8; ++i)
      wrong_channels += in.channel(first, i) > in.channel(first, i - 1) ? 0 : 1;
  }
  for (int t = 0; t < tile; ++t) {
    if (isolated[test::size(t)] != 0) {
      CHECK((in.norm(t, 0) == 0.0 && in.norm(t, 1) == 0.0));
      continue;
    }
    std::vector<float> inside(dim, 0.0f), outside(dim, 0.0f);
    for (int d = 0; d < dim; ++d)
      (in.outlier(t, d) ? outside : inside)[test::size(d)] = rows[test::size(t * dim + d)];
    for (int j = 0; j < bits; ++j) {
      double const a = product(s.value.row(j), inside.data()), b = product(s.value.row(j), outside.data());
      if (std::fabs(a) > 1e-4) wrong_signs += in.sign(t, j) == (a > 0.0 ? 1 : -1) ? 0 : 1;
      if (std::fabs(b) > 1e-4 && j < bits / 2)
        wrong_signs += in.outlier_sign(t, j) == (b > 0.0 ? 1 : -1) ? 0 : 1;
    }
    double const norms[2] = {std::sqrt(product(inside.data(), inside.data())),
                             std::sqrt(product(outside.data(), outside.data()))};
    for (int plane = 0; plane < 2; ++plane)
      worst_norm = std::max(worst_norm, std::fabs(in.norm(t, plane) / norms[plane] - 1.0));
  }
  CHECK(wrong_channels == 0);
  CHECK(wrong_signs == 0);
  CHECK(worst_norm < std::ldexp(1.0, -11) * 1.001);
}

TEST_CASE("estimates are unbiased and vary as published", "[schemes][qjl][literature]") {
  // Variance of m Gaussian rows: (pi / 2 |q|^2 |k|^2 - <q, k>^2) / m, at most pi / (2 m). Of m / D orthogonal
  // bases, averaged over directions of q: (pi / 2 - 1) / m, since each estimates k by a vector of length
  // sqrt(pi / 2) |k|.
  auto const kind = GENERATE(projection_kind::orthogonal, projection_kind::gaussian);
  using plain = qjl_keys<bits, 0, 0>;
  constexpr int seeds = 120, pairs = tile;
  std::vector<float> k, q;
  std::mt19937_64 engine{17};
  std::normal_distribution<double> normal;
  for (int i = 0; i < pairs; ++i) {
    std::vector<double> a(dim), b(dim);
    double aa = 0.0, bb = 0.0;
    for (double& x : a) {
      x = normal(engine);
      aa += x * x;
    }
    double const mix = i % 4 * 0.3;
    for (int d = 0; d < dim; ++d) {
      b[test::size(d)] = normal(engine) + mix * a[test::size(d)];
      bb += b[test::size(d)] * b[test::size(d)];
    }
    for (int d = 0; d < dim; ++d) {
      k.push_back(static_cast<float>(a[test::size(d)] / std::sqrt(aa)));
      q.push_back(static_cast<float>(b[test::size(d)] / std::sqrt(bb)));
    }
  }
  std::vector<double> sum(pairs, 0.0), square(pairs, 0.0);
  double slope_top = 0.0, slope_bottom = 0.0;
  for (int seed = 0; seed < seeds; ++seed) {
    held_projection const s(test::size(1000 + seed), bits, dim, kind);
    plain const keys{s.value};
    auto const section = encoded(keys, k);
    for (int i = 0; i < pairs; ++i) {
      float const* const qi = q.data() + i * dim;
      double const exact = product(qi, k.data() + i * dim);
      double const estimate = static_cast<double>(scored(keys, section, i, qi));
      double const e = estimate - exact;
      sum[test::size(i)] += e;
      square[test::size(i)] += e * e;
      slope_top += estimate * exact;
      slope_bottom += exact * exact;
    }
  }
  double mean = 0.0, variance = 0.0, expected = 0.0, worst = 0.0, largest = 0.0;
  for (int i = 0; i < pairs; ++i) {
    double const cosine = product(q.data() + i * dim, k.data() + i * dim);
    mean += sum[test::size(i)] / seeds / pairs;
    worst = std::max(worst, std::fabs(sum[test::size(i)] / seeds));
    variance += square[test::size(i)] / seeds / pairs;
    largest = std::max(largest, square[test::size(i)] / seeds);
    // orthogonal: the estimate of k has length sqrt(pi/2) and a component along k that varies little
    expected +=
        (kind == projection_kind::gaussian ? half_pi - cosine * cosine
                                           : (half_pi - 1.0) * (1.0 - cosine * cosine) * dim / (dim - 1.0)) /
        bits / pairs;
  }
  double const deviation = std::sqrt(half_pi / bits / seeds);
  CAPTURE(static_cast<int>(kind), mean, worst, variance, expected, largest, slope_top / slope_bottom);
  CHECK(std::fabs(mean) < 4.0 * deviation / std::sqrt(pairs));
  CHECK(worst < 4.0 * deviation);  // 64 pairs, four standard deviations
  CHECK(slope_top / slope_bottom == test::Approx(1.0).margin(0.005));
  CHECK(variance == test::Approx(expected).epsilon(0.08));
  // each of the variances, within the statistical error of an estimate from `seeds` values: sqrt(2 / 120)
  CHECK(largest <= half_pi / bits * (1.0 + 4.0 * std::sqrt(2.0 / seeds)));
}

TEST_CASE("outlier channels apart reduce the error", "[schemes][qjl]") {
  // The same 192 signs and 32 bits of norms and more for both.
  held_projection const s(5, 192);
  auto const layer = test::random_layer(9, 1, tile, dim, 6);
  qjl_keys<192, 0, 0> const together{s.value};
  keys_type const apart{s.value};
  auto const a = encoded(together, layer.keys), b = encoded(apart, layer.keys);
  auto const q = test::random_queries(4, 1, 40, dim);
  double of_together = 0.0, of_apart = 0.0;
  for (int i = 0; i < 40; ++i) {
    for (int t = 0; t < tile; ++t) {
      float const* const qi = q.data() + i * dim;
      double const exact = product(qi, layer.key(0, t));
      of_together += std::pow(static_cast<double>(scored(together, a, t, qi)) - exact, 2);
      of_apart += std::pow(static_cast<double>(scored(apart, b, t, qi)) - exact, 2);
    }
  }
  INFO(of_together << " " << of_apart);
  CHECK(of_apart < 0.6 * of_together);
}

TEST_CASE("attention on signs is attention over the vectors they stand for", "[schemes][qjl]") {
  std::int64_t const tokens = GENERATE(5, 64, 150);
  held_projection const s(2);
  auto const rows = test::random_layer(5, 2, tokens, dim, 4, 5);
  kv_scheme<keys_type, scheme_type::value_type, token_pool<>> scheme;
  scheme.key.projection = s.value;
  scheme.flush = {8, group};
  scheme.isolate = {.capacity = 2, .auxiliary = 3, .sinks = 1};
  auto const cache = test::filled(scheme, rows, tile);
  test::decoded_rows seen = test::as_doubles(rows);
  auto const view = cache.view();
  std::vector<float> value(dim);
  for (int h = 0; h < 2; ++h) {
    for (std::int64_t slot = 0; slot < view.tile_tokens; ++slot) {
      std::int64_t const number = slot / tile, t = view.tile_first + slot;
      int const at = static_cast<int>(slot % tile);
      if (!view.valid(h, number, at)) continue;
      auto const key = section_reader{view.keys.section(h, number)}.effective_key(s.value, at);
      scheme.value.decode_row(side::value, {dim, tile}, h, view.values.section(h, number), at, value.data());
      for (int d = 0; d < dim; ++d) {
        seen.keys[test::size(rows.at(h, t) + d)] = key[test::size(d)];
        seen.values[test::size(rows.at(h, t) + d)] = static_cast<double>(value[test::size(d)]);
      }
    }
  }
  attention_options options;
  options.window = GENERATE(0, 40);
  auto const q = test::random_queries(3, 4, 2, dim);
  auto const got = test::run_attention(view, q, 4, 2, options);
  REQUIRE(got.outcome == status::ok);
  auto const expected = test::expected_attention(seen, 2, dim, q, 4, 2, options);
  // a score is a sum of 192 products, each of a projected query of 64
  test::attention_bound const bound = test::bound_of(seen, dim, q, 0.0f, 8.0);
  double worst = 0.0, worst_lse = 0.0;
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    worst = e <= worst ? worst : e;
  }
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]);
    worst_lse = e <= worst_lse ? worst_lse : e;
  }
  CAPTURE(tokens, options.window);
  CHECK(worst <= bound.output);
  CHECK(worst_lse <= bound.lse);
}

TEST_CASE("tile hooks and single scores agree", "[schemes][qjl]") {
  held_projection const s(2);
  auto const layer = test::random_layer(6, 1, tile, dim, 3);
  auto const q = test::random_queries(3, 1, 3, dim);
  auto const check = [&](auto const& keys) {
    auto const section = encoded(keys, layer.keys);
    std::vector<float> work(test::size(keys.tile_floats(side::key, {dim, tile})) + 1, 7.0f), scores(tile);
    std::vector<float> prepared(test::size(keys.query_floats(dim)));
    keys.load_tile(side::key, {dim, tile}, section.data(), work.data());
    double worst = 0.0;
    for (int i = 0; i < 3; ++i) {
      keys.prepare_query(0, dim, q.data() + i * dim, prepared.data());
      keys.score_tile({dim, tile}, work.data(), prepared.data(), scores.data());
      for (int t = 0; t < tile; ++t) {
        float const one = keys.score({dim, tile}, prepared.data(), section.data(), t);
        worst = std::max(worst, std::fabs(static_cast<double>(one - scores[test::size(t)])));
      }
    }
    CHECK(worst <= 1e-5);
    CHECK(work.back() == 7.0f);
  };
  check(keys_type{s.value});
  check(qjl_keys<bits, 0, 0>{s.value});
  check(qjl_keys<bits, 8, 3, 16>{s.value});
}

TEST_CASE("a cache of signs is saved, restored and bound to its projection", "[schemes][qjl]") {
  held_projection const s(1), other(2);
  auto const rows = test::random_layer(5, 2, 200, dim, 3);
  auto const scheme = schemes::qjl<bits, group>(s.value);
  auto const whole = test::filled(scheme, rows, tile);
  auto chunked = test::made(scheme, 2, {dim, tile});
  for (std::int64_t t = 0; t < 200; t += t % 3 == 0 ? 1 : 13)
    test::append(chunked, rows, t, std::min<std::int64_t>(t + (t % 3 == 0 ? 1 : 13), 200));
  auto const file = test::saved(whole);
  CHECK(test::saved(chunked) == file);
  kv_cache<scheme_type> back;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, back) == status::ok);
  CHECK(test::saved(back) == file);
  CHECK(restore(std::span<std::byte const>{file}, schemes::qjl<bits, group>(other.value), back) ==
        status::scheme_mismatch);
  CHECK(restore(std::span<std::byte const>{file}, schemes::qjl<bits, group>({}), back) != status::ok);
}

TEST_CASE("without outliers keys are row-independent", "[schemes][qjl]") {
  using plain = kv_scheme<qjl_keys<bits, 0, 0>, scheme_type::value_type>;
  STATIC_REQUIRE(plain::row_independent);
  held_projection const s(1);
  plain scheme;
  scheme.key.projection = s.value;
  auto const rows = test::random_layer(5, 2, 80, dim);
  auto cache = test::filled(scheme, rows, tile);
  REQUIRE(cache.truncate(37) == status::ok);
  auto shorter = test::made(scheme, 2, {dim, tile});
  test::append(shorter, rows, 0, 37);
  CHECK(test::saved(cache) == test::saved(shorter));
}

TEST_CASE("constant, zero, tiny and damaged groups", "[schemes][qjl]") {
  held_projection const s(4);
  keys_type const keys{s.value};
  auto const q = test::random_queries(3, 1, 1, dim);
  std::vector<float> rows(tile * dim, 0.0f);
  auto section = encoded(keys, rows);
  for (int i = 0; i < 8; ++i)
    CHECK(section_reader{section.data()}.channel(0, i) == i);  // ties: the lower channel
  CHECK(scored(keys, section, 0, q.data()) == 0.0f);
  std::fill(rows.begin(), rows.end(), 2.0f);
  section = encoded(keys, rows);
  CHECK(section_reader{section.data()}.norm(3, 0) == test::Approx(std::sqrt(4.0 * (dim - 8))).epsilon(1e-3));
  CHECK(section_reader{section.data()}.norm(3, 1) == test::Approx(std::sqrt(32.0)).epsilon(1e-3));
  std::fill(rows.begin(), rows.end(), 1e-40f);
  CHECK(scored(keys, encoded(keys, rows), 0, q.data()) == 0.0f);
  std::fill(rows.begin(), rows.end(), 3e38f);
  CHECK(section_reader{encoded(keys, rows).data()}.norm(0, 0) == 65504.0);
  float const bad = GENERATE(std::nanf(""), HUGE_VALF, -HUGE_VALF);
  std::fill(rows.begin(), rows.end(), 1.0f);
  rows[5 * dim + 7] = bad;
  section = encoded(keys, rows);
  CHECK(std::isnan(scored(keys, section, 5, q.data())));
  CHECK(std::isnan(scored(keys, section, 6, q.data())));  // its channels were chosen together
  CHECK(std::isnan(section_reader{section.data()}.norm(6, 1)));
  CHECK(std::isfinite(scored(keys, section, group, q.data())));
  std::vector<std::uint8_t> isolated(tile, 0);
  isolated[5] = 1;
  CHECK(std::isfinite(scored(keys, encoded(keys, rows, dim, isolated), 6, q.data())));
  std::fill(isolated.begin(), isolated.end(), std::uint8_t{1});
  CHECK(scored(keys, encoded(keys, rows, dim, isolated), 6, q.data()) == 0.0f);
}
