// SPDX-License-Identifier: Apache-2.0
//! @file ThinK: which channels stay, what the others cost, and that the choice beats other choices.
#include "kvcrumb/schemes/think.hpp"

#include <limits>

#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! Some ascending channels of each head, other ones for every head.
std::vector<std::uint16_t> spread_channels(int heads, int dim, int kept) {
  std::vector<std::uint16_t> list;
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < kept; ++i)
      list.push_back(static_cast<std::uint16_t>((i * dim + h * (dim - 1) / heads) / kept));
  }
  return list;
}

std::vector<std::uint16_t> best_channels(std::vector<double> const& scores, int heads, int dim, int kept) {
  std::vector<std::uint16_t> list(test::size(heads * kept));
  REQUIRE(think_channels(scores, heads, dim, kept, list) == status::ok);
  return list;
}

//! Relative error of attention with some key channels only; rows are fp16 numbers, so nothing else is lost.
double output_error(test::layer_rows const& rows, std::vector<float> const& q, int query_heads, int queries,
                    std::vector<std::uint16_t> const& list) {
  channel_list const keep{list.data(), rows.heads, static_cast<int>(list.size()) / rows.heads};
  auto const cache = test::filled(schemes::think(keep), rows, 128);
  auto const got = test::run_attention(cache.view(), q, query_heads, queries);
  REQUIRE(got.outcome == status::ok);
  auto const exact =
      test::expected_attention(test::as_doubles(rows), rows.heads, rows.dim, q, query_heads, queries, {});
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const e = static_cast<double>(got.output[i]) - exact.output[i];
    error += e * e;
    norm += exact.output[i] * exact.output[i];
  }
  return std::sqrt(error / norm);
}

//! Errors of ThinK's choice, of the choice by key magnitude alone, and the mean of three random ones.
struct choice_errors {
  double think = 0.0, keys = 0.0, random = 0.0;
};
choice_errors compare_choices(test::layer_rows const& rows, std::vector<double> const& by_think,
                              std::vector<double> const& by_keys, std::vector<float> const& q,
                              int query_heads, int queries, int kept) {
  choice_errors e;
  auto const error = [&](std::vector<double> const& scores) {
    return output_error(rows, q, query_heads, queries, best_channels(scores, rows.heads, rows.dim, kept));
  };
  e.think = error(by_think);
  e.keys = error(by_keys);
  std::mt19937_64 engine{11};
  for (int i = 0; i < 3; ++i) {
    std::vector<double> scores(by_think.size());
    for (double& x : scores)
      x = static_cast<double>(engine() >> 11);
    e.random += error(scores) / 3.0;
  }
  return e;
}

std::vector<double> scores_of(std::vector<float> const& q, int query_heads, std::int64_t queries,
                              test::layer_rows const& rows, std::int64_t tokens) {
  std::vector<double> scores(test::size(rows.heads * rows.dim));
  REQUIRE(think_scores(hnd_rows(q.data(), queries, rows.dim), query_heads, queries, rows.key_rows(),
                       rows.heads, tokens, rows.dim, std::span<double>{scores}) == status::ok);
  return scores;
}

}  // namespace

TEST_CASE("the kept channels are NumPy's", "[think][literature]") {
  // tests/literature/think_test.py computes these and compares.
  constexpr int recorded_channels[32] = {2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 16, 17, 18, 19, 20, 23,
                                         2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 17, 18, 19, 20, 22, 23};
  int const width = 24, kept = 16, tokens = 48, queries = 40;
  auto q = test::shared_numbers(1, 4 * queries * width), k = test::shared_numbers(2, 2 * tokens * width);
  for (std::size_t i = 0; i < q.size(); ++i) {
    std::size_t const d = i % 24, t = i / 24 % 40;
    q[i] *= static_cast<float>(1 + d % 5) * (t < 8 ? (d == 3 ? 4096.0f : 64.0f) : 1.0f);
  }
  for (std::size_t i = 0; i < k.size(); ++i)
    k[i] *= static_cast<float>(1 + i % 24 % 7);
  std::vector<double> scores(2 * 24);
  REQUIRE(think_scores(hnd_rows(q.data(), queries, width), 4, queries, hnd_rows(k.data(), tokens, width), 2,
                       tokens, width, std::span<double>{scores}) == status::ok);
  auto const list = best_channels(scores, 2, width, kept);
  for (std::size_t i = 0; i < list.size(); ++i)
    CHECK(list[i] == recorded_channels[i]);
}

TEST_CASE("scores and channels: ties, counts and bad input", "[think]") {
  std::vector<double> const scores{3.0, 1.0, 3.0, 2.0, 0.0, 3.0};
  CHECK(best_channels(scores, 1, 6, 2) == std::vector<std::uint16_t>{0, 2});  // of equals the lower one
  CHECK(best_channels(scores, 1, 6, 6) == std::vector<std::uint16_t>{0, 1, 2, 3, 4, 5});
  std::vector<std::uint16_t> list(4);
  CHECK(think_channels(scores, 1, 6, 7, list) == status::out_of_range);
  CHECK(think_channels(scores, 1, 6, 5, list) == status::buffer_too_small);
  CHECK(think_channels(scores, 2, 6, 2, list) == status::buffer_too_small);
  // head_dim - floor(head_dim * 0.4) = 77, 39, 58 channels, whole words of eight
  CHECK(think_kept(128, 0.4) == 80);
  CHECK(think_kept(64, 0.4) == 40);
  CHECK(think_kept(96, 0.4, 16) == 64);
  CHECK(think_kept(128, 0.4, 1) == 77);
  CHECK(think_kept(20, 0.0, 16) == 20);
  CHECK(think_kept(128, 1.0) == 0);
  std::vector<float> rows(4 * 8, 1.0f);
  std::vector<double> out(8, -1.0);
  auto const view = hnd_rows(rows.data(), 4, 8);
  CHECK(think_scores(view, 1, 0, view, 1, 4, 8, std::span<double>{out}) == status::bad_shape);
  CHECK(think_scores(view, 3, 4, view, 2, 4, 8, std::span<double>{out}) == status::bad_shape);
  CHECK(think_scores(view, 1, 4, view, 1, 4, 8, std::span<double>{out}.first(7)) == status::buffer_too_small);
  rows[31] = std::numeric_limits<float>::quiet_NaN();
  CHECK(think_scores(view, 1, 4, view, 1, 4, 8, std::span<double>{out}) == status::not_finite);
  CHECK(out[0] == -1.0);
}

TEST_CASE("lists that do not fit are refused", "[think]") {
  auto const scheme = [](std::vector<std::uint16_t> const& list, int heads, int kept) {
    return schemes::think({list.data(), heads, kept}).supports({16, 32}, 2);
  };
  std::vector<std::uint16_t> list{0, 3, 5, 15, 1, 2, 3, 4};
  CHECK(scheme(list, 2, 4) == status::ok);
  CHECK(scheme(list, 1, 4) == status::bad_shape);
  CHECK(scheme(list, 2, 0) == status::bad_shape);
  CHECK(scheme(list, 2, 17) == status::bad_head_dim);
  CHECK(schemes::think({nullptr, 2, 4}).supports({16, 32}, 2) == status::null_pointer);
  list[3] = 16;
  CHECK(scheme(list, 2, 4) == status::out_of_range);
  list[3] = 5;
  CHECK(scheme(list, 2, 4) == status::out_of_range);
  list[3] = 15;
  auto const in_fragments = schemes::think_kivi<2, 32, fragment>({list.data(), 2, 4});
  CHECK(in_fragments.supports({16, 32}, 2) == status::bad_head_dim);  // the base cannot hold 4 channels
  CHECK(in_fragments.key.supports(side::value, {16, 32}, 2) == status::bad_shape);
}

TEST_CASE("bytes shrink by exactly the share that is pruned", "[think]") {
  int const dim = 128, kept = 80;
  auto const list = spread_channels(2, dim, kept);
  channel_list const keep{list.data(), 2, kept};
  for (int const tokens : {32, 64, 128}) {
    tile_shape const shape{dim, tokens};
    auto const share = [&](auto const& pruned_key, auto const& whole) {
      return pruned_key.section_bytes(side::key, shape) * dim == whole.section_bytes(side::key, shape) * kept;
    };
    CHECK(share(schemes::think(keep).key, schemes::think_type::value_type{}));
    CHECK(share(schemes::think_kivi<2, 32>(keep).key, schemes::kivi<2, 32, linear>().key));
    CHECK(share(schemes::think_kivi<4, 32>(keep).key, schemes::kivi<4, 32, linear>().key));
  }
  // A full tile holds the formula and one validity bit per slot, nothing else.
  auto const rows = test::random_layer(5, 2, 256, dim);
  auto kivi = schemes::think_kivi<2, 32>(keep);
  auto const cache = test::made(kivi, 2, {dim, 128}, 16);
  auto filled = cache;
  test::append(filled, rows, 0, 256);
  CHECK(filled.bits_per_value() == (3.0 * 80.0 / 128.0 + 3.0) / 2.0 + 1.0 / 256.0);
  auto plain = schemes::think(keep);
  plain.flush = {0, 1};
  auto raw_cache = test::made(plain, 2, {dim, 128}, 16);
  test::append(raw_cache, rows, 0, 256);
  CHECK(raw_cache.bits_per_value() == 8.0 + 8.0 * 80.0 / 128.0 + 1.0 / 256.0);
}

TEST_CASE("a pruned cache is the base cache of the kept channels", "[think]") {
  int const dim = 64, kept = 40, heads = 2;
  std::int64_t const tokens = 150;
  auto const list = spread_channels(heads, dim, kept);
  channel_list const keep{list.data(), heads, kept};
  auto const rows = test::random_layer(7, heads, tokens, dim, 3, 4);
  auto const scheme = schemes::think_ott<2, 32>(keep, 2);
  auto const cache = test::filled(scheme, rows, 32);
  std::vector<float> k(64), v(64), expected(64);
  std::int64_t in_tiles = 0, exact = 0;
  for (int h = 0; h < heads; ++h) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      token_place place{};
      REQUIRE(cache.read(h, t, k.data(), v.data(), &place) == status::ok);
      if (place != token_place::tile) {  // tail and pools keep all channels
        ++exact;
        CHECK(std::equal(k.begin(), k.end(), rows.key(h, t)));
        continue;
      }
      ++in_tiles;
      bool zero = true;
      for (int d = 0; d < dim; ++d) {
        auto const* begin = keep.of(h);
        if (!std::binary_search(begin, begin + kept, d)) zero = zero && k[test::size(d)] == 0.0f;
      }
      CHECK(zero);
    }
  }
  CHECK(in_tiles > 100);
  CHECK(exact > 60);
  // The bytes of the base on compacted rows.
  auto const base = scheme.key.base;
  std::vector<std::byte> a(test::size(scheme.key.section_bytes(side::key, {dim, 32}))), b(a);
  std::vector<float> whole(rows.key(1, 0), rows.key(1, 32)), compact;
  for (int t = 0; t < 32; ++t) {
    for (int i = 0; i < kept; ++i)
      compact.push_back(rows.key(1, t)[list[test::size(kept + i)]]);
  }
  std::vector<std::uint8_t> isolated(32, 0);
  isolated[4] = 1;
  std::byte *pa[2] = {a.data(), a.data()}, *pb = b.data();
  null_tracer none;
  std::vector<float> both(rows.key(0, 0), rows.key(0, 32));  // head 0 is overwritten by head 1: a has head 1
  both.insert(both.end(), whole.begin(), whole.end());
  std::vector<std::uint8_t> flags(64, 0);
  flags[36] = 1;
  scheme.key.encode(side::key, {dim, 32}, {both.data(), flags.data(), pa, 2, 32, 0, 0}, none);
  base.encode(side::key, {kept, 32}, {compact.data(), isolated.data(), &pb, 1, 32, 0, 0}, none);
  CHECK(a == b);
}

TEST_CASE("attention on a pruned cache is exact attention on its rows", "[think][attention]") {
  int const heads = 2;
  std::int64_t const tokens = GENERATE(0, 1, 37, 150);
  auto const list = spread_channels(heads, 64, 40);
  channel_list const keep{list.data(), heads, 40};
  auto const rows = test::random_layer(5, heads, tokens, 64, 3, 4);
  auto const q = test::random_queries(3, 6, 2, 64);
  attention_options options;
  options.window = GENERATE(0, 40);
  auto think = schemes::think(keep);
  think.flush = {8, 1};
  test::check_attention_of(test::filled(think, rows, 32), q, 6, 2, options);
  test::check_attention_of(test::filled(schemes::think_ott<2, 32>(keep, 2), rows, 32), q, 6, 2, options);
}

TEST_CASE("scoring one slot agrees with scoring a tile", "[think][attention]") {
  auto const list = spread_channels(1, 128, 64);
  auto const scheme = schemes::think_kivi<2, 32, fragment>({list.data(), 1, 64}).key;  // fragments of 64
  tile_shape const shape{128, 64};
  auto const rows = test::random_layer(9, 1, 64, 128, 3);
  auto copy = rows.keys;
  std::vector<std::byte> section(test::size(scheme.section_bytes(side::key, shape)));
  std::byte* p = section.data();
  null_tracer none;
  scheme.encode(side::key, shape, {copy.data(), nullptr, &p, 1, 64, 0, 0}, none);
  auto const q = test::random_queries(3, 1, 1, 128);
  std::vector<float> prepared(test::size(scheme.query_floats(128))), scores(64), row(128),
      work(test::size(scheme.tile_floats(side::key, shape)));
  scheme.prepare_query(0, 128, q.data(), prepared.data());
  scheme.load_tile(side::key, shape, section.data(), work.data());
  scheme.score_tile(shape, work.data(), prepared.data(), scores.data());
  for (int t = 0; t < 64; ++t) {
    scheme.decode_row(side::key, shape, 0, section.data(), t, row.data());
    double sum = 0.0;
    for (std::size_t d = 0; d < 128; ++d)
      sum += static_cast<double>(q[d]) * static_cast<double>(row[d]);
    // 64 products below 30 each: 64 * 30 * 2^-24 * 64 roundings at most
    CHECK(std::fabs(static_cast<double>(scores[test::size(t)]) - sum) < 1e-3);
    float const one = scheme.score(shape, prepared.data(), section.data(), t);
    CHECK(std::fabs(static_cast<double>(one) - sum) < 1e-3);
  }
}

TEST_CASE("pruned caches are saved, restored, appended in any chunks and truncated", "[think][save]") {
  auto list = spread_channels(2, 64, 40);
  channel_list const keep{list.data(), 2, 40};
  auto const rows = test::random_layer(5, 2, 150, 64, 3, 4);
  auto const scheme = schemes::think_ott<2, 32>(keep);
  auto const cache = test::filled(scheme, rows, 32);
  auto const file = test::saved(cache);
  auto chunked = test::made(scheme, 2, {64, 32});
  for (std::int64_t t = 0; t < 150; t += 7)
    test::append(chunked, rows, t, std::min<std::int64_t>(t + 7, 150));
  CHECK(test::saved(chunked) == file);
  kv_cache<schemes::think_ott_type<2, 32>> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  auto changed = list;  // another channel in one head: other bytes, so the file is refused
  REQUIRE(changed[41] == 2);
  changed[41] = 1;
  auto const foreign = schemes::think_ott<2, 32>({changed.data(), 2, 40});
  CHECK(restore(std::span<std::byte const>{file}, foreign, other) == status::scheme_mismatch);

  auto plain = schemes::think(keep);  // row-independent: any token can go
  auto longer = test::filled(plain, rows, 32);
  REQUIRE(longer.truncate(75) == status::ok);
  auto shorter = test::made(plain, 2, {64, 32});
  test::append(shorter, rows, 0, 107);
  REQUIRE(shorter.truncate(75) == status::ok);
  CHECK(test::saved(longer) == test::saved(shorter));
}

TEST_CASE("tracers see every channel under its own number", "[think][trace]") {
  struct all {
    std::vector<int> seen = std::vector<int>(16, 0);
    std::vector<float> x_hat = std::vector<float>(16, -1.0f);
    int rows = 0, width = 0;
    void on_element(element_coordinate c, float, float x) {
      ++seen[test::size(c.dim)];
      x_hat[test::size(c.dim)] = x;
    }
    void on_row(side, int, std::int64_t, float const*, int w) {
      ++rows;
      width = w;
    }
  } tracer;
  std::vector<std::uint16_t> const list{2, 3, 5, 7, 11, 13, 14, 15};
  auto const scheme = schemes::think({list.data(), 1, 8}).key;
  std::vector<float> row;
  for (int d = 0; d < 16; ++d)
    row.push_back(static_cast<float>(d + 1));
  std::vector<std::byte> section(test::size(scheme.section_bytes(side::key, {16, 32})));
  std::byte* p = section.data();
  scheme.encode(side::key, {16, 32}, {row.data(), nullptr, &p, 1, 1, 0, 0}, tracer);
  CHECK(tracer.rows == 1);
  CHECK(tracer.width == 16);
  for (std::size_t d = 0; d < 16; ++d) {
    bool const kept = std::find(list.begin(), list.end(), d) != list.end();
    CHECK(tracer.seen[d] == 1);
    CHECK(tracer.x_hat[d] == (kept ? static_cast<float>(d + 1) : 0.0f));
  }
}

TEST_CASE("constants, zeros and NaN in kept and in pruned channels", "[think][edges]") {
  std::vector<std::uint16_t> const list{0, 2, 4, 6, 8, 10, 12, 14};
  auto const key = schemes::think_kivi<2, 32>({list.data(), 1, 8}).key;
  tile_shape const shape{16, 32};
  std::vector<float> rows(32 * 16, 0.0f);
  for (std::size_t t = 0; t < 32; ++t) {
    rows[t * 16 + 2] = -5.0f;   // a constant
    rows[t * 16 + 4] = 1e-41f;  // a denormal
  }
  rows[5 * 16 + 3] = std::numeric_limits<float>::quiet_NaN();  // pruned
  rows[6 * 16 + 8] = std::numeric_limits<float>::infinity();   // kept
  std::vector<std::byte> section(test::size(key.section_bytes(side::key, shape)));
  std::byte* p = section.data();
  null_tracer none;
  key.encode(side::key, shape, {rows.data(), nullptr, &p, 1, 32, 0, 0}, none);
  std::vector<float> row(16);
  for (int t = 0; t < 32; ++t) {
    key.decode_row(side::key, shape, 0, section.data(), t, row.data());
    for (std::size_t d = 0; d < 16; ++d)
      CHECK((d == 8 ? std::isnan(row[d]) : row[d] == (d == 2 ? -5.0f : 0.0f)));
  }
}

TEST_CASE("ThinK's choice beats random and key magnitude where queries differ from keys", "[think][claim]") {
  // Channels with large keys have small queries: the product decides.
  int const dim = 64;
  auto rows = test::random_layer(21, 2, 256, dim);
  auto q = test::random_queries(4, 4, 64, dim);
  for (std::size_t i = 0; i < rows.keys.size(); ++i)
    rows.keys[i] = test::half(static_cast<double>(rows.keys[i]) * std::exp2(static_cast<double>(i % 64 % 4)));
  for (std::size_t i = 0; i < q.size(); ++i)
    q[i] *= static_cast<float>(std::exp2(-1.7 * static_cast<double>(i % 64 % 4)) * (i % 64 < 40 ? 1.0 : 0.1));
  auto const by_think = scores_of(q, 4, 64, rows, 256);
  std::vector<float> const ones(test::size(2 * dim), 1.0f);
  auto const by_keys = scores_of(ones, 2, 1, rows, 256);
  auto const e = compare_choices(rows, by_think, by_keys, q, 4, 64, think_kept(dim, 0.4));
  CAPTURE(e.think, e.keys, e.random);
  CHECK(e.think < 0.5 * e.keys);
  CHECK(e.think < 0.5 * e.random);
}

TEST_CASE("recorded keys and queries: 40 % pruned by ThinK hurts least", "[think][claim][real]") {
  auto const path = test::real_data("books16m_frankenstein_1024.safetensors");
  if (!path) {
    KVCRUMB_TEST_SKIP("skipped: no recorded data, books16m_frankenstein_1024.safetensors");
  }
  // Chosen from the first 512 tokens, judged by the last 32 queries over all 1,024.
  choice_errors sum;
  for (int layer = 0; layer < 6; layer += 2) {
    test::layer_rows rows{2, 1024, 128, test::recorded_tensor(*path, "k", layer, 2 * 1024 * 128),
                          test::recorded_tensor(*path, "v", layer, 2 * 1024 * 128)};
    auto const all = test::recorded_tensor(*path, "q", layer, 4 * 1024 * 128);
    std::vector<float> early, late;
    for (int h = 0; h < 4; ++h) {
      auto const head = all.begin() + h * 1024 * 128;
      early.insert(early.end(), head, head + 512 * 128);
      late.insert(late.end(), head + 992 * 128, head + 1024 * 128);
    }
    std::vector<float> const ones(2 * 128, 1.0f);
    auto const e = compare_choices(rows, scores_of(early, 4, 512, rows, 512),
                                   scores_of(ones, 2, 1, rows, 512), late, 4, 32, think_kept(128, 0.4));
    CAPTURE(layer, e.think, e.keys, e.random);
    CHECK(e.think < e.random);
    sum.think += e.think / 3.0;
    sum.keys += e.keys / 3.0;
    sum.random += e.random / 3.0;
  }
  CAPTURE(sum.think, sum.keys, sum.random);
  CHECK(sum.think < 0.97 * sum.keys);
  CHECK(sum.think < 0.9 * sum.random);
}
