// SPDX-License-Identifier: Apache-2.0
//! @file Saved caches: the round trip, the header, and who may read a file.
#include "support/cache_file_tools.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using bytes = std::vector<std::byte>;

template <class Scheme>
status restored(bytes const& file, Scheme const& scheme) {
  kv_cache<Scheme> out;
  return restore(std::span<std::byte const>{file}, scheme, out);
}

}  // namespace

TEST_CASE("save, restore and save again: the same bytes, the same attention, the same future",
          "[cache][save]") {
  std::int64_t const tokens = GENERATE(0, 1, 40, 200);
  test::layer_rows const rows = test::random_layer(1, 2, 300, 64, 3, 4);
  auto const q = test::random_queries(1, 4, 2, 64);
  auto const check = [&](auto const& scheme) {
    using scheme_type = std::decay_t<decltype(scheme)>;
    auto cache = test::made(scheme, 2, {64, 128});
    test::append(cache, rows, 0, tokens);
    bytes const file = test::saved(cache);
    for (std::int64_t const alignment : {16, 64, 4096}) {
      kv_cache<scheme_type> other;
      CAPTURE(scheme.name, tokens, alignment);
      REQUIRE(restore(std::span<std::byte const>{file}, scheme, other, alignment) == status::ok);
      CHECK(other.config().blob_alignment == alignment);
      CHECK(other.size() == tokens);
      CHECK(test::saved(other) == file);
      CHECK(test::same_bits(test::run_attention(other.view(), q, 4, 2).output,
                            test::run_attention(cache.view(), q, 4, 2).output));
      CHECK(saved_bytes(other) == static_cast<std::int64_t>(file.size()));
      auto longer = cache;
      test::append(longer, rows, tokens, 300);
      test::append(other, rows, tokens, 300);
      CHECK(test::saved(other) == test::saved(longer));
    }
  };
  test::each_scheme(check);
  auto sinks = schemes::ott<2, 32>(2);
  sinks.isolate.sinks = 4;
  sinks.isolate.across = pool_scope::per_layer;
  check(sinks);
}

TEST_CASE("a file may be followed by other bytes, a buffer may be larger", "[cache][save]") {
  auto const cache = test::filled(schemes::ott<2, 32>(), test::random_layer(1, 2, 90, 64, 3, 4), 32);
  bytes const file = test::saved(cache);
  bytes larger(file.size() + 77, std::byte{0x5A});
  REQUIRE(save(cache, std::span<std::byte>{larger}) == status::ok);
  CHECK(std::equal(file.begin(), file.end(), larger.begin()));
  CHECK(larger.back() == std::byte{0x5A});
  CHECK(restored(larger, schemes::ott<2, 32>()) == status::ok);
  bytes small(file.size() - 1, std::byte{0x5A});
  CHECK(save(cache, std::span<std::byte>{small}) == status::buffer_too_small);
  CHECK(small == bytes(file.size() - 1, std::byte{0x5A}));
}

TEST_CASE("the header says what is in the file", "[cache][save]") {
  auto scheme = schemes::ott<2, 32>(2);
  scheme.isolate.sinks = 3;
  auto const cache = test::filled(scheme, test::random_layer(1, 2, 90, 64, 3, 4), 32);
  bytes const file = test::saved(cache);
  file_header h;
  REQUIRE(read_header(file, h) == status::ok);
  CHECK(std::memcmp(file.data(), "KVCRUMB\n", 8) == 0);
  CHECK(h.version == static_cast<std::uint32_t>(format_version));
  CHECK(h.header_bytes == 640);
  CHECK(h.total_bytes == file.size());
  CHECK(std::string{h.scheme_name} == "ott2");
  CHECK(std::string{h.isolation_text}.find("token_pool") == 0);
  CHECK(std::string{h.row_type} == "f16");
  CHECK((h.head_dim == 64 && h.tile_tokens == 32 && h.kv_heads == 2 && h.row_bytes == 2));
  CHECK((h.recent == 32 && h.block == 32 && h.sink_capacity == 3 && h.pool_capacity == 2 &&
         h.aux_capacity == 32));
  CHECK((h.sink_count == 3 && h.tile_slots == 32 && h.tail_count == 55 && h.listed_count == 0));
  CHECK(h.blob_bytes == cache.blob_parts().bytes);
  for (char const c : h.reserved)
    CHECK(c == 0);
  // CRC-32 of IEEE 802.3, with its published check value.
  char const digits[] = "123456789";
  CHECK(crc32(std::as_bytes(std::span{digits, 9})) == 0xCBF43926u);
  CHECK(crc32(std::as_bytes(std::span{digits + 4, 5}), crc32(std::as_bytes(std::span{digits, 4}))) ==
        0xCBF43926u);
  CHECK(crc32(std::span<std::byte const>{file}.subspan(640)) == h.payload_crc);
}

TEST_CASE("another scheme, other capacities, another window", "[cache][save]") {
  test::layer_rows const rows = test::random_layer(1, 2, 150, 64, 3, 4);
  bytes const ott = test::saved(test::filled(schemes::ott<2, 32>(), rows, 128));
  CHECK(restored(ott, schemes::ott<2, 32>()) == status::ok);
  CHECK(restored(ott, schemes::ott<2, 32>(2)) == status::scheme_mismatch);
  CHECK(restored(ott, schemes::ott<2, 64>()) == status::scheme_mismatch);
  CHECK(restored(ott, schemes::ott<4, 32>()) == status::scheme_mismatch);
  CHECK(restored(ott, schemes::ott<2, 32, linear>()) == status::scheme_mismatch);
  CHECK(restored(ott, schemes::kivi<2, 32>()) == status::scheme_mismatch);
  CHECK(restored(ott, schemes::q8_0()) == status::scheme_mismatch);
  auto const changed = [&](auto change) {
    auto scheme = schemes::ott<2, 32>();
    change(scheme);
    return restored(ott, scheme);
  };
  CHECK(changed([](auto& s) { s.isolate.auxiliary = 31; }) == status::scheme_mismatch);
  CHECK(changed([](auto& s) { s.isolate.sinks = 1; }) == status::scheme_mismatch);
  CHECK(changed([](auto& s) { s.isolate.across = pool_scope::per_layer; }) == status::scheme_mismatch);
  CHECK(changed([](auto& s) { s.flush.recent = 31; }) == status::scheme_mismatch);
  CHECK(changed([](auto& s) { s.flush.block = 64; }) == status::scheme_mismatch);
  CHECK(changed([](auto& s) { s.name = "ott3"; }) == status::scheme_mismatch);

  // Every named system refuses every other one's file, and its own with another row type.
  std::vector<bytes> files;
  test::each_scheme(
      [&](auto const& scheme) { files.push_back(test::saved(test::filled(scheme, rows, 128))); });
  std::size_t at = 0;
  test::each_scheme([&](auto const& scheme) {
    for (std::size_t i = 0; i < files.size(); ++i) {
      CAPTURE(scheme.name, at, i);
      CHECK(restored(files[i], scheme) == (i == at ? status::ok : status::scheme_mismatch));
    }
    kv_cache<std::decay_t<decltype(scheme)>, bfloat16> other;
    CHECK(restore(std::span<std::byte const>{files[at]}, scheme, other) == status::scheme_mismatch);
    ++at;
  });
}

TEST_CASE("another score, other means, another table, another rotation", "[cache][save]") {
  test::layer_rows const rows = test::random_layer(1, 2, 60, 64);
  using key_type = schemes::q8_0_type::key_type;
  kv_scheme<key_type, key_type, token_pool<l1_score>> const l1{};
  kv_scheme<key_type, key_type, token_pool<l2_score>> const l2{};
  CHECK(restored(test::saved(test::filled(l1, rows, 32)), l2) == status::scheme_mismatch);
  CHECK(restored(test::saved(test::filled(l1, rows, 32)), l1) == status::ok);

  std::vector<float> means(128, 0.5f);
  kv_scheme<composed<affine<4>, per_token<32>, mean_center>, composed<affine<4>, per_token<32>>> centred;
  centred.key.transform = {.means = means.data(), .next = {}, .count = 128};
  bytes const file = test::saved(test::filled(centred, rows, 32));
  CHECK(restored(file, centred) == status::ok);
  means[127] = 0.25f;
  CHECK(restored(file, centred) == status::scheme_mismatch);
  centred.key.transform = {};
  CHECK(restored(file, centred) == status::scheme_mismatch);

  kv_scheme<composed<codebook<user_table<1>>, per_token<32>>, composed<affine<4>, per_token<32>>> table;
  table.key.codec.table = {{-1.0f, 1.0f}};
  bytes const with_table = test::saved(test::filled(table, rows, 32));
  CHECK(restored(with_table, table) == status::ok);
  table.key.codec.table = {{-1.0f, 1.5f}};
  CHECK(restored(with_table, table) == status::scheme_mismatch);

  kv_scheme<composed<affine<4>, per_token<32>, hadamard<>>, composed<affine<4>, per_token<32>>> const wide;
  kv_scheme<composed<affine<4>, per_token<32>, hadamard<16>>, composed<affine<4>, per_token<32>>> const
      narrow;
  kv_scheme<composed<affine<4>, per_token<32>>, composed<affine<4>, per_token<32>>> const none;
  bytes const rotated = test::saved(test::filled(wide, rows, 32));
  CHECK(restored(rotated, wide) == status::ok);
  CHECK(restored(rotated, narrow) == status::scheme_mismatch);
  CHECK(restored(rotated, none) == status::scheme_mismatch);
}
