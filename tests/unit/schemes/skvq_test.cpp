// SPDX-License-Identifier: Apache-2.0
//! @file SKVQ: bytes against an independent NumPy computation, attention, calibration and what the paper
//! claims of it.
#include <array>
#include <limits>
#include <numeric>
#include <optional>

#include "kvcrumb/calibrate/skvq.hpp"
#include "kvcrumb/schemes/skvq.hpp"
#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using crumbs = clipped_groups<3>;
using trits = clipped_groups<2>;
using skvq2_type = schemes::skvq_type<3, 3>;

//! The plan of tests/literature/skvq_test.py: 2 heads, 40 channels, 3 groups.
struct literature_plan {
  std::vector<std::uint16_t> order;
  std::array<std::uint16_t, 6> ends{9, 22, 40, 5, 30, 40};
  std::array<float, 6> clip{1.0f, 0.75f, 0.5f, 0.875f, 0.625f, 1.0f};
  literature_plan() {
    for (unsigned p = 0; p < 40; ++p)
      order.push_back(static_cast<std::uint16_t>((7 * p + 3) % 40));
    for (unsigned p = 0; p < 40; ++p)
      order.push_back(static_cast<std::uint16_t>((11 * p + 5) % 40));
  }
  channel_plan plan() const { return {2, 40, 3, order.data(), ends.data(), clip.data()}; }
};

//! Its rows: [head][token][dim], exact in binary32.
std::vector<float> literature_rows() {
  std::vector<float> rows;
  std::uint32_t state = 12345;
  for (int i = 0; i < 2 * 32 * 40; ++i) {
    state = state * 1664525u + 1013904223u;
    int const d = i % 40;
    float const x = static_cast<float>(static_cast<int>(state >> 16) - 32768) / 8192.0f;
    rows.push_back(x * static_cast<float>(1 << d % 4) + (d % 8 == 1 ? 4.5f : 0.0f));
  }
  return rows;
}

//! A 32-token section of every head, encoded `count` tokens at a time.
template <class Scheme>
std::vector<std::vector<std::byte>> encoded(Scheme const& scheme, std::vector<float> const& rows, int heads,
                                            int dim, int count, std::uint8_t const* isolated = nullptr) {
  tile_shape const shape{dim, 32};
  std::vector<std::vector<std::byte>> sections(
      test::size(heads), std::vector<std::byte>(test::size(scheme.section_bytes(side::key, shape))));
  std::vector<std::byte*> at;
  for (auto& s : sections)
    at.push_back(s.data());
  for (int slot = 0; slot < 32; slot += count) {
    std::vector<float> part;
    std::vector<std::uint8_t> flags;
    for (int h = 0; h < heads; ++h) {
      auto const first = rows.begin() + (h * 32 + slot) * dim;
      part.insert(part.end(), first, first + count * dim);
      if (isolated != nullptr)
        flags.insert(flags.end(), isolated + h * 32 + slot, isolated + h * 32 + slot + count);
    }
    null_tracer t;
    scheme.encode(side::key, shape,
                  {part.data(), isolated != nullptr ? flags.data() : nullptr, at.data(), heads, count, slot},
                  t);
  }
  return sections;
}

//! A plan for every head of random layers: a permutation and groups of unequal length.
struct ragged {
  std::vector<std::uint16_t> order, ends;
  std::vector<float> clip;
  channel_plan plan;
  ragged(int heads, int dim) {
    for (int h = 0; h < heads; ++h) {
      for (int p = 0; p < dim; ++p)
        order.push_back(static_cast<std::uint16_t>((p * (h + 1 == dim ? 1 : 2 * h + 1) + 3 * h + 1) % dim));
      for (int const e : {dim / 8 + h, dim / 2, dim})
        ends.push_back(static_cast<std::uint16_t>(e));
      clip.insert(clip.end(), {0.75f, 0.875f, 0.9375f});
    }
    plan = {heads, dim, 3, order.data(), ends.data(), clip.data()};
  }
};

double squares(std::vector<float> const& exact, std::vector<double> const& seen) {
  double e = 0.0, n = 0.0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double const x = static_cast<double>(exact[i]);
    e += (x - seen[i]) * (x - seen[i]);
    n += x * x;
  }
  return e / n;
}

struct figures {
  double keys = 0.0, values = 0.0;  //!< squared error relative to the squares
};

//! Errors of the packed rows after calibration on the same rows; nothing is left exact.
template <class Scheme = skvq2_type>
figures calibrated(test::layer_rows const& rows, skvq_settings settings) {
  settings.sinks = 0;
  skvq_parameters keys, values;
  REQUIRE(calibrate_skvq<Scheme>({rows.key_rows(), rows.value_rows(), rows.heads, rows.tokens, rows.dim},
                                 settings, keys, values) == status::ok);
  kv_scheme<typename Scheme::key_type, typename Scheme::value_type> scheme;
  scheme.key.plan = keys.plan();
  scheme.value.plan = values.plan();
  test::decoded_rows const seen = test::decode_all(test::filled(scheme, rows, 128));
  return {squares(rows.keys, seen.keys), squares(rows.values, seen.values)};
}

//! F16 tensors k, v of one layer of a file whose tensors have shape [layer][head][token][dim].
std::optional<test::layer_rows> recorded_layer(char const* name, int layer, int heads, std::int64_t tokens,
                                               int dim) {
  auto const path = test::real_data(name);
  if (!path) return std::nullopt;
  std::int64_t const count = heads * tokens * dim;
  return test::layer_rows{heads, tokens, dim, test::recorded_tensor(*path, "k", layer, count),
                          test::recorded_tensor(*path, "v", layer, count)};
}

}  // namespace

TEST_CASE("five base-3 digits fill a byte and leave each other alone", "[skvq][layout]") {
  STATIC_REQUIRE((ternary_bytes(0) == 0 && ternary_bytes(5) == 1 && ternary_bytes(6) == 2));
  std::vector<std::byte> stream(5, std::byte{0});
  std::vector<unsigned> digits(23, 0u);
  std::mt19937 engine{1};
  for (int i = 0; i < 2000; ++i) {
    std::size_t const at = engine() % 23;
    digits[at] = static_cast<unsigned>(engine() % 3);
    store_ternary(stream.data(), static_cast<std::int64_t>(at), digits[at]);
    bool same = true;
    for (std::size_t d = 0; d < 23; ++d)
      same = same && load_ternary(stream.data(), static_cast<std::int64_t>(d)) == digits[d];
    REQUIRE(same);
    REQUIRE(std::all_of(stream.begin(), stream.end(), [](std::byte b) { return b < std::byte{243}; }));
  }
  std::byte const highest{255};
  for (int i = 0; i < 5; ++i)
    CHECK(load_ternary(&highest, i) < 3u);
}

TEST_CASE("sections are those of an independent NumPy computation", "[skvq][literature]") {
  // levels 3 stored, 3 unrounded, 2 stored, 2 unrounded; two heads each: tests/literature/skvq_test.py
  constexpr std::uint32_t recorded[] = {0x7a4e24bb, 0xbacfa950, 0xa56506f9, 0x3896b8e2,
                                        0x482b3b9e, 0x33ff0ba6, 0x15d230ad, 0xfa965002};
  literature_plan const p;
  std::vector<float> const rows = literature_rows();
  std::vector<std::uint32_t> got;
  auto const add = [&](auto scheme) {
    scheme.plan = p.plan();
    for (auto const& s : encoded(scheme, rows, 2, 40, 32))
      got.push_back(crc32(s));
  };
  add(clipped_groups<3>{});
  add(clipped_groups<3, code_basis::unrounded>{});
  add(clipped_groups<2>{});
  add(clipped_groups<2, code_basis::unrounded>{});
  CHECK(got == std::vector<std::uint32_t>(std::begin(recorded), std::end(recorded)));
}

TEST_CASE("SKVQ has the bits of its formula", "[skvq][bytes]") {
  // 128 x 128 values: 2 bits or 1.6 bits of codes (rounded up to a byte), two bytes for each group of a
  // token, and two bytes for the end of each group but the last.
  tile_shape const shape{128, 128};
  CHECK(crumbs{}.section_bytes(side::key, shape) == 128 * (32 + 2));  // 2.125 bits: published
  CHECK(trits{}.section_bytes(side::value, shape) == (128 * 128 + 4) / 5 + 128 * 2);
  CHECK(crumbs{.group = 32}.section_bytes(side::key, shape) == 128 * (32 + 2 * 4) + 2 * 3);
  CHECK(clipped_groups<7>{.group = 32}.section_bytes(side::key, shape) == 128 * (48 + 2 * 4) + 2 * 3);
  CHECK(clipped_groups<15>{}.section_bytes(side::key, {80, 32}) == 32 * (40 + 2));
  CHECK(trits{.group = 80}.section_bytes(side::value, {80, 64}) * 5 == 8 * 64 * 80 / 8 + 64 * 2 * 5);  // 8/5
  CHECK(trits{.group = 80}.section_bytes(side::value, {79, 32}) == (79 * 32 + 4) / 5 + 64);

  test::layer_rows const rows = test::random_layer(1, 2, 5 + 2 * 128 + 128, 128);
  auto const blob = [](std::int64_t key, std::int64_t value) {
    return align_up(align_up(align_up(key, 16) + value, 16) + 128 / 8, 64);
  };
  std::int64_t const exact = std::int64_t{5 + 128} * 2 * 2 * 128 * 2;
  auto const two = test::filled(schemes::skvq2(), rows, 128);
  CHECK(two.sink_tokens() == 5);
  CHECK(two.tail_tokens() == 128);
  CHECK(two.bytes_used() == exact + 4 * blob(4352, 4352));
  CHECK(test::filled(schemes::skvq_k2v15(), rows, 128).bytes_used() == exact + 4 * blob(4352, 3533));
}

TEST_CASE("attention over packed SKVQ rows is that over decoded ones", "[skvq][attention]") {
  int const dim = GENERATE(64, 80);
  std::int64_t const tokens = GENERATE(3, 37, 140);
  test::layer_rows const rows = test::random_layer(5, 2, tokens, dim, 2);
  ragged const a(2, dim), b(2, dim);
  auto scheme = schemes::skvq_k2v15(a.plan, b.plan);
  scheme.flush = {8, 1};
  auto const cache = test::filled(scheme, rows, 32);
  CHECK(cache.tile_slots() == std::max<std::int64_t>(tokens - 13, 0));
  auto const q = test::random_queries(3, 6, 3, dim);
  attention_options options;
  test::check_attention_of(cache, q, 6, 3, options);
  options.window = 20;
  options.soft_cap = 5.0f;
  test::check_attention_of(cache, q, 6, 3, options);
}

TEST_CASE("slots and whole tiles of SKVQ give the same scores and sums", "[skvq][attention]") {
  literature_plan const p;
  trits scheme;
  scheme.plan = p.plan();
  tile_shape const shape{40, 32};
  auto const sections = encoded(scheme, literature_rows(), 2, 40, 32);
  for (int head = 0; head < 2; ++head) {
    std::byte const* section = sections[test::size(head)].data();
    std::vector<float> work(test::size(scheme.tile_floats(side::key, shape))), q(40), prepared(40), row(40);
    std::vector<float> scores(32), weights(32), slow(40, 0.0f), fast(40, 0.0f);
    std::vector<double> expected(40, 0.0);
    std::iota(q.begin(), q.end(), -20.0f);
    scheme.prepare_query(head, 40, q.data(), prepared.data());
    scheme.load_tile(side::key, shape, section, work.data());
    scheme.score_tile(shape, work.data(), prepared.data(), scores.data());
    for (int t = 0; t < 32; ++t) {
      scheme.decode_row(side::key, shape, head, section, t, row.data());
      double sum = 0.0, size = 0.0;
      weights[test::size(t)] = t % 3 == 0 ? 0.0f : 0.25f * static_cast<float>(t);
      for (std::size_t d = 0; d < 40; ++d) {
        sum += static_cast<double>(q[d]) * static_cast<double>(row[d]);
        size += std::fabs(static_cast<double>(q[d]) * static_cast<double>(row[d]));
        expected[d] += static_cast<double>(weights[test::size(t)]) * static_cast<double>(row[d]);
      }
      CHECK(std::fabs(static_cast<double>(scores[test::size(t)]) - sum) <= 40 * 0x1p-24 * size);
      CHECK(std::fabs(static_cast<double>(scheme.score(shape, prepared.data(), section, t)) - sum) <=
            40 * 0x1p-24 * size);
      scheme.accumulate(shape, weights[test::size(t)], section, t, slow.data());
    }
    scheme.accumulate_tile(shape, work.data(), weights.data(), fast.data());
    CHECK(test::same_bits(slow, fast));
    scheme.finish(head, 40, fast.data(), 1.0f);
    double worst = 0.0;
    for (std::size_t d = 0; d < 40; ++d)
      worst = std::max(worst, std::fabs(static_cast<double>(fast[d]) - expected[d]));
    CHECK(worst <= 1e-3);  // sums of up to 124 * 36
  }
}

TEST_CASE("SKVQ is appended in any pieces, truncated, rewritten, saved and restored", "[skvq][cache]") {
  test::layer_rows const rows = test::random_layer(9, 2, 90, 64, 3);
  ragged const a(2, 64), b(2, 64);
  auto scheme = schemes::skvq_k2v15(a.plan, b.plan);
  scheme.flush = {16, 1};
  auto cache = test::filled(scheme, rows, 32);
  auto pieces = test::made(scheme, 2, {64, 32});
  for (std::int64_t at = 0, n = 1; at < 90; at += n, n = std::min<std::int64_t>(n + 3, 90 - at))
    test::append(pieces, rows, at, at + n);
  auto const file = test::saved(cache);
  CHECK(test::saved(pieces) == file);

  decltype(cache) other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  ragged foreign(2, 64);
  foreign.clip[4] = 0.5f;
  scheme.value.plan = foreign.plan;
  CHECK(restore(std::span<std::byte const>{file}, scheme, other) == status::scheme_mismatch);
  foreign.clip[4] = b.clip[4];
  std::swap(foreign.order[70], foreign.order[71]);
  CHECK(restore(std::span<std::byte const>{file}, scheme, other) == status::scheme_mismatch);
  scheme.value.plan = {};
  CHECK(restore(std::span<std::byte const>{file}, scheme, other) == status::scheme_mismatch);
  std::swap(foreign.order[70], foreign.order[71]);
  foreign.ends[3] = static_cast<std::uint16_t>(foreign.ends[3] + 1);
  scheme.value.plan = foreign.plan;
  CHECK(restore(std::span<std::byte const>{file}, scheme, other) == status::scheme_mismatch);
  scheme.value.plan = b.plan;
  CHECK(scheme.key.state_id(2, 64) != crumbs{}.state_id(2, 64));
  CHECK(crumbs{.clip = 0.9f}.state_id(2, 64) != crumbs{}.state_id(2, 64));

  REQUIRE(cache.rewrite(20, rows.key_rows(33), rows.value_rows(33)) == status::ok);
  std::vector<float> k(64), v(64), k33(64), v33(64);
  REQUIRE(cache.read(1, 20, k.data(), v.data()) == status::ok);
  REQUIRE(cache.read(1, 33, k33.data(), v33.data()) == status::ok);
  CHECK((test::same_bits(k, k33) && test::same_bits(v, v33)));
  REQUIRE(cache.rewrite(20, rows.key_rows(20), rows.value_rows(20)) == status::ok);
  CHECK(test::saved(cache) == file);
  REQUIRE(cache.truncate(45) == status::ok);  // 40 slots: 8 of the second tile
  scheme.flush = {0, 1};
  auto fresh = test::made(scheme, 2, {64, 32});
  test::append(fresh, rows, 0, 45);
  for (int head = 0; head < 2; ++head)
    for (std::int64_t tile = 0; tile < 2; ++tile)
      CHECK(std::memcmp(cache.blob(tile, head), fresh.blob(tile, head), test::size(cache.blob_stride())) ==
            0);
}

TEST_CASE("isolated, constant, zero and broken rows of SKVQ", "[skvq][edges]") {
  literature_plan const p;
  trits scheme;
  scheme.plan = p.plan();
  tile_shape const shape{40, 32};
  std::vector<float> rows = literature_rows();
  auto const plain = encoded(scheme, rows, 2, 40, 32);
  CHECK(encoded(scheme, rows, 2, 40, 1) == plain);  // any chunks; neighbours in a byte are kept

  std::vector<std::uint8_t> isolated(64, 0);
  isolated[32 + 7] = 1;
  rows[(32 + 7) * 40 + 3] = std::nanf("");  // not looked at
  auto const without = encoded(scheme, rows, 2, 40, 32, isolated.data());
  auto cleared = plain;
  scheme.clear(side::key, shape, 7, 1, cleared[1].data());
  CHECK(without == cleared);
  CHECK(without != plain);

  std::vector<float> row(40);
  auto const seen = [&](auto const& s, int head, int t) {
    auto const sections = encoded(s, rows, 2, 40, 32);
    s.decode_row(side::key, shape, head, sections[test::size(head)].data(), t, row.data());
  };
  std::fill_n(rows.begin() + 3 * 40, 40, 1.5f);    // constant
  std::fill_n(rows.begin() + 4 * 40, 40, 0.0f);    // zero
  std::fill_n(rows.begin() + 5 * 40, 40, 1e-41f);  // denormal
  std::fill_n(rows.begin() + 6 * 40, 40, -3e37f);  // beyond e4m3
  seen(scheme, 0, 3);
  // clip * 1.5, which e4m3 holds: also the published bias of constant groups
  for (int place = 0; place < 40; ++place)
    CHECK(row[p.order[test::size(place)]] == (place < 9 ? 1.5f : place < 22 ? 1.125f : 0.75f));
  for (int const t : {4, 5}) {
    seen(scheme, 0, t);
    CHECK(std::all_of(row.begin(), row.end(), [](float x) { return float_bits(x) == 0; }));
  }
  seen(scheme, 0, 6);
  CHECK(std::all_of(row.begin(), row.end(), [](float x) { return x == -448.0f; }));
  seen(clipped_groups<3, code_basis::unrounded>{.group = 40}, 0, 6);
  CHECK(std::all_of(row.begin(), row.end(), [](float x) { return x == -448.0f; }));

  for (float const bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    rows[8 * 40 + p.order[10]] = bad;  // place 10 lies in the second group of head 0
    seen(scheme, 0, 8);
    for (int place = 0; place < 40; ++place)
      CHECK(std::isnan(row[p.order[test::size(place)]]) == (place >= 9 && place < 22));
    seen(crumbs{.group = 16}, 0, 8);
    int const group = p.order[10] / 16;
    for (int d = 0; d < 40; ++d)
      CHECK(std::isnan(row[test::size(d)]) == (d / 16 == group));
  }
  // bytes of any kind are read within bounds and give something
  for (int const fill : {0, 0x55, 0xFF}) {
    std::vector<std::byte> const any(test::size(scheme.section_bytes(side::key, shape)),
                                     static_cast<std::byte>(fill));
    scheme.decode_row(side::key, shape, 1, any.data(), 31, row.data());
    CHECK(std::isnan(row[0]) == (fill == 0xFF));
  }
}

TEST_CASE("SKVQ sees the tracer's rows and names channels", "[skvq][trace]") {
  struct collector {
    std::vector<float>& x;
    std::vector<float>& back;
    void on_element(element_coordinate c, float value, float decoded) {
      std::size_t const at = test::size((c.head * 32 + c.token) * 40 + c.dim);
      x[at] = value;
      back[at] = decoded;
    }
  };
  literature_plan const p;
  crumbs scheme;
  scheme.plan = p.plan();
  tile_shape const shape{40, 32};
  std::vector<float> rows = literature_rows(), x(rows.size()), back(rows.size()), row(40);
  auto sections = encoded(scheme, rows, 2, 40, 32);
  auto const before = sections;
  std::array<std::byte*, 2> const at{sections[0].data(), sections[1].data()};
  collector all{x, back};
  scheme.encode(side::key, shape, {rows.data(), nullptr, at.data(), 2, 32, 0}, all);
  CHECK(sections == before);
  CHECK(test::same_bits(x, literature_rows()));
  scheme.decode_row(side::key, shape, 1, at[1], 9, row.data());
  CHECK(test::same_bits(row, {back.begin() + (32 + 9) * 40, back.begin() + (32 + 10) * 40}));
}

TEST_CASE("plans and settings that make no sense are refused", "[skvq][status]") {
  literature_plan p;
  auto const answer = [&](channel_plan plan, int heads = 2, tile_shape shape = {40, 32}) {
    return trits{.plan = plan}.supports(side::value, shape, heads);
  };
  CHECK(answer(p.plan()) == status::ok);
  CHECK(answer(p.plan(), 1) == status::bad_shape);
  CHECK(answer(p.plan(), 2, {41, 32}) == status::bad_shape);
  CHECK(answer(p.plan(), 2, {40, 33}) == status::bad_tile_tokens);
  CHECK(answer({}, 0) == status::bad_shape);
  CHECK(answer({.groups = -1}) == status::bad_group);
  CHECK(answer({2, 40, 3, nullptr, p.ends.data(), p.clip.data()}) == status::null_pointer);
  CHECK(crumbs{.group = 0}.supports(side::key, {40, 32}, 2) == status::bad_group);
  for (float const clip : {0.0f, -1.0f, 1.5f, std::nanf("")})
    CHECK(crumbs{.clip = clip}.supports(side::key, {40, 32}, 2) == status::out_of_range);
  p.order[45] = p.order[46];
  CHECK(answer(p.plan()) == status::out_of_range);
  p = {};
  p.order[79] = 40;
  CHECK(answer(p.plan()) == status::out_of_range);
  p = {};
  p.ends[4] = 5;  // an empty group
  CHECK(answer(p.plan()) == status::bad_group);
  p = {};
  p.ends[5] = 39;
  CHECK(answer(p.plan()) == status::bad_group);
  p = {};
  p.clip[3] = 1.25f;
  CHECK(answer(p.plan()) == status::out_of_range);

  test::layer_rows rows = test::random_layer(2, 1, 12, 16);
  skvq_parameters k, v;
  auto const calibrate = [&](skvq_settings const& s, std::int64_t queries = 0) {
    return calibrate_skvq<skvq2_type>(
        {rows.key_rows(), rows.value_rows(), 1, 12, 16, rows.key_rows(), 1, queries}, s, k, v);
  };
  CHECK(calibrate({.groups = 0}) == status::bad_group);
  CHECK(calibrate({.groups = 17}) == status::bad_group);
  CHECK(calibrate({.clips = {0.0f, 3}}) == status::out_of_range);
  CHECK(calibrate({.clips = {0.5f, -1}}) == status::out_of_range);
  CHECK(calibrate({.restarts = 0}) == status::out_of_range);
  CHECK(calibrate({.sinks = 12}) == status::bad_shape);
  CHECK(calibrate({}, 13) == status::bad_shape);
  rows.values[20] = std::numeric_limits<float>::infinity();
  CHECK(calibrate({}) == status::not_finite);
  CHECK(k.groups == 0);
  rows.values[20] = 0.0f;
  CHECK(calibrate({.groups = 16}, 4) == status::ok);
  CHECK(k.plan().check(1, 16) == status::ok);
  rows.keys.assign(rows.keys.size(), 2.0f);  // all channels are the same: clusters must not stay empty
  CHECK(calibrate({.groups = 5}) == status::ok);
  CHECK(k.plan().check(1, 16) == status::ok);
}

TEST_CASE("clusters are the channels of equal range", "[skvq][calibrate]") {
  // Channels d % 3 == 0 are small, 1 large, 2 offset; so many of each: 22, 21, 21.
  test::layer_rows rows = test::random_layer(6, 2, 60, 64);
  for (std::size_t i = 0; i < rows.keys.size(); ++i) {
    std::size_t const kind = (i % 64 + (i < 60 * 64 ? 0 : 1)) % 3;
    rows.keys[i] = kind == 0 ? 0.25f * rows.keys[i] : kind == 1 ? 8.0f * rows.keys[i] : rows.keys[i] + 60.0f;
  }
  skvq_parameters k, v;
  REQUIRE(calibrate_skvq<skvq2_type>({rows.key_rows(), rows.value_rows(), 2, 60, 64}, {.groups = 3}, k, v) ==
          status::ok);
  REQUIRE(k.plan().check(2, 64) == status::ok);
  REQUIRE(v.plan().check(2, 64) == status::ok);
  for (int head = 0; head < 2; ++head) {
    int begin = 0;
    for (int g = 0; g < 3; ++g) {
      int const end = k.ends[test::size(head * 3 + g)];
      for (int p = begin; p < end; ++p) {
        CHECK(k.order[test::size(head * 64 + p)] % 3 == g);
        if (p > begin) CHECK(k.order[test::size(head * 64 + p)] > k.order[test::size(head * 64 + p) - 1]);
      }
      begin = end;
    }
  }
  skvq_parameters k2, v2;
  REQUIRE(calibrate_skvq<skvq2_type>({rows.key_rows(), rows.value_rows(), 2, 60, 64}, {.groups = 3}, k2,
                                     v2) == status::ok);
  CHECK((k2.order == k.order && k2.clip == k.clip && v2.ends == v.ends));
}

TEST_CASE("clipping takes a quarter of the squared error of 2-bit rows away", "[skvq][claims]") {
  // Gaussian rows, one value in 64 eight times larger.
  test::layer_rows rows = test::random_layer(11, 1, 256, 128);
  for (std::size_t i = 0; i < rows.keys.size(); i += 61)
    rows.keys[i] *= 8.0f;
  skvq_settings settings{.groups = 4, .reorder = false, .clips = {0.3f, 35}};
  figures const with = calibrated(rows, settings);
  settings.clips.steps = 0;
  figures const without = calibrated(rows, settings);
  CAPTURE(with.keys, without.keys, with.values, without.values);
  CHECK(with.keys < 0.75 * without.keys);
  CHECK(with.values < 0.75 * without.values);
  // Codes against the stored parameters are better than the published ones against unrounded parameters.
  settings.clips.steps = 35;
  figures const published = calibrated<schemes::skvq_type<3, 3, code_basis::unrounded>>(rows, settings);
  CHECK(with.values < published.values);
  CHECK(with.keys < published.keys);
}

TEST_CASE("long clipped groups come near the best uniform quantizer", "[skvq][literature]") {
  // Of a Gaussian, the best uniform quantizer leaves 0.1188 with 4 levels and 0.1902 with 3 (J. Max, IRE
  // Trans. IT-6, 1960, tables I and II). Here the range of 1,024 values, times one factor, sets the step.
  test::layer_rows const rows = test::random_layer(14, 1, 24, 1024);
  skvq_settings const settings{.groups = 1, .clips = {0.3f, 35}};
  double const four = calibrated(rows, settings).values;
  double const three = calibrated<schemes::skvq_type<2, 2>>(rows, settings).values;
  CAPTURE(four, three);
  CHECK((four > 0.117 && four < 0.135));
  CHECK((three > 0.188 && three < 0.21));
}

TEST_CASE("permuted ragged groups beat neighbouring ones on keys of mixed ranges", "[skvq][claims]") {
  test::layer_rows rows = test::random_layer(12, 2, 128, 128);
  for (std::size_t i = 0; i < rows.keys.size(); ++i)
    rows.keys[i] *= i % 128 % 5 == 0 ? 10.0f : i % 128 % 3 == 0 ? 3.0f : 0.5f;
  skvq_settings settings;
  settings.groups = 3;
  settings.clips.steps = 10;
  double const permuted = calibrated(rows, settings).keys;
  settings.reorder = false;
  double const plain = calibrated(rows, settings).keys;
  CAPTURE(permuted, plain);
  CHECK(permuted < 0.9 * plain);
}

TEST_CASE("clip factors by attention output leave the least output error", "[skvq][claims]") {
  test::layer_rows const rows = test::random_layer(13, 1, 96, 32, 2);
  auto const q = test::random_queries(4, 2, 8, 32);
  auto const exact = test::expected_attention(test::as_doubles(rows), 1, 32, q, 2, 8, {});
  skvq_settings settings{.groups = 2, .clips = {0.4f, 12}, .sinks = 0};
  skvq_recording recording{rows.key_rows(), rows.value_rows(), 1, 96, 32};
  skvq_parameters k, v;
  auto const calibrate = [&] {
    REQUIRE(calibrate_skvq<skvq2_type>(recording, settings, k, v) == status::ok);
  };
  auto const output_error = [&](bool keys_too, bool values_too) {
    kv_scheme<crumbs, crumbs> packed;
    packed.key.plan = k.plan();
    packed.value.plan = v.plan();
    test::decoded_rows seen = test::decode_all(test::filled(packed, rows, 32));
    if (!keys_too) seen.keys = test::as_doubles(rows).keys;
    if (!values_too) seen.values = test::as_doubles(rows).values;
    auto const got = test::expected_attention(seen, 1, 32, q, 2, 8, {});
    double sum = 0.0;
    for (std::size_t i = 0; i < exact.output.size(); ++i)
      sum += (exact.output[i] - got.output[i]) * (exact.output[i] - got.output[i]);
    return sum;
  };
  calibrate();
  double const values_by_rows = output_error(false, true), keys_by_rows = output_error(true, false);
  settings.clips.steps = 0;
  calibrate();
  double const unclipped = output_error(true, true);
  settings.clips.steps = 12;
  recording.q = {q.data(), 8 * 32, 32};
  recording.query_heads = 2;
  recording.queries = 8;
  calibrate();
  double const values_error = output_error(false, true), keys_error = output_error(true, false);
  CAPTURE(values_by_rows, keys_by_rows, unclipped);
  // Each side starts from its row search and is only ever improved on what is measured here.
  CHECK(values_error < values_by_rows);
  CHECK(keys_error < keys_by_rows);
  CHECK(output_error(true, true) < 0.75 * unclipped);
  // The group searched last, with the others as they are; of values any group.
  std::vector<float> const best_v = v.clip;
  for (int i = 0; i <= 12; ++i) {
    k.clip[1] = settings.clips.at(i);
    CHECK(output_error(true, false) >= keys_error * (1.0 - 1e-9));
    for (std::size_t g = 0; g < 2; ++g) {
      v.clip = best_v;
      v.clip[g] = settings.clips.at(i);
      CHECK(output_error(false, true) >= values_error * (1.0 - 1e-9));
    }
  }
}

TEST_CASE("clip and reorder help on recorded keys and values", "[skvq][claims][real]") {
  auto const rows = recorded_layer("qwen2.5-14b_layer0_220.safetensors", 0, 8, 220, 128);
  if (!rows) KVCRUMB_TEST_SKIP("skipped: no recorded data, qwen2.5-14b_layer0_220.safetensors");
  test::layer_rows const two = rows->head(2, 2);
  skvq_settings settings;
  settings.groups = 4;
  settings.clips = {0.4f, 6};
  figures const both = calibrated(two, settings);
  settings.reorder = false;
  figures const clipped = calibrated(two, settings);
  settings.clips.steps = 0;
  figures const neither = calibrated(two, settings);
  settings.reorder = true;
  figures const reordered = calibrated(two, settings);
  CAPTURE(both.keys, clipped.keys, reordered.keys, neither.keys);
  CAPTURE(both.values, clipped.values, reordered.values, neither.values);
  CHECK(both.keys < 0.5 * clipped.keys);
  CHECK(both.keys < 0.8 * reordered.keys);
  CHECK(clipped.keys < 0.8 * neither.keys);
  CHECK(reordered.keys < 0.5 * neither.keys);
  CHECK(both.values < 0.8 * clipped.values);
  CHECK(both.values < 0.8 * reordered.values);
}
