// SPDX-License-Identifier: Apache-2.0
//! @file Saves caches of many schemes and shapes for format_reader_test.py, each beside what the library
//! reads back.
//!
//! write_cache FOLDER writes <case>.cache (the saved form) and <case>.rows: f32 [head][token][key,
//! value][head_dim], then u8 [head][token], the token_place. One line per case on the standard output.
#include <cstdio>
#include <string>
#include <vector>

#include "kvcrumb/kvcrumb.hpp"

namespace {

using namespace kvcrumb;

//! Numbers between -3 and 3 that fp16 holds, from a linear congruential generator; every 23rd row is small.
std::vector<float> numbers(std::uint64_t seed, std::int64_t rows, int head_dim) {
  std::vector<float> x;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (int d = 0; d < head_dim; ++d) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      float const unit = static_cast<float>(static_cast<std::int32_t>(seed >> 40)) / 8388608.0f - 1.0f;
      x.push_back(
          to_float(from_float<float16>(unit * (row % 23 == 7 ? 0.2f : 3.0f) + (d == 5 ? 4.0f : 0.0f))));
    }
  }
  return x;
}

bool store(std::string const& path, std::vector<std::byte> const& bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  bool const ok = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  return std::fclose(file) == 0 && ok;
}

struct writer {
  std::string folder;
  bool ok = true;

  template <storage_float Row = float16, class Scheme>
  void operator()(char const* name, Scheme const& scheme, cache_config const& config, std::int64_t tokens,
                  bool at_once = false, std::vector<std::int64_t> const& listed = {}) {
    int const width = config.shape.head_dim;
    std::vector<float> const keys = numbers(1, config.kv_heads * tokens, width);
    std::vector<float> const values = numbers(2, config.kv_heads * tokens, width);
    rows_view<float const> const k = hnd_rows(keys.data(), tokens, width),
                                 v = hnd_rows(values.data(), tokens, width);
    kv_cache<Scheme, Row> cache;
    status s = kv_cache<Scheme, Row>::create(scheme, config, cache);
    if constexpr (Scheme::isolation_type::how == selection::listed) {
      if (s == status::ok) s = cache.isolate(listed);
    }
    if (s == status::ok) s = at_once ? cache.prefill(k, v, tokens) : cache.append(k, v, tokens);
    std::vector<std::byte> saved(static_cast<std::size_t>(saved_bytes(cache))), rows, places;
    if (s == status::ok) s = save(cache, saved);
    std::vector<float> row(2 * static_cast<std::size_t>(width));
    for (int head = 0; head < config.kv_heads; ++head) {
      for (std::int64_t token = 0; s == status::ok && token < tokens; ++token) {
        token_place place{};
        s = cache.read(head, token, row.data(), row.data() + width, &place);
        auto const bytes = std::as_bytes(std::span{row});
        rows.insert(rows.end(), bytes.begin(), bytes.end());
        places.push_back(static_cast<std::byte>(place));
      }
    }
    rows.insert(rows.end(), places.begin(), places.end());
    std::string const path = folder + "/" + name;
    bool const good = s == status::ok && store(path + ".cache", saved) && store(path + ".rows", rows);
    std::printf("%s: %s\n", name, good ? "written" : s != status::ok ? to_string(s) : "cannot write");
    ok = ok && good;
  }
};

template <codec Codec, grouping Grouping, transform Transform = identity, layout Layout = fragment>
using both =
    kv_scheme<composed<Codec, Grouping, Transform, Layout>, composed<Codec, Grouping, Transform, Layout>>;

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: write_cache FOLDER\n");
    return 2;
  }
  writer write{arguments[1]};
  // the named systems
  write("fp16", schemes::fp16(), {2, {80, 64}}, 70);
  write("fp8", schemes::fp8(), {2, {192, 32}}, 45);
  write("kivi2", schemes::kivi<2>(), {2, {128, 128}}, 150);
  write("kivi4", schemes::kivi<4>(), {1, {64, 32}}, 200);
  write("ott2", schemes::ott(), {2, {128, 128}}, 600);
  write("ott2_prefill", schemes::ott(), {2, {128, 128}}, 600, true);
  write("sinkq", schemes::sinkq<32>(), {2, {64, 64}}, 300);
  write("nqkv4", schemes::nqkv4(), {5, {64, 32}}, 45);
  write("qserve4", schemes::qserve4(), {2, {256, 64}}, 70);
  write("q8_0", schemes::q8_0(), {2, {96, 32}}, 45);
  write("q4_0", schemes::q4_0(), {2, {160, 64}}, 70);
  // the shapes of the fragment layout
  write("fragment1_d64_t32", schemes::kivi<1>(), {1, {64, 32}}, 140);
  write("fragment1_d96_t64", schemes::kivi<1>(), {1, {96, 64}}, 140);
  write("fragment1_d192_t32", schemes::kivi<1>(), {1, {192, 32}}, 140);
  write("fragment1_d128_t128", schemes::kivi<1>(), {1, {128, 128}}, 140);
  write("fragment2_d96_t32", schemes::kivi<2>(), {1, {96, 32}}, 140);
  write("fragment2_d192_t64", schemes::kivi<2>(), {1, {192, 64}}, 140);
  write("fragment3_d96_t32", schemes::kivi<3>(), {1, {96, 32}}, 140);
  write("fragment3_d64_t64", schemes::kivi<3>(), {1, {64, 64}}, 140);
  write("fragment3_d256_t128", schemes::kivi<3, 64>(), {1, {256, 128}}, 140);
  write("fragment4_d96_t128", schemes::kivi<4, 128>(), {1, {96, 128}}, 140);
  write("fragment8_d256_t32", schemes::kivi<8, 16>(), {1, {256, 32}}, 140);
  write("fragment16", both<raw<bfloat16>, per_row>{}, {2, {96, 64}}, 70);
  // linear, with widths that end within a byte and ragged groups
  write("linear2", schemes::kivi<2, 32, linear>(), {2, {128, 128}}, 150);
  write("linear3_d46", schemes::kivi<3, 8, linear>(), {1, {46, 32}}, 140);
  write("linear5_d80", schemes::kivi<5, 32, linear>(), {1, {80, 64}}, 140);
  write("linear7_d33", both<affine<7, bfloat16>, per_token<8>, identity, linear>{}, {2, {33, 32}}, 40);
  // codecs and parameter types
  write("midrise", both<affine<4, float16, midrise_convention>, per_token<48>>{}, {2, {128, 32}}, 40);
  write("rotatekv", both<affine<2, float16, rotatekv_convention>, per_token<64>>{}, {2, {128, 32}}, 40);
  write("affine_e4m3", both<affine<2, float8_e4m3>, per_channel<8>>{}, {2, {64, 32}}, 40);
  write("symmetric8", both<symmetric<8, float>, per_row>{}, {2, {64, 32}}, 40);
  write("symmetric3", both<symmetric<3, bfloat16>, per_channel<32>, identity, linear>{}, {2, {64, 32}}, 40);
  write("nf2", both<nf2<float>, per_token<32>>{}, {2, {64, 32}}, 40);
  write("nf3", both<nf3<bfloat16>, per_token<32>>{}, {2, {64, 32}}, 40);
  write("e2m1", both<e2m1<>, per_token<16>>{}, {2, {64, 32}}, 40);
  write("lloyd1", both<lloyd_max<1>, per_row>{}, {2, {64, 32}}, 40);
  write("lloyd2", both<lloyd_max<2>, per_row>{}, {2, {64, 32}}, 40);
  write("lloyd3", both<lloyd_max<3>, per_row>{}, {2, {64, 32}}, 40);
  write("lloyd4", both<lloyd_max<4>, per_row>{}, {2, {64, 32}}, 40);
  // transforms, exact rows of another type, isolation
  write("hadamard", both<affine<4>, per_row, hadamard<>>{}, {2, {96, 32}}, 40);
  write.operator()<float>("float_rows", schemes::kivi<2>(), {2, {64, 32}}, 150);
  write.operator()<bfloat16>("bfloat16_rows", schemes::ott<2, 32>(2), {2, {64, 32}}, 150);
  using prefixed = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>, prefix<4>>;
  write("prefix", prefixed{}, {2, {64, 32}}, 40);
  using listed = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>, external>;
  write("external", listed{}, {2, {64, 32}}, 40, false, {3, 17, 38});
  return write.ok ? 0 : 1;
}
