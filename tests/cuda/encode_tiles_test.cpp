// SPDX-License-Identifier: Apache-2.0
//! @file Whole sequences encoded by kernels: bytes equal the host's for every family of schemes.
#include "cuda/encode_tools.hpp"

namespace {

using namespace kvcrumb;
using namespace kvcrumb::test;

//! Both sides the same.
template <class Side>
using both = kv_scheme<Side, Side>;
//! Keys per channel over Group tokens, values per token over Group channels.
template <class Codec, int Group, class Transform = identity>
using mixed =
    kv_scheme<composed<Codec, per_channel<Group>, Transform>, composed<Codec, per_token<Group>, Transform>>;

TEST_CASE("encode: KIVI's tiles equal the host's at every length") {
  for (int const n : {1, 31, 32, 33})
    check_encode<float16, 64, 32>(schemes::kivi<2, 32>(), 2, {n, 0, 2 * n});
  for (int const n : {127, 128, 129})
    check_encode<float16, 64, 64>(schemes::kivi<4, 64>(), 1, {n});
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_encode<float16, 128, 128>(schemes::kivi<2, 128>(), 1, {300, 128});
  check_encode<float16, 96, 32>(schemes::kivi<2, 32>(), 1, {200});
  check_encode<float16, 256, 128>(schemes::kivi<2, 32>(), 1, {130});
#endif
}

TEST_CASE("encode: every width of codes, in the word order of both sides") {
  check_encode<float16, 64, 32>(mixed<affine<1>, 32>{}, 2, {70});
  check_encode<float16, 96, 32>(mixed<affine<3>, 8>{}, 1, {70});
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_encode<float16, 96, 64>(mixed<affine<1>, 32>{}, 1, {70});
  check_encode<float16, 64, 32>(mixed<affine<2>, 16>{}, 2, {70});
  check_encode<float16, 192, 64>(mixed<affine<2>, 64>{}, 1, {140});
  check_encode<float16, 64, 32>(mixed<affine<3>, 32>{}, 1, {70});
  check_encode<float16, 128, 128>(mixed<affine<3>, 64>{}, 1, {140});
  check_encode<float16, 192, 64>(mixed<symmetric<3>, 32>{}, 1, {70});
  check_encode<float16, 96, 64>(mixed<affine<4>, 32>{}, 2, {100});
  check_encode<float16, 64, 32>(mixed<affine<8>, 32>{}, 1, {70});
  check_encode<float16, 192, 32>(both<composed<raw<float16>, per_row>>{}, 1, {33});
  check_encode<float16, 64, 128>(schemes::fp8(), 2, {130});
#endif
}

#if !defined(KVCRUMB_SIMT_LIGHT)
TEST_CASE("encode: conventions of the affine codec") {
  check_encode<float16, 64, 32>(mixed<affine<4, float16, skvq_convention>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<affine<2, float16, kitty_convention>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<affine<4, float16, bitdecoding_convention>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<affine<4, float16, rotatekv_convention>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<affine<4, float16, midrise_convention>, 32>{}, 1, {40});
  check_encode<float16, 128, 64>(schemes::qserve4(), 2, {70, 1});
}

TEST_CASE("encode: stored types of parameters") {
  check_encode<float16, 64, 32>(mixed<affine<4, bfloat16>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<affine<4, float>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(both<composed<affine<4, float8_e4m3>, per_token<32>>>{}, 1, {40});
  check_encode<float16, 96, 32>(both<composed<e2m1<>, per_token<16>>>{}, 1, {40});
}

TEST_CASE("encode: symmetric codes and codebooks") {
  check_encode<float16, 64, 32>(mixed<symmetric<2>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<symmetric<4>, 8>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<symmetric<8, float16, symmetric_rule::ggml_q8_0>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<symmetric<4, float16, symmetric_rule::ggml_q4_0>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<nf2<>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<nf3<>, 32>{}, 1, {40});
  check_encode<float16, 128, 32>(mixed<nf4<>, 32>{}, 1, {40});
  check_encode<float16, 64, 32>(mixed<lloyd_max<1>, 32>{}, 1, {40});
  check_encode<float16, 96, 64>(mixed<lloyd_max<2>, 64>{}, 1, {70});
  check_encode<float16, 64, 32>(mixed<lloyd_max<3>, 16>{}, 1, {40});
  check_encode<float16, 192, 32>(both<composed<lloyd_max<4>, per_row>>{}, 1, {40});
  check_encode<float16, 256, 32>(both<composed<lloyd_max<4>, per_token<2>>>{}, 1, {5});
  mixed<codebook<user_table<4>, float16>, 32> with_table;
  for (int i = 0; i < 16; ++i)
    with_table.key.codec.table.levels[i] = with_table.value.codec.table.levels[i] =
        0.1f * static_cast<float>(i * i) - 7.0f;
  check_encode<float16, 64, 32>(with_table, 1, {40});
}
#endif

TEST_CASE("encode: zeros of both signs, subnormals, the largest numbers, infinities and NaN") {
  check_special<64, 32>(schemes::kivi<2, 32>(), 1, {96});
  check_special<64, 32>(schemes::qserve4(), 1, {70});
  check_not_finite<64, 32>(schemes::kivi<2, 32>(), 4);
  check_not_finite<64, 32>(schemes::qserve4(), 2);
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_special<64, 32>(schemes::kivi<4, 32>(), 1, {96});
  check_special<128, 32>(mixed<affine<1, float16, kivi_convention>, 16>{}, 1, {70});
  check_special<64, 32>(mixed<affine<8, float16, kivi_convention>, 32>{}, 1, {70});
  check_special<64, 32>(mixed<affine<1>, 32>{}, 1, {70});
  check_special<64, 32>(mixed<affine<4>, 16>{}, 1, {70});
  check_special<64, 32>(mixed<affine<4, float16, skvq_convention>, 32>{}, 1, {70});
  check_special<64, 32>(mixed<affine<4, float16, rotatekv_convention>, 32>{}, 1, {70});
  check_special<64, 32>(mixed<affine<3>, 32>{}, 1, {70});
  check_special<64, 32>(mixed<symmetric<4>, 32>{}, 1, {70});
  check_special<64, 32>(schemes::nqkv4(), 4, {40});
  check_special<64, 64>(schemes::ott<2, 64>(), 2, {200});
  using outward = mixed<affine<4>, 32>;
  check_not_finite<64, 32>(outward{.flush = {0, 32}}, 2);
  check_not_finite<64, 32>(mixed<affine<1>, 16>{.flush = {0, 16}}, 2);
  check_not_finite<64, 32>(mixed<affine<8, float16, skvq_convention>, 32>{.flush = {0, 32}}, 2);
#endif
}

TEST_CASE("encode: groups across kv heads") {
  check_encode<float16, 64, 32>(schemes::nqkv4(), 6,
                                {40});  // four heads share a group; the last span has two
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_encode<float16, 128, 64>(schemes::nqkv4(), 3, {70, 3});
  check_encode<float16, 256, 32>(schemes::nqkv4(), 2, {33});
  using rms = composed<lloyd_max<4>, per_token<256, head_crossing::across_heads>>;
  check_encode<float16, 64, 32>(both<rms>{}, 7, {10});
  using affine_across = composed<affine<4>, per_token<192, head_crossing::across_heads>>;
  check_encode<float16, 96, 32>(both<affine_across>{}, 3, {10});
#endif
}

TEST_CASE("encode: transforms") {
  check_encode<float16, 64, 32>(mixed<affine<4>, 32, hadamard<>>{}, 2, {40});
#if !defined(KVCRUMB_SIMT_LIGHT)
  check_encode<float16, 96, 32>(mixed<affine<4>, 32, hadamard<>>{}, 1, {40});
  check_encode<float16, 128, 64>(mixed<affine<2>, 64, hadamard<64>>{}, 1, {70});
  check_encode<float16, 192, 32>(both<composed<lloyd_max<4>, per_row, hadamard<>>>{}, 1, {33});
  check_encode<float16, 256, 32>(both<composed<lloyd_max<2>, per_row, hadamard<>>>{}, 1, {33});
  check_encode<float16, 64, 32>(both<composed<affine<4>, per_row, hadamard<4>>>{}, 1, {33});
#endif
  std::vector<float> const means = random_layer(9, 2, 1, 96).keys;
  mixed<affine<4>, 32, centered<hadamard<>>> with_means;
  with_means.key.transform.means = means.data();
  with_means.key.transform.count = 2 * 96;
  check_encode<float16, 96, 32>(with_means, 2, {40});
  mixed<affine<4>, 32, mean_center> centred;
  centred.key.transform.means = centred.value.transform.means = means.data();
  check_encode<float16, 64, 32>(centred, 2, {40});
}

TEST_CASE("encode: sinks, windows and tails") {
  using wide = kv_scheme<composed<affine<2>, per_channel<32>>, composed<affine<2>, per_token<32>>, prefix<4>>;
  for (int const n : {0, 3, 4, 5, 35, 36, 52, 53, 140})
    check_encode<float16, 64, 32>(wide{.flush = {16, 32}}, 2, {n});
  check_encode<float16, 64, 32>(wide{.flush = {5, 96}}, 1, {104, 105, 300});
  check_encode<float16, 64, 32>(wide{.flush = {0, 0}}, 1, {70});  // nothing is ever encoded
  check_encode<float16, 64, 32>(schemes::qserve4(), 1, {45, 0}, {.encoded = false});
}

#if !defined(KVCRUMB_SIMT_LIGHT)
TEST_CASE("encode: inputs of other types are rounded to fp16 first") {
  check_encode<bfloat16, 64, 32>(schemes::kivi<2, 32>(), 2, {150});
  check_encode<float, 64, 32>(schemes::kivi<2, 32>(), 2, {150});
  check_encode<bfloat16, 96, 64>(schemes::qserve4(), 1, {70});
  check_encode<float, 256, 32>(schemes::qserve4(), 1, {33});
}
#endif

TEST_CASE("encode: pages, strides and what recycled pages hold do not matter") {
  for (page_form const pages : {page_form::paged, page_form::listed, page_form::contiguous}) {
    for (bool const separate : {true, false}) {
      for (std::byte const poison : {std::byte{0xFF}, std::byte{0x00}})
        check_encode<float16, 96, 32>(schemes::kivi<2, 32>(), 2, {130, 0, 70},
                                      {.pages = pages, .separate = separate, .poison = poison});
    }
  }
}

}  // namespace
