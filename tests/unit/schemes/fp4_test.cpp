// SPDX-License-Identifier: Apache-2.0
//! @file The 4-bit row formats NVFP4 and SAW-INT4: values, scales of the tensor, bytes, attention.
#include <limits>

#include "kvcrumb/schemes/nvfp4.hpp"
#include "kvcrumb/schemes/saw_int4.hpp"
#include "support/cache_fixture.hpp"
#include "support/real_data.hpp"
#include "support/recorded_tensor.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr tensor_scale small_form = tensor_scale::decode, large_form = tensor_scale::encode;

float largest(std::vector<float> const& x) {
  float top = 0.0f;
  for (float const v : x)
    top = std::max(top, std::fabs(v));
  return top;
}

//! One row of `rows` [tokens][head_dim] after another through one side of a scheme.
template <class Side>
std::vector<float> through(Side scheme, std::vector<float> rows, int head_dim, side which = side::key) {
  tile_shape const shape{head_dim, 32};
  std::vector<float> result(rows.size());
  null_tracer none;
  std::vector<std::byte> section(test::size(scheme.section_bytes(which, shape)));
  std::byte* p = section.data();
  for (std::size_t at = 0; at < rows.size(); at += test::size(head_dim)) {
    scheme.encode(which, shape, {rows.data() + at, nullptr, &p, 1, 1, 5, 0}, none);
    scheme.decode_row(which, shape, 0, section.data(), 5, result.data() + at);
  }
  return result;
}

template <tensor_scale Form>
auto linear_nvfp4(float global) {
  return schemes::nvfp4<Form, linear>(global, global).key;
}

//! Attention, any chunks, files and truncation of a row-independent scheme.
template <class Scheme>
void check_rows_scheme(Scheme const& scheme) {
  auto const rows = test::random_layer(5, 2, 70, 64, 3, 4);
  auto cache = test::filled(scheme, rows, 32);
  auto const q = test::random_queries(3, 6, 2, 64);
  attention_options options;
  test::check_attention_of(cache, q, 6, 2, options);
  options.window = 20;
  test::check_attention_of(cache, q, 6, 2, options);
  auto const file = test::saved(cache);
  auto chunked = test::made(scheme, 2, {64, 32});
  for (std::int64_t t = 0; t < 70; t += 9)
    test::append(chunked, rows, t, std::min<std::int64_t>(t + 9, 70));
  CHECK(test::saved(chunked) == file);
  kv_cache<Scheme> other;
  REQUIRE(restore(std::span<std::byte const>{file}, scheme, other) == status::ok);
  CHECK(test::saved(other) == file);
  REQUIRE(cache.truncate(40) == status::ok);
  auto shorter = test::made(scheme, 2, {64, 32});
  test::append(shorter, rows, 0, 40);
  CHECK(test::saved(cache) == test::saved(shorter));
}

}  // namespace

TEST_CASE("NVFP4 values are NumPy's in both forms", "[nvfp4][literature]") {
  // tests/literature/fp4_test.py computes these and compares.
  constexpr float recorded_decode[64] = {0.283926547f,
                                         -0.283926547f,
                                         -0.283926547f,
                                         -0.21294491f,
                                         0.283926547f,
                                         -0.141963273f,
                                         -0.21294491f,
                                         -0.567853093f,
                                         -0.0f,
                                         -0.85177964f,
                                         0.567853093f,
                                         0.85177964f,
                                         -0.85177964f,
                                         0.85177964f,
                                         0.42588982f,
                                         0.0f,
                                         0.015356604f,
                                         -0.00255943392f,
                                         -0.0102377357f,
                                         0.007678302f,
                                         -0.00255943392f,
                                         -0.003839151f,
                                         0.015356604f,
                                         -0.0102377357f,
                                         -0.007678302f,
                                         0.003839151f,
                                         -0.0102377357f,
                                         0.015356604f,
                                         0.00127971696f,
                                         0.00511886785f,
                                         -0.007678302f,
                                         0.00255943392f,
                                         -1.5725162f,
                                         -9.43509674f,
                                         12.5801296f,
                                         12.5801296f,
                                         -4.71754837f,
                                         -18.8701935f,
                                         -6.29006481f,
                                         -9.43509674f,
                                         -18.8701935f,
                                         9.43509674f,
                                         -18.8701935f,
                                         -1.5725162f,
                                         12.5801296f,
                                         18.8701935f,
                                         4.71754837f,
                                         12.5801296f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f};
  constexpr float recorded_encode[64] = {0.283926576f,
                                         -0.283926576f,
                                         -0.283926576f,
                                         -0.212944925f,
                                         0.283926576f,
                                         -0.141963288f,
                                         -0.212944925f,
                                         -0.567853153f,
                                         -0.0f,
                                         -0.851779699f,
                                         0.567853153f,
                                         0.851779699f,
                                         -0.851779699f,
                                         0.851779699f,
                                         0.42588985f,
                                         0.0f,
                                         0.0153566049f,
                                         -0.00255943416f,
                                         -0.0102377366f,
                                         0.00767830247f,
                                         -0.00255943416f,
                                         -0.00383915124f,
                                         0.0153566049f,
                                         -0.0102377366f,
                                         -0.00767830247f,
                                         0.00383915124f,
                                         -0.0102377366f,
                                         0.0153566049f,
                                         0.00127971708f,
                                         0.00511886831f,
                                         -0.00767830247f,
                                         0.00255943416f,
                                         -1.57251644f,
                                         -9.43509865f,
                                         12.5801315f,
                                         12.5801315f,
                                         -4.71754932f,
                                         -18.8701973f,
                                         -6.29006577f,
                                         -9.43509865f,
                                         -18.8701973f,
                                         9.43509865f,
                                         -18.8701973f,
                                         -1.57251644f,
                                         12.5801315f,
                                         18.8701973f,
                                         4.71754932f,
                                         12.5801315f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f,
                                         0.0f};
  auto x = test::shared_numbers(9, 64);
  for (std::size_t i = 16; i < 64; ++i)
    x[i] *= i < 32 ? 1.0f / 64.0f : i < 48 ? 20.0f : 0.0f;
  float const top = largest(x);
  auto const decode = through(linear_nvfp4<small_form>(schemes::nvfp4_scale<small_form>(top)), x, 64);
  auto const encode = through(linear_nvfp4<large_form>(schemes::nvfp4_scale<large_form>(top)), x, 64);
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(decode[i] == recorded_decode[i]);
    CHECK(encode[i] == recorded_encode[i]);
  }
}

TEST_CASE("E2M1 ties, saturation and scales of a group", "[nvfp4]") {
  // The largest value is 6, so the scale is 1; ties go to the even mantissa.
  std::vector<float> const x{0.25f,  0.75f,  1.25f,  1.75f,  2.5f,  3.5f,  5.0f,  6.0f,
                             -0.25f, -0.75f, -1.25f, -1.75f, -2.5f, -3.5f, -5.0f, 0.26f};
  std::vector<float> const expected{0.0f, 1.0f,  1.0f,  2.0f,  2.0f,  4.0f,  4.0f,  6.0f,
                                    0.0f, -1.0f, -1.0f, -2.0f, -2.0f, -4.0f, -4.0f, 0.5f};
  CHECK(through(linear_nvfp4<small_form>(1.0f), x, 16) == expected);
  // 16 * 6 * 448 is beyond the largest scale: 448 * 6 is all there is.
  CHECK(through(linear_nvfp4<small_form>(1.0f), std::vector<float>(16, 43008.0f), 16)[0] == 2688.0f);
  CHECK(through(linear_nvfp4<small_form>(16.0f), std::vector<float>(16, 43008.0f), 16)[0] == 43008.0f);
  // Below half the smallest scale 2^-9 a group is zero, unless the tensor has a scale.
  CHECK(through(linear_nvfp4<small_form>(1.0f), std::vector<float>(16, 0.005f), 16)[0] == 0.0f);
  CHECK(through(linear_nvfp4<large_form>(1024.0f), std::vector<float>(16, 0.005859375f), 16)[0] ==
        0.005859375f);
}

TEST_CASE("both forms of the tensor's scale mean the same values", "[nvfp4]") {
  auto const layer = test::random_layer(5, 1, 64, 64, 4);
  // Inverses of each other exactly: equal to the bit.
  for (float const large : {1.0f, 64.0f, 0.25f}) {
    CHECK(test::same_bits(through(linear_nvfp4<small_form>(1.0f / large), layer.keys, 64),
                          through(linear_nvfp4<large_form>(large), layer.keys, 64)));
  }
  // Else up to the roundings of the two quotients (3 of 2^-24 each), where they do not decide a tie.
  float const top = largest(layer.keys);
  float const small = schemes::nvfp4_scale<small_form>(top), large = schemes::nvfp4_scale<large_form>(top);
  CHECK(small == top / 448.0f);
  CHECK(large == 448.0f / top);
  auto const a = through(linear_nvfp4<small_form>(small), layer.keys, 64),
             b = through(linear_nvfp4<large_form>(large), layer.keys, 64);
  int differ = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    differ += std::fabs(a[i] - b[i]) <= std::fabs(a[i]) * 0x1p-21f ? 0 : 1;
  CHECK(differ <= 4);
}

TEST_CASE("the tensor's scale is checked and saved", "[nvfp4][save]") {
  float const infinity = std::numeric_limits<float>::infinity();
  for (float const bad : {0.0f, -1.0f, infinity, std::nanf(""), 1e-42f}) {
    CHECK(schemes::nvfp4(bad, 1.0f).supports({64, 32}, 1) == status::out_of_range);
    CHECK(schemes::nvfp4(1.0f, bad).supports({64, 32}, 1) == status::out_of_range);
  }
  CHECK(schemes::nvfp4(0.1f, 0.2f).supports({64, 32}, 1) == status::ok);
  CHECK(schemes::nvfp4(0.1f, 0.2f).supports({72, 32}, 1) == status::bad_head_dim);
  CHECK(schemes::nvfp4_scale(0.0f) == 1.0f);
  CHECK(schemes::nvfp4_scale(infinity) == 1.0f);
  auto const rows = test::random_layer(5, 2, 40, 64);
  auto const file = test::saved(test::filled(schemes::nvfp4(0.5f, 0.25f), rows, 32));
  kv_cache<schemes::nvfp4_type<>> same;
  CHECK(restore(std::span<std::byte const>{file}, schemes::nvfp4(0.5f, 0.5f), same) ==
        status::scheme_mismatch);
  CHECK(restore(std::span<std::byte const>{file}, schemes::nvfp4(0.5f, 0.25f), same) == status::ok);
  kv_cache<schemes::nvfp4_type<large_form>> other;
  CHECK(restore(std::span<std::byte const>{file}, schemes::nvfp4<large_form>(0.5f, 0.25f), other) ==
        status::scheme_mismatch);
}

TEST_CASE("bits are 4.5 and 4 + 32 / head_dim", "[nvfp4][saw_int4]") {
  auto const rows = test::random_layer(5, 2, 128, 128);
  auto nvfp4 = test::made(schemes::nvfp4(), 2, {128, 128}, 16);
  test::append(nvfp4, rows, 0, 128);
  CHECK(nvfp4.bits_per_value() == 4.5 + 1.0 / 256);  // published: 0.5625 bytes; and one validity bit per slot
  auto saw = test::made(schemes::saw_int4(), 2, {128, 128}, 16);
  test::append(saw, rows, 0, 128);
  CHECK(saw.bits_per_value() == 4.25 + 1.0 / 256);  // published: 4.25
}

TEST_CASE("caches of 4-bit rows: attention, chunks, files, truncation", "[nvfp4][saw_int4][attention]") {
  SECTION("nvfp4, multiplied when decoding") { check_rows_scheme(schemes::nvfp4(0.02f, 0.01f)); }
  SECTION("nvfp4, multiplied when encoding") {
    check_rows_scheme(schemes::nvfp4<large_form, linear>(50.0f, 120.0f));
  }
  SECTION("saw_int4") { check_rows_scheme(schemes::saw_int4()); }
  SECTION("saw_int4, blocks of 16") { check_rows_scheme(schemes::saw_int4<16>()); }
}

TEST_CASE("constant, zero, tiny and damaged rows", "[nvfp4][saw_int4][edges]") {
  auto const nvfp4 = linear_nvfp4<small_form>(0.01f);
  auto const saw = schemes::saw_int4<1024, linear>();
  std::vector<float> rows(64, 0.0f);
  CHECK(through(nvfp4, rows, 64) == rows);
  CHECK(through(saw.key, rows, 64) == rows);
  for (float const constant : {3.0f, -3.0f}) {
    rows.assign(64, constant);
    for (float const x : through(nvfp4, rows, 64))
      CHECK(std::fabs(x - constant) <= 3.0f / 16.0f);  // an e4m3 scale is off by up to 1/16
    CHECK(through(saw.value, rows, 64, side::value) == rows);
    // One coefficient of the rotated row is +-24, the others are 0. The scale is rounded up by up to 2^-10,
    // so codes 15 are off by up to 15 * 2^-10, and 64 / 8 of that come together in one channel.
    for (float const x : through(saw.key, rows, 64))
      CHECK(std::fabs(x - constant) <= 0.12f);
  }
  rows.assign(64, 1e-41f);
  for (float const x : through(nvfp4, rows, 64))
    CHECK(x == 0.0f);
  rows.assign(64, 1.0f);
  rows[20] = std::numeric_limits<float>::infinity();
  auto const damaged = through(nvfp4, rows, 64);
  for (std::size_t d = 0; d < 64; ++d)  // the group of channel 20 and no other
    CHECK(std::isnan(damaged[d]) == (d / 16 == 1));
  for (float const x : through(saw.value, rows, 64, side::value))
    CHECK(std::isnan(x));
}

TEST_CASE("SAW-INT4 rotates keys in blocks and leaves values alone", "[saw_int4]") {
  // A spike of one channel: rotated, its block decodes to small errors everywhere; unrotated, others lose
  // all.
  std::vector<float> row(64, 0.0f);
  for (std::size_t d = 0; d < 64; ++d)
    row[d] = static_cast<float>(d % 5) / 10.0f;
  row[21] = 12.0f;
  auto const scheme = schemes::saw_int4<16, linear>();
  auto const key = through(scheme.key, row, 64), value = through(scheme.value, row, 64, side::value);
  auto const reference = through(composed<affine<4>, per_row, identity, linear>{}, row, 64, side::value);
  CHECK(value == reference);
  CHECK(key != reference);
  CHECK(test::relative_error(row, key) < test::relative_error(row, value));
  // Blocks of 16: the rotation does not reach channel 40 of another block, so its sign structure is that of
  // its own block only. Queries of a block see only its keys.
  std::vector<float> prepared(65), q(64, 0.0f);
  q[21] = 1.0f;
  scheme.key.prepare_query(0, 64, q.data(), prepared.data());
  for (std::size_t d = 0; d < 64; ++d)
    CHECK(std::fabs(prepared[d]) == (d / 16 == 1 ? 0.25f : 0.0f));
}

TEST_CASE("recorded keys: rotation and the tensor's scale pay", "[nvfp4][saw_int4][claim][real]") {
  auto const path = test::real_data("qwen2.5-14b_layer0_220.safetensors");
  if (!path) {
    KVCRUMB_TEST_SKIP("skipped: no recorded data, qwen2.5-14b_layer0_220.safetensors");
  }
  std::vector<float> const keys = test::recorded_tensor(*path, "k");
  double const plain = test::relative_error(keys, through(composed<affine<4>, per_row>{}, keys, 128)),
               saw = test::relative_error(keys, through(schemes::saw_int4().key, keys, 128)),
               fp4 = test::relative_error(
                   keys, through(schemes::nvfp4(schemes::nvfp4_scale(largest(keys))).key, keys, 128)),
               unscaled = test::relative_error(keys, through(schemes::nvfp4().key, keys, 128));
  CAPTURE(plain, saw, fp4, unscaled);
  CHECK(saw < 0.7 * plain);
  CHECK(fp4 < 0.7 * plain);
  CHECK(fp4 < 1.02 * unscaled);
}
