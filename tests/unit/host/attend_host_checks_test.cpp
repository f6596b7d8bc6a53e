// SPDX-License-Identifier: Apache-2.0
//! @file host::attend refuses what it cannot do, keeps damage visible and never reads stale slots.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

host::instruction_set absent_instruction_set() {
#if defined(__aarch64__)
  return host::instruction_set::avx2;
#else
  return host::instruction_set::neon_dotprod;
#endif
}

}  // namespace

TEST_CASE("names of instruction sets, and which there are", "[host]") {
  CHECK(std::string(host::to_string(host::instruction_set::portable)) == "portable");
  CHECK(std::string(host::to_string(host::instruction_set::avx2)) == "avx2");
  CHECK(std::string(host::to_string(host::instruction_set::avx512_vnni)) == "avx512_vnni");
  CHECK(std::string(host::to_string(host::instruction_set::neon_dotprod)) == "neon_dotprod");
  CHECK(std::string(host::to_string(host::instruction_set::amx_int8)) == "amx_int8");
  CHECK(host::is_available(host::instruction_set::portable));
  CHECK_FALSE(host::is_available(absent_instruction_set()));
  CHECK(host::is_available(host::best_instruction_set()));
}

TEST_CASE("AMX is used only after it was asked for", "[host][checks]") {
  if (host::request_amx() == status::ok) {
    CHECK(host::is_available(host::instruction_set::amx_int8));
    CHECK(host::best_instruction_set() == host::instruction_set::amx_int8);
    CHECK(host::request_amx() == status::ok);
  } else {
    CHECK_FALSE(host::is_available(host::instruction_set::amx_int8));
    CHECK(host::best_instruction_set() != host::instruction_set::amx_int8);
  }
}

TEST_CASE("host::attend refuses and writes nothing", "[host][checks]") {
  test::layer_rows const rows = test::random_layer(1, 2, 100, 64);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, 32);
  auto const view = cache.view();
  auto const q = test::random_queries(1, 4, 2, 64);
  std::vector<float> o(512, 7.0f), lse(8, 7.0f);
  test::aligned_bytes const work(host::attend_workspace_bytes(view, 4, 2));
  host::execution const portable{host::instruction_set::portable, host::precision::two_terms, true};
  auto const call = [&](auto const& v, host::execution const& how, std::span<std::byte> memory,
                        int query_heads = 4) {
    status const s = host::attend(v, hnd_rows(q.data(), 2, 64), query_heads, 2, hnd_rows(o.data(), 2, 64),
                                  lse.data(), {}, memory, how);
    if (s != status::ok) {
      CHECK(o == std::vector<float>(512, 7.0f));
      CHECK(lse == std::vector<float>(8, 7.0f));
    }
    return s;
  };
  CHECK(call(view, portable, work.bytes().first(work.bytes().size() - 1)) == status::buffer_too_small);
  CHECK(call(view, portable, {}) == status::buffer_too_small);
  CHECK(call(view, portable, work.bytes().subspan(4)) == status::misaligned);
  CHECK(call(view, portable, work.bytes(), 3) == status::bad_shape);
  host::execution how = portable;
  how.allow_slow = false;
  CHECK(call(view, how, work.bytes()) == status::unsupported);
  for (bool const slow : {false, true}) {
    how = {host::instruction_set::avx512_vnni, host::precision::two_terms, slow, true};
    if (slow) how.isa = host::instruction_set::portable;  // has nothing to emulate it with
    CHECK(call(view, how, work.bytes()) == status::unsupported);
  }
  how = {absent_instruction_set(), host::precision::two_terms, true};
  CHECK(call(view, how, work.bytes()) == status::unsupported);
  CHECK(host::supports(view.scheme, view.shape, 2, how) == status::unsupported);
  CHECK(host::supports(view.scheme, view.shape, 2, portable) == status::ok);
  CHECK(host::supports(view.scheme, {80, 32}, 2, portable) == status::bad_head_dim);

  // A scheme without a kernel: kvcrumb::attend answers, but only if that is allowed.
  STATIC_REQUIRE_FALSE(host::has_kernel<schemes::q8_0_type>);
  STATIC_REQUIRE_FALSE(host::has_kernel<decltype(schemes::kivi<2, 32, linear>())>);
  auto const slow = test::filled(schemes::q8_0(), rows, 32);
  test::aligned_bytes const more(host::attend_workspace_bytes(slow.view(), 4, 2));
  host::execution best;
  CHECK(call(slow.view(), best, more.bytes()) == status::unsupported);
  best.allow_slow = true;
  CHECK(call(slow.view(), best, more.bytes()) == status::ok);
  CHECK(test::same_bits(o, test::run_attention(slow.view(), q, 4, 2).output));
}

TEST_CASE("items of a split are refused like calls", "[host][checks]") {
  auto const cache = test::filled(schemes::ott<2, 32>(), test::random_layer(1, 1, 700, 64), 32);
  auto const view = cache.view();
  auto const q = test::random_queries(1, 1, 1, 64);
  auto const split = host::work_split::of(1, view.tiles(), 2);
  REQUIRE(split.parts > 1);
  std::vector<float> o(64), partial(test::size(split.partial_floats(1, 1, 64)));
  test::aligned_bytes const work(host::attend_workspace_bytes(view, 1, 1));
  host::execution const how{host::instruction_set::portable, host::precision::two_terms, true};
  auto const item = [&](host::work_split const& s, int i, std::span<float> memory) {
    return host::attend_item(s, i, view, hnd_rows(q.data(), 1, 64), 1, 1, hnd_rows(o.data(), 1, 64), nullptr,
                             {}, memory, work.bytes(), how);
  };
  CHECK(item(split, -1, partial) == status::out_of_range);
  CHECK(item(split, split.items(), partial) == status::out_of_range);
  CHECK(item(host::work_split::of(2, view.tiles(), 2), 0, partial) == status::out_of_range);
  CHECK(item(host::work_split::of(1, view.tiles() + 1, 2), 0, partial) == status::out_of_range);
  CHECK(item(split, 0, std::span<float>(partial).first(partial.size() - 1)) == status::buffer_too_small);
  CHECK(host::join(split, 1, 1, 64, hnd_rows(o.data(), 1, 64), nullptr,
                   std::span<float>(partial).first(partial.size() - 1)) == status::buffer_too_small);
  CHECK(host::join(split, 1, 1, 64, hnd_rows<float>(nullptr, 1, 64), nullptr, partial) ==
        status::null_pointer);
}

TEST_CASE("NaN parameters reach the result, those of slots that are not read do not", "[host]") {
  test::layer_rows const rows = test::random_layer(5, 1, 96, 64);
  auto const q = test::random_queries(2, 1, 1, 64);
  auto const cache = test::filled(schemes::nqkv4(), rows, 32);
  for (host::execution const& how : test::all_executions()) {
    CAPTURE(host::to_string(how.isa), static_cast<int>(how.arithmetic));
    std::vector<float> const clean = test::run_host(cache.view(), q, 1, 1, how).output;
    for (bool const of_keys : {true, false}) {
      // Slot 5 of tile 1: its scale becomes NaN.
      section_spec const spec =
          schemes::nqkv4_type<>::key_type::spec(of_keys ? side::key : side::value, {64, 32});
      std::vector<std::byte> section(test::size(fragment::section_bytes(spec)));
      auto view = cache.view();
      auto& sections = of_keys ? view.keys : view.values;
      std::vector<std::byte> copy(test::size(3 * sections.stride_tile));
      std::memcpy(copy.data(), sections.data,
                  copy.size() - test::size(sections.stride_tile) + section.size());
      float16 const nan{0x7E00};
      std::memcpy(copy.data() + sections.stride_tile + fragment::param_offset(spec, 0, 5, 0), &nan, 2);
      sections.data = copy.data();
      auto const damaged = test::run_host(view, q, 1, 1, how);
      CHECK(std::isnan(damaged.output[0]));
      CHECK(std::isnan(damaged.output[63]));
      if (of_keys) CHECK(std::isnan(damaged.lse[0]));

      std::vector<std::byte> mask(test::size(view.masks.stride_tile) * 2 + 4);
      std::memcpy(mask.data(), view.masks.data, mask.size());
      mask[test::size(view.masks.stride_tile)] &= ~(std::byte{1} << 5);
      view.masks.data = mask.data();
      auto const hidden = test::run_host(view, q, 1, 1, how);
      CHECK_FALSE(std::isnan(hidden.output[0]));
      CHECK_FALSE(std::isnan(hidden.lse[0]));
      auto clean_view = cache.view();
      clean_view.masks.data = mask.data();
      CHECK(test::same_bits(hidden.output, test::run_host(clean_view, q, 1, 1, how).output));
      CHECK_FALSE(test::same_bits(hidden.output, clean));
    }
  }
}

TEST_CASE("a scale that is NaN beside a good minimum reaches the result", "[host]") {
  test::layer_rows const rows = test::random_layer(6, 1, 64, 64);
  auto const q = test::random_queries(2, 1, 1, 64);
  using scheme_type = schemes::kivi_type<2, 32>;
  auto scheme = schemes::kivi<2, 32>();
  scheme.flush.block = 32;
  auto const cache = test::filled(scheme, rows, 32);
  for (host::execution const& how : test::all_executions()) {
    for (bool const of_keys : {true, false}) {
      section_spec const spec = of_keys ? scheme_type::key_type::spec(side::key, {64, 32})
                                        : scheme_type::value_type::spec(side::value, {64, 32});
      auto view = cache.view();
      auto& sections = of_keys ? view.keys : view.values;
      std::vector<std::byte> copy(test::size(2 * sections.stride_tile));
      std::memcpy(copy.data(), sections.data,
                  test::size(sections.stride_tile + fragment::section_bytes(spec)));
      float16 const nan{0x7E00};
      std::memcpy(copy.data() + fragment::param_offset(spec, 0, 7, 0), &nan, 2);  // channel 7 or slot 7
      sections.data = copy.data();
      auto const damaged = test::run_host(view, q, 1, 1, how);
      CAPTURE(host::to_string(how.isa), static_cast<int>(how.arithmetic), of_keys);
      CHECK(std::isnan(damaged.output[0]));
      CHECK(std::isnan(damaged.output[63]) == of_keys);  // values: the other channel group is whole
    }
  }
}
