// SPDX-License-Identifier: Apache-2.0
//! @file Damaged, cut, foreign and forged files: always a reason, never a change of the target, never much
//! memory.
#include <new>

#include "support/cache_file_tools.hpp"
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using bytes = std::vector<std::byte>;

//! A target that already holds something, to see that a failure leaves it alone.
template <class Scheme>
struct target {
  Scheme scheme;
  kv_cache<Scheme> cache;
  bytes before;

  explicit target(Scheme const& s) : scheme{s}, cache{test::filled(s, test::random_layer(99, 1, 5, 64), 32)} {
    before = test::saved(cache);
  }
  status operator()(bytes const& file) {
    status const s = restore(std::span<std::byte const>{file}, scheme, cache);
    if (s != status::ok) {
      bytes now(test::size(saved_bytes(cache)));
      if (save(cache, std::span<std::byte>{now}) != status::ok || now != before)
        FAIL_CHECK("the target was changed");
    }
    return s;
  }
};

schemes::ott_type<2, 32> traced() {
  auto scheme = schemes::ott<2, 32>(2);
  scheme.isolate.auxiliary = 3;
  scheme.isolate.sinks = 2;
  return scheme;
}

bytes traced_file() {
  return test::saved(test::filled(traced(), test::random_layer(1, 2, 110, 64, 3, 9), 32));
}

//! The first isolated entry of the payload: behind two counts for each of two heads.
constexpr std::size_t first_entry = 2 * 2 * 4;

}  // namespace

TEST_CASE("every byte of the header and many of the payload: damage is noticed", "[cache][save]") {
  bytes const file = traced_file();
  target into{traced()};
  for (std::size_t i = 0; i < file.size(); i += i < 700 ? 1 : 13) {
    for (unsigned const flip : {0x01u, 0x80u, 0xFFu}) {
      bytes damaged = file;
      damaged[i] ^= static_cast<std::byte>(flip);
      if (into(damaged) == status::ok) FAIL_CHECK("byte " << i << " may be anything");
    }
  }
  CHECK(into(file) == status::ok);
}

TEST_CASE("a file cut anywhere is truncated", "[cache][save]") {
  bytes const file = traced_file();
  target into{traced()};
  for (std::size_t n = 0; n < file.size(); ++n) {
    if (into(bytes(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n))) != status::truncated) {
      FAIL_CHECK("a file of " << n << " bytes");
    }
  }
}

TEST_CASE("foreign files and other versions", "[cache][save]") {
  bytes const file = traced_file();
  target into{traced()};
  bytes other = file;
  std::memcpy(other.data(), "GGUFGGUF", 8);
  CHECK(into(other) == status::bad_magic);
  CHECK(into(bytes(10000, std::byte{0})) == status::bad_magic);
  CHECK(into(bytes(8, std::byte{0})) == status::bad_magic);
  CHECK(into({}) == status::truncated);
  for (std::uint32_t const version : {0u, 2u, 0xFFFFFFFFu}) {
    if (version == static_cast<std::uint32_t>(format_version)) continue;
    CHECK(into(test::forged_header(file, [&](file_header& h) { h.version = version; })) ==
          status::bad_version);
  }
  CHECK(into(test::forged_header(file, [](file_header& h) { h.header_bytes = 639; })) == status::bad_header);
  CHECK(into(test::forged_header(file, [](file_header& h) { h.scheme_name[31] = 'x'; })) ==
        status::bad_header);
  CHECK(into(test::forged_header(file, [](file_header& h) { h.row_type[7] = 'x'; })) == status::bad_header);
  bytes longer = file;
  longer.resize(longer.size() + 8);
  test::seal(longer);  // claims the extra bytes as its own
  CHECK(into(longer) == status::bad_header);
}

TEST_CASE("forged headers with right checksums", "[cache][save]") {
  bytes const file = traced_file();
  target into{traced()};
  std::int64_t const large = std::int64_t{1} << 62;
  auto const with = [&](auto change) { return into(test::forged_header(file, change)); };
  for (std::int64_t const n :
       {std::int64_t{-1}, INT64_MIN, std::int64_t{1}, std::int64_t{1} << 31, large, INT64_MAX}) {
    CAPTURE(n);
    CHECK(with([&](file_header& h) { h.sink_count = n; }) == status::bad_header);
    CHECK(with([&](file_header& h) { h.tile_slots = n; }) == status::bad_header);
    CHECK(with([&](file_header& h) { h.tail_count = n; }) == status::bad_header);
    CHECK(with([&](file_header& h) { h.listed_count = n; }) == status::bad_header);
    CHECK(with([&](file_header& h) { h.blob_bytes = n; }) == status::bad_header);
  }
  for (std::int32_t const n : {-1, INT32_MIN, 0, 3, 4, 65536, 65537, 1 << 30, INT32_MAX}) {
    CAPTURE(n);
    CHECK(with([&](file_header& h) { h.kv_heads = n; }) != status::ok);
    CHECK(with([&](file_header& h) { h.head_dim = n; }) != status::ok);
    CHECK(with([&](file_header& h) { h.tile_tokens = n; }) != status::ok);
    CHECK(with([&](file_header& h) { h.row_bytes = n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.pool_capacity = n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.aux_capacity = n == 3 ? 4 : n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.sink_capacity = n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.recent = n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.block = n; }) == status::scheme_mismatch);
    CHECK(with([&](file_header& h) { h.scope = n == 0 ? 1 : n; }) == status::scheme_mismatch);
  }
  for (int const d : {96, 128, 256})
    CHECK(with([&](file_header& h) { h.head_dim = d; }) == status::bad_header);
  for (int const t : {64, 128})
    CHECK(with([&](file_header& h) { h.tile_tokens = t; }) == status::bad_header);
  CHECK(with([](file_header& h) { h.key_state ^= 1; }) == status::scheme_mismatch);
  CHECK(with([](file_header& h) { h.value_state ^= 1; }) == status::scheme_mismatch);
  // A full tail would have been encoded; tokens behind missing sinks.
  CHECK(with([](file_header& h) { h.tail_count = 64; }) == status::bad_header);
  CHECK(with([](file_header& h) { h.sink_count = 1; }) == status::bad_header);
}

TEST_CASE("forged payloads with right checksums", "[cache][save]") {
  bytes const file = traced_file();
  target into{traced()};
  auto const count = [&](std::size_t i, std::int32_t n) {
    return into(test::forged_payload(file, 4 * i, n));
  };
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::int32_t const n : {-1, INT32_MIN, 0, 1, 4, 1 << 30, INT32_MAX}) {
      std::int32_t actual;
      std::memcpy(&actual, file.data() + sizeof(file_header) + 4 * i, 4);
      CAPTURE(i, n, actual);
      if (n != actual) CHECK(count(i, n) == status::bad_header);
    }
  }
  // Positions of the first two entries of head 0, 12 bytes each; 2 sinks before and 64 encoded tokens.
  REQUIRE(test::header_in(file).tile_slots == 64);
  std::int64_t second;
  std::memcpy(&second, file.data() + sizeof(file_header) + first_entry + 12, 8);
  for (std::int64_t const p :
       {std::int64_t{-1}, std::int64_t{0}, std::int64_t{1}, std::int64_t{66}, INT64_MAX, INT64_MIN, second}) {
    CAPTURE(p);
    CHECK(into(test::forged_payload(file, first_entry, p)) == status::bad_header);
  }
  for (std::int64_t p = 2; p < 66; ++p) {  // any other token: the mask does not agree
    std::int64_t first;
    std::memcpy(&first, file.data() + sizeof(file_header) + first_entry, 8);
    if (p != first) CHECK(into(test::forged_payload(file, first_entry, p)) == status::bad_header);
  }
  CHECK(into(test::forged_payload(file, first_entry + 8, std::nanf(""))) == status::bad_header);
  // The second token twice, and the first one's slot made valid, so that the masks agree with it.
  std::int64_t first;
  std::memcpy(&first, file.data() + sizeof(file_header) + first_entry, 8);
  bytes twice = test::forged_payload(file, first_entry, second);
  file_header const h = test::header_in(file);
  std::int64_t const slot = first - 2, tiles = (h.tile_slots + h.tile_tokens - 1) / h.tile_tokens;
  std::int64_t const from_end = (tiles * h.kv_heads - slot / h.tile_tokens * h.kv_heads) * h.blob_bytes;
  std::int64_t const mask = traced().blob({64, 32}).mask_offset + slot % 32 / 8;
  std::byte& bits = twice[twice.size() - test::size(from_end - mask)];
  CHECK((bits & (std::byte{1} << (slot % 8))) == std::byte{0});
  bits |= std::byte{1} << (slot % 8);
  test::seal(twice);
  CHECK(into(twice) == status::bad_header);
  // Validity bits: the last bytes of the last blob.
  for (std::size_t i = 1; i <= 4; ++i) {
    bytes forged = file;
    forged[forged.size() - i] ^= std::byte{0x10};
    test::seal(forged);
    CHECK(into(forged) == status::bad_header);
  }
}

TEST_CASE("a forged file cannot move rows from the sinks to the tail", "[cache][save]") {
  target into{traced()};
  bytes const file = test::saved(test::filled(traced(), test::random_layer(1, 2, 7, 64), 32));
  CHECK(into(test::forged_header(file, [](file_header& h) {
          h.sink_count = 1;  // of two; the payload keeps its size
          h.tail_count = 6;
        })) == status::bad_header);
}

TEST_CASE("lists and pools that would overflow later are refused", "[cache][save]") {
  using key_type = schemes::q8_0_type::key_type;
  test::layer_rows const rows = test::random_layer(1, 2, 20, 64);
  SECTION("a caller's list") {
    kv_scheme<key_type, key_type, external> scheme;
    scheme.isolate.capacity = 2;
    auto cache = test::made(scheme, 2, {64, 32});
    std::vector<std::int64_t> const list{3, 7};
    REQUIRE(cache.isolate(list) == status::ok);
    test::append(cache, rows, 0, 20);
    bytes const file = test::saved(cache);
    target into{scheme};
    // counts 2 x 2 x 4; per head two entries of 12 and four rows of 128 bytes; then the list
    std::size_t const at = 16 + 2 * (2 * 12 + 4 * 128);
    std::int64_t listed[2];
    std::memcpy(listed, file.data() + sizeof(file_header) + at, 16);
    REQUIRE((listed[0] == 3 && listed[1] == 7));
    CHECK(into(test::forged_payload(file, at, std::int64_t{7})) == status::bad_header);  // twice
    CHECK(into(test::forged_payload(file, at, std::int64_t{9})) == status::bad_header);  // unsorted
    CHECK(into(test::forged_payload(file, at, std::int64_t{2})) == status::bad_header);  // the pool holds 3
    CHECK(into(test::forged_payload(file, at + 8, std::int64_t{30})) ==
          status::bad_header);  // room for a third token
    CHECK(into(file) == status::ok);
  }
  SECTION("heads of a layer") {
    kv_scheme<key_type, key_type, token_pool<>> scheme;
    scheme.isolate = {.capacity = 2, .auxiliary = 4, .across = pool_scope::per_layer};
    auto const cache = test::filled(scheme, rows, 32);
    bytes const file = test::saved(cache);
    target into{scheme};
    CHECK(into(file) == status::ok);
    into.before = file;
    std::size_t const of_head = 2 * 12 + 4 * 128;
    float score;
    std::memcpy(&score, file.data() + sizeof(file_header) + 16 + of_head + 8, 4);
    CHECK(into(test::forged_payload(file, 16 + of_head + 8, score + 1.0f)) == status::bad_header);
  }
}

TEST_CASE("a small file cannot ask for much memory or read behind the caller's means", "[cache][save]") {
  auto const scheme = schemes::ott();
  bytes const file = test::saved(test::made(scheme, 1, {128, 128}));
  kv_cache<schemes::ott_type<2>> out;
  auto const many = test::forged_header(file, [](file_header& h) { h.kv_heads = 65536; });
  CHECK(restore(std::span<std::byte const>{many}, scheme, out) == status::bad_header);
  CHECK(out.bytes_reserved() == 0);

  std::vector<float> const means(128, 0.5f);
  kv_scheme<composed<affine<4>, per_token<32>, mean_center>, composed<affine<4>, per_token<32>>> centred;
  centred.key.transform = {.means = means.data(), .next = {}, .count = 128};
  auto const small = test::saved(test::made(centred, 2, {64, 32}));
  kv_cache<decltype(centred)> other;
  bytes wide = test::forged_header(small, [](file_header& h) { h.head_dim = 256; });
  CHECK(restore(std::span<std::byte const>{wide}, centred, other) == status::bad_shape);
  CHECK(restore(std::span<std::byte const>{small}, centred, other) == status::ok);
}

TEST_CASE("the reader's alignment is checked", "[cache][save]") {
  bytes const file = traced_file();
  kv_cache<schemes::ott_type<2, 32>> out;
  for (std::int64_t const a : {-1, 0, 3, 8, 24, 8192}) {
    CHECK(restore(std::span<std::byte const>{file}, traced(), out, a) == status::misaligned);
  }
  CHECK(out.size() == 0);
}
