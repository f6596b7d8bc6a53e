// SPDX-License-Identifier: Apache-2.0
//! @file The waist: a key scheme that can only score (no decoding, no tile hooks) works in cache, file and
//! attention.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! A sketch: the signs of the key and its mean magnitude; score = magnitude * <q, sign>.
struct sign_sketch {
  static constexpr int append_tokens = 1;

  status supports(side, tile_shape shape, int) const noexcept { return check_shape(shape); }
  std::int64_t section_bytes(side, tile_shape shape) const noexcept {
    return shape.tile_tokens * token_bytes(shape);
  }
  std::uint64_t state_id(int, int) const noexcept { return 0; }
  void describe(description& d) const noexcept { d << "sign_sketch"; }

  template <class Tracer>
  void encode(side, tile_shape shape, encode_request const& r, Tracer&) const noexcept {
    for (int head = 0; head < r.heads; ++head) {
      for (int i = 0; i < r.count; ++i) {
        std::byte* at = r.sections[head] + (r.slot + i) * token_bytes(shape);
        float const* row = r.rows + (static_cast<std::int64_t>(head) * r.count + i) * shape.head_dim;
        float sum = 0.0f;
        for (int d = 0; d < shape.head_dim; ++d) {
          sum += std::fabs(row[d]);
          if (row[d] < 0.0f) at[4 + d / 8] |= std::byte{1} << (d % 8);
        }
        sum /= static_cast<float>(shape.head_dim);
        std::memcpy(at, &sum, 4);
      }
    }
  }
  void clear(side, tile_shape shape, int slot, int count, std::byte* section) const noexcept {
    std::memset(section + slot * token_bytes(shape), 0, test::size(count * token_bytes(shape)));
  }
  static constexpr std::int64_t query_floats(int head_dim) noexcept { return head_dim; }
  void prepare_query(int, int head_dim, float const* q, float* prepared) const noexcept {
    std::copy(q, q + head_dim, prepared);
  }
  float score(tile_shape shape, float const* q, std::byte const* section, int slot) const noexcept {
    std::byte const* at = section + slot * token_bytes(shape);
    float magnitude = 0.0f, sum = 0.0f;
    std::memcpy(&magnitude, at, 4);
    for (int d = 0; d < shape.head_dim; ++d) {
      sum += (at[4 + d / 8] >> (d % 8) & std::byte{1}) == std::byte{1} ? -q[d] : q[d];
    }
    return magnitude * sum;
  }
  static std::int64_t token_bytes(tile_shape shape) noexcept { return 4 + (shape.head_dim + 7) / 8; }
};

using sketch_values = composed<affine<4>, per_token<32>, hadamard<>>;
template <class Isolation>
using sketched = kv_scheme<sign_sketch, sketch_values, Isolation>;

}  // namespace

TEST_CASE("the sketch models key_scheme and nothing more", "[attention][concept]") {
  STATIC_REQUIRE(key_scheme<sign_sketch>);
  STATIC_REQUIRE_FALSE(decodable<sign_sketch>);
  STATIC_REQUIRE_FALSE(tile_hooks<sign_sketch>);
  STATIC_REQUIRE_FALSE(value_scheme<sign_sketch>);
  STATIC_REQUIRE(tile_hooks<sketch_values>);
  STATIC_REQUIRE(value_scheme<sketch_values>);
}

TEST_CASE("a sketch scores, packed values are accumulated", "[attention]") {
  std::int64_t const tokens = GENERATE(0, 1, 10, 33, 100);
  test::layer_rows const rows = test::random_layer(5, 2, tokens, 64, 0, 5);
  sketched<token_pool<>> scheme;
  scheme.flush = {4, 1};
  scheme.isolate = {.capacity = 2, .auxiliary = 3, .sinks = 1};
  auto const cache = test::filled(scheme, rows, 32);
  // The reference sees the sketch as the row magnitude * sign, and values decoded from the blobs.
  test::decoded_rows seen = test::as_doubles(rows);
  auto const view = cache.view();
  std::vector<float> value(64);
  std::int64_t in_tiles = 0;
  for (int h = 0; h < 2; ++h) {
    for (std::int64_t slot = 0; slot < view.tile_tokens; ++slot) {
      std::int64_t const tile = slot / 32, t = view.tile_first + slot;
      int const at = static_cast<int>(slot % 32);
      if (!view.valid(h, tile, at)) continue;
      ++in_tiles;
      double sum = 0.0;
      for (int d = 0; d < 64; ++d)
        sum += std::fabs(static_cast<double>(rows.key(h, t)[d]));
      scheme.value.decode_row(side::value, {64, 32}, h, view.values.section(h, tile), at, value.data());
      for (int d = 0; d < 64; ++d) {
        std::size_t const i = test::size(rows.at(h, t) + d);
        seen.keys[i] = rows.keys[i] < 0.0f ? -sum / 64.0 : sum / 64.0;
        seen.values[i] = static_cast<double>(value[test::size(d)]);
      }
    }
  }
  CHECK((in_tiles > 0) == (tokens > 9));
  attention_options options;
  options.window = GENERATE(0, 40);
  options.soft_cap = 6.0f;
  auto const q = test::random_queries(3, 4, 2, 64);
  auto const got = test::run_attention(view, q, 4, 2, options);
  REQUIRE(got.outcome == status::ok);
  auto const expected = test::expected_attention(seen, 2, 64, q, 4, 2, options);
  // the stored magnitude is a sum of 64 floats: 64 roundings more
  test::attention_bound const bound = test::bound_of(seen, 64, q, 0.0f, 8.0);
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    if (std::isinf(expected.log_sum_exp[i])) {
      CHECK(got.lse[i] == negative_infinity);
    } else {
      CHECK(std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]) <= bound.lse);
    }
  }
  double worst = 0.0;
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const e = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    worst = e <= worst ? worst : e;
  }
  CHECK(worst <= bound.output);
}

TEST_CASE("a sketch is saved, restored, truncated and refused by others", "[cache][save]") {
  test::layer_rows const rows = test::random_layer(5, 2, 80, 64);
  sketched<no_isolation> const scheme;
  auto cache = test::filled(scheme, rows, 32);
  auto const file = test::saved(cache);
  kv_cache<sketched<no_isolation>> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  kv_cache<schemes::qserve4_type<>> foreign;
  CHECK(restore(std::span<std::byte const>{file}, schemes::qserve4(), foreign) == status::scheme_mismatch);
  REQUIRE(cache.truncate(37) == status::ok);
  CHECK(test::saved(cache) == test::saved([&] {
          auto shorter = test::made(scheme, 2, {64, 32});
          test::append(shorter, rows, 0, 37);
          return shorter;
        }()));
}

TEST_CASE("the generic path equals the tile hooks", "[attention]") {
  // The same bytes once through score / accumulate and once through load_tile.
  struct unhooked : composed<affine<2>, per_channel<16>, hadamard<>> {
    void load_tile() const = delete;
    void score_tile() const = delete;
  };
  STATIC_REQUIRE_FALSE(tile_hooks<unhooked>);
  using values_type = composed<affine<2>, per_token<32>>;
  using hooked_type = composed<affine<2>, per_channel<16>, hadamard<>>;
  test::layer_rows const rows = test::random_layer(5, 2, 100, 64, 3, 4);
  kv_scheme<hooked_type, values_type, token_pool<>> fast;
  kv_scheme<unhooked, values_type, token_pool<>> slow;
  auto const a = test::filled(fast, rows, 32);
  auto const b = test::filled(slow, rows, 32);
  auto const q = test::random_queries(3, 6, 3, 64);
  auto const with_hooks = test::run_attention(a.view(), q, 6, 3),
             without = test::run_attention(b.view(), q, 6, 3);
  test::attention_bound const bound = test::bound_of(test::decode_all(a), 64, q, 0.0f, 4.0);
  for (std::size_t i = 0; i < with_hooks.output.size(); ++i) {
    CHECK(std::fabs(static_cast<double>(with_hooks.output[i] - without.output[i])) <= bound.output);
  }
}
