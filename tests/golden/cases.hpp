// SPDX-License-Identifier: Apache-2.0
//! @file The sections that are recorded in this folder. Inputs come from integers only, so they are the same
//! everywhere.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "kvcrumb/schemes.hpp"

namespace kvcrumb::golden {

inline constexpr int format_version = 1;
inline constexpr std::uint64_t seed = 20250510;

//! One recorded section.
struct recorded {
  std::string name;         //!< file name without .bin
  std::string description;  //!< what the scheme says of itself
  side which = side::key;
  tile_shape shape;
  int kv_heads = 1;
  std::vector<std::byte> bytes;  //!< sections of all heads, one after the other
};

//! Rows [head][token][dim] with outlier channels, constant groups, zeros of both signs, large values, and
//! (special) a NaN and an infinity. No denormals: programs linked with fast-math flush them.
inline std::vector<float> input_rows(int heads, tile_shape shape, std::uint64_t stream, bool special) {
  std::uint64_t state = (seed + stream) * 0x9E3779B97F4A7C15u + 1;
  auto const next = [&] {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state >> 32);
  };
  std::vector<float> rows;
  for (int head = 0; head < heads; ++head) {
    for (int token = 0; token < shape.tile_tokens; ++token) {
      for (int dim = 0; dim < shape.head_dim; ++dim) {
        std::uint32_t const a = next(), b = next();
        // The sum of four uniform numbers, a multiple of 2^-13: exact in fp16 for most values, with many
        // exact halves.
        int const sum = static_cast<int>((a & 0x3FFFu) + (a >> 18) + (b & 0x3FFFu) + (b >> 18)) - 32766;
        float x = static_cast<float>(sum) * 0x1p-13f;
        if (dim % 16 == 5) x = 8.0f * x + 4.0f;
        if (dim == 3) x = 1.25f;
        if (token == 11) x = x * 1024.0f;
        rows.push_back(x);
        // Zeros as bits: fast-math does not keep the sign of a zero that it computes.
        if (dim == 4 || token == 7 || sum == 0) {
          std::uint32_t const zero = token % 3 == 1 ? 0x80000000u : 0u;
          std::memcpy(&rows.back(), &zero, sizeof zero);
        }
      }
    }
  }
  if (special) {
    std::uint32_t const nan = 0x7FC00000u, infinity = 0xFF800000u;
    auto const width = static_cast<std::size_t>(shape.head_dim);
    std::memcpy(&rows[21 * width + 40], &nan, sizeof nan);
    std::memcpy(&rows[22 * width + 6], &infinity, sizeof infinity);
  }
  return rows;
}

template <class Scheme>
recorded record(std::string name, Scheme scheme, side which, tile_shape shape, int heads, bool special) {
  recorded r{static_cast<std::string&&>(name), {}, which, shape, heads, {}};
  description d;
  Scheme::describe(d);
  r.description = d.text;
  auto rows = input_rows(heads, shape, static_cast<std::uint64_t>(shape.head_dim), special);
  std::vector<std::uint8_t> isolated(static_cast<std::size_t>(heads * shape.tile_tokens), 0);
  if (special) {
    for (std::size_t i = 5; i < isolated.size(); i += 17)
      isolated[i] = 1;
  }
  auto const section = static_cast<std::size_t>(scheme.section_bytes(which, shape));
  r.bytes.resize(section * static_cast<std::size_t>(heads));
  std::vector<std::byte*> sections;
  for (int head = 0; head < heads; ++head)
    sections.push_back(r.bytes.data() + section * static_cast<std::size_t>(head));
  encode_request request;
  request.rows = rows.data();
  request.isolated = special ? isolated.data() : nullptr;
  request.sections = sections.data();
  request.heads = heads;
  request.count = shape.tile_tokens;
  null_tracer none;
  scheme.encode(which, shape, request, none);
  return r;
}

//! The means of the centered case.
inline float const* recorded_means() {
  static std::vector<float> const means = input_rows(1, {64, 32}, 99, false);
  return means.data() + 12 * 64;
}

//! Every recorded section, in the order of the manifest: two or three per layout and bit width.
inline std::vector<recorded> all_recorded() {
  std::vector<recorded> r;
  tile_shape const small{64, 32}, middle{96, 32}, wide{128, 32}, square{64, 64}, full{128, 128};
  auto const k = side::key, v = side::value;
  r.push_back(record("fragment_1bit_key", composed<affine<1>, per_channel<32>>{}, k, small, 1, false));
  r.push_back(
      record("fragment_1bit_value", composed<affine<1, bfloat16>, per_token<32>>{}, v, middle, 1, true));
  r.push_back(record("fragment_2bit_ott_key", schemes::ott().key, k, full, 1, true));
  r.push_back(record("fragment_2bit_ott_value", schemes::ott().value, v, full, 1, true));
  r.push_back(record("fragment_2bit_kivi_key", schemes::kivi<2>().key, k, middle, 1, false));
  r.push_back(
      record("fragment_3bit_key", composed<affine<3>, per_channel<32>, hadamard<>>{}, k, small, 1, false));
  r.push_back(record("fragment_3bit_value", composed<affine<3, float>, per_token<40>>{}, v, middle, 1, true));
  r.push_back(record("fragment_4bit_nqkv_key", schemes::nqkv4().key, k, small, 5, true));
  r.push_back(record("fragment_4bit_qserve_value", schemes::qserve4().value, v, wide, 1, true));
  r.push_back(record("fragment_4bit_e2m1_value", composed<e2m1<>, per_token<16>>{}, v, small, 1, true));
  r.push_back(
      record("fragment_4bit_lloyd_key", composed<lloyd_max<4>, per_row, hadamard<>>{}, k, small, 1, false));
  r.push_back(record("fragment_8bit_key", composed<symmetric<8>, per_channel<16>>{}, k, small, 1, true));
  r.push_back(record("fragment_8bit_value", schemes::fp8().value, v, small, 1, true));
  r.push_back(record("fragment_16bit_value", composed<raw<bfloat16>, per_row>{}, v, small, 1, true));
  r.push_back(record("linear_1bit_value", composed<affine<1>, per_token<7>, identity, linear>{}, v, {46, 32},
                     1, true));
  r.push_back(record("linear_2bit_kivi_key", schemes::kivi<2, 32, linear>().key, k, square, 1, false));
  r.push_back(record("linear_2bit_kivi_value", schemes::kivi<2, 32, linear>().value, v, small, 1, true));
  r.push_back(record("linear_3bit_nf3_key", composed<nf3<>, per_token<80>, identity, linear>{}, k, {80, 32},
                     1, true));
  r.push_back(record("linear_4bit_kivi_value", schemes::kivi<4, 32, linear>().value, v, small, 1, false));
  r.push_back(
      record("linear_4bit_bitdecoding_key",
             composed<affine<4, float16, bitdecoding_convention>, per_channel<32>, identity, linear>{}, k,
             small, 1, true));
  r.push_back(record("linear_5bit_key",
                     composed<affine<5, float, kitty_convention>, per_channel<16>, identity, linear>{}, k,
                     {46, 32}, 1, false));
  r.push_back(record("linear_6bit_value", composed<symmetric<6, bfloat16>, per_token<23>, identity, linear>{},
                     v, {46, 32}, 1, true));
  r.push_back(record("linear_7bit_value",
                     composed<affine<7, float16, midrise_convention>, per_row, identity, linear>{}, v,
                     {46, 32}, 1, true));
  composed<affine<8, float8_e4m3>, per_token<32>, mean_center, linear> centered_scheme{};
  centered_scheme.transform.means = recorded_means();
  r.push_back(record("linear_8bit_centered_key", centered_scheme, k, small, 1, true));
  r.push_back(record("linear_16bit_fp16_key", schemes::fp16().key, k, small, 1, true));
  r.push_back(record("ggml_q8_0_key", schemes::q8_0().key, k, small, 1, true));
  r.push_back(record("ggml_q4_0_key", schemes::q4_0().key, k, small, 1, true));
  r.push_back(record("ggml_q4_0_value", schemes::q4_0().value, v, middle, 1, false));
  return r;
}

}  // namespace kvcrumb::golden
