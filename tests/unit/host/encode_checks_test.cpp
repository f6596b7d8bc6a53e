// SPDX-License-Identifier: Apache-2.0
//! @file What host::encode refuses, and the scores of tokens.
#include "unit/host/encode_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using kivi_keys = composed<affine<2, float16, kivi_convention>, per_channel<32>>;

}  // namespace

TEST_CASE("scores of tokens equal those of one row at a time", "[host][encode]") {
  unsigned seed = 101;
  for (int const dim : {64, 96, 128, 192, 256}) {
    for (int const tokens : {1, 37, 128}) {
      test::check_scores<l1_score, float16>({}, dim, tokens, ++seed);
      test::check_scores<l1_score, float>({}, dim, tokens, ++seed);
      test::check_scores<l2_score, float16>({}, dim, tokens, ++seed);
      test::check_scores<absmax_score, bfloat16>({}, dim, tokens, ++seed);
      test::check_scores<negated<l1_score>, float16>({}, dim, tokens, ++seed);
    }
  }
}

TEST_CASE("host::encode refuses and writes nothing", "[host][encode][checks]") {
  std::vector<float16> const rows(test::size(2 * 32 * 64));
  std::vector<std::byte> bytes(test::size(2 * kivi_keys{}.section_bytes(side::key, {64, 64})), std::byte{7});
  std::byte* sections[2] = {bytes.data(), bytes.data() + bytes.size() / 2};
  test::aligned_bytes const work(host::encode_workspace_bytes(kivi_keys{}, side::key, {64, 64}, 2, 32));
  host::execution const portable{host::instruction_set::portable, host::precision::two_terms, true};
  host::row_request<float16 const> const good{hnd_rows(rows.data(), 32, 64), nullptr, sections, 2, 32, 32};
  auto const call = [&](host::row_request<float16 const> const& r, host::execution const& how,
                        std::span<std::byte> memory, tile_shape shape = {64, 64}) {
    status const s = host::encode(kivi_keys{}, side::key, shape, r, memory, how);
    if (s != status::ok) CHECK(bytes == std::vector<std::byte>(bytes.size(), std::byte{7}));
    return s;
  };
  CHECK(call(good, portable, work.bytes().first(work.bytes().size() - 1)) == status::buffer_too_small);
  CHECK(call(good, portable, work.bytes().subspan(4)) == status::misaligned);
  auto bad = good;
  bad.slot = 48;
  CHECK(call(bad, portable, work.bytes()) == status::bad_shape);
  bad = good;
  bad.slot = 64;
  CHECK(call(bad, portable, work.bytes()) == status::bad_shape);
  bad = good;
  bad.count = 16;
  CHECK(call(bad, portable, work.bytes()) == status::bad_shape);
  bad = good;
  bad.sections = nullptr;
  CHECK(call(bad, portable, work.bytes()) == status::null_pointer);
  bad = good;
  bad.rows.data = nullptr;
  CHECK(call(bad, portable, work.bytes()) == status::null_pointer);
  bad = good;
  bad.rows.stride_token = 63;
  CHECK(call(bad, portable, work.bytes()) == status::bad_stride);
  CHECK(call(good, portable, work.bytes(), {80, 64}) == status::bad_head_dim);
  host::execution how = portable;
  how.allow_slow = false;
  CHECK(call(good, how, work.bytes()) == status::unsupported);
  for (int isa = 0; isa < host::instruction_set_count; ++isa) {
    how = {static_cast<host::instruction_set>(isa), host::precision::two_terms, true};
    if (!host::is_available(how.isa)) CHECK(call(good, how, work.bytes()) == status::unsupported);
  }
  CHECK(call(good, portable, work.bytes()) == status::ok);
  CHECK_FALSE(bytes == std::vector<std::byte>(bytes.size(), std::byte{7}));
}

TEST_CASE("schemes without an encoder are encoded slowly or not at all", "[host][encode][checks]") {
  composed<affine<5>, per_row, identity, linear> const five;
  composed<affine<4>, per_token<24>> const narrow_groups;
  for (host::execution how : test::all_instruction_sets()) {
    how.allow_slow = false;
    CHECK(host::supports_encode(five, side::key, {64, 32}, 1, how) == status::unsupported);
    CHECK(host::supports_encode(narrow_groups, side::key, {64, 32}, 1, how) == status::unsupported);
    CHECK(host::supports_encode(narrow_groups, side::key, {80, 32}, 1, how) == status::bad_head_dim);
  }
  test::check_encode<decltype(narrow_groups), float16>(narrow_groups, {side::value, {96, 64}, 2, 5, 3, true},
                                                       111);
}
