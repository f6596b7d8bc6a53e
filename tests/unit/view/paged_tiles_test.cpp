// SPDX-License-Identifier: Apache-2.0
//! @file Paged and scattered tiles: block tables, any blob stride, sections in buffers of their own; whatever
//! unused bytes hold never reaches the output.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr int heads = 2, dim = 64, tile_tokens = 32;

//! A buffer of pages full of 0xFF (NaN in every float format) into which sections are copied.
struct pages {
  std::vector<std::byte> buffer;
  std::vector<std::int32_t> table;
  sections_view<std::byte const> view;

  pages(std::int64_t tiles, std::int64_t bytes, std::int64_t padding, bool heads_outside, unsigned seed) {
    std::int64_t const stride = bytes + padding, capacity = tiles + 5;
    buffer.assign(test::size(stride * heads * capacity), std::byte{0xFF});
    for (std::int32_t i = 0; i < capacity; ++i)
      table.push_back(i);
    std::shuffle(table.begin(), table.end(), std::mt19937{seed});
    view = {buffer.data(), heads_outside ? stride * capacity : stride,
            heads_outside ? stride : stride * heads, table.data()};
  }
  //! Where a section belongs, computed without the view.
  std::byte* at(int head, std::int64_t tile) {
    return buffer.data() + head * view.stride_head + table[test::size(tile)] * view.stride_tile;
  }
};

template <class Scheme>
void compare_paged(Scheme const& scheme, std::int64_t tokens, std::int64_t padding, bool heads_outside) {
  test::layer_rows const rows = test::random_layer(6, heads, tokens, dim, 3, 5);
  auto const cache = test::filled(scheme, rows, scheme.append_tokens > tile_tokens ? 128 : tile_tokens);
  auto view = cache.view();
  auto const q = test::random_queries(3, 4, 3, dim);
  attention_options options;
  options.window = GENERATE(0, 70);
  auto const expected = test::run_attention(view, q, 4, 3, options);
  std::int64_t const mask_bytes = view.shape.tile_tokens / 8;
  std::int64_t const key_bytes = scheme.key.section_bytes(side::key, view.shape);
  std::int64_t const value_bytes = scheme.value.section_bytes(side::value, view.shape);
  pages keys(view.tiles(), key_bytes, padding, heads_outside, 1),
      values(view.tiles(), value_bytes, padding + 16, false, 2),
      masks(view.tiles(), mask_bytes, 1 + padding, true, 3);
  for (std::int64_t tile = 0; tile < view.tiles(); ++tile) {
    for (int h = 0; h < heads; ++h) {
      std::memcpy(keys.at(h, tile), view.keys.section(h, tile), test::size(key_bytes));
      std::memcpy(values.at(h, tile), view.values.section(h, tile), test::size(value_bytes));
      std::memcpy(masks.at(h, tile), view.masks.section(h, tile), test::size(mask_bytes));
    }
  }
  view.keys = keys.view;
  view.values = values.view;
  view.masks = masks.view;
  auto const got = test::run_attention(view, q, 4, 3, options);
  CAPTURE(scheme.name, tokens, padding, heads_outside);
  CHECK(test::same_bits(got.output, expected.output));
  CHECK(test::same_bits(got.lse, expected.lse));
}

//! Overwrites everything of a section that belongs to slots which are not valid: codes, and parameters of
//! groups without any valid slot.
template <class Composed>
void poison(Composed const& scheme, side which, tile_shape shape, std::byte* section,
            std::vector<bool> const& valid) {
  section_spec const s = Composed::spec(which, shape);
  for (int t = 0; t < shape.tile_tokens; ++t) {
    if (valid[test::size(t)]) continue;
    for (int d = 0; d < shape.head_dim; ++d) {
      Composed::layout_type::store(s, section, t, d, (1u << scheme.bits) - 1u);
    }
  }
  for (int owner = 0; owner < s.owners(); ++owner) {
    for (int group = 0; group < s.groups(); ++group) {
      bool used = !s.per_channel && valid[test::size(owner)];
      for (int t = group * s.group; s.per_channel && t < (group + 1) * s.group && t < shape.tile_tokens;
           ++t) {
        used = used || valid[test::size(t)];
      }
      if (used) continue;
      for (int plane = 0; plane < s.planes; ++plane) {
        std::memset(section + Composed::layout_type::param_offset(s, plane, owner, group), 0xFF,
                    test::size(s.param_bytes));
      }
    }
  }
}

}  // namespace

TEST_CASE("permuted pages with any stride, keys, values and masks apart", "[view][paging]") {
  std::int64_t const tokens = GENERATE(1, 33, 100, 230);
  compare_paged(schemes::ott<2, 32>(), tokens, 48, false);
  compare_paged(schemes::ott<2, 32>(), tokens, 0, true);
  compare_paged(schemes::nqkv4(), tokens, 16, true);
  compare_paged(schemes::q4_0(), tokens, 7, true);  // ggml's blocks have no alignment of their own
  compare_paged(schemes::kivi<2, 32>(), tokens, 4096, false);
}

TEST_CASE("poisoned pages, unused slots and masked slots never leak", "[view][paging]") {
  std::int64_t const tokens = GENERATE(1, 7, 24, 40, 75, 99);
  bool const generic = GENERATE(false, true);
  auto const run = [&](auto const& scheme) {
    test::layer_rows const rows = test::random_layer(6, heads, tokens, dim, 3, 9);
    auto const cache = test::filled(scheme, rows, tile_tokens);
    auto view = cache.view();
    auto const q = test::random_queries(3, 4, 3, dim);
    auto const expected = test::run_attention(view, q, 4, 3);
    blob_layout const parts = cache.blob_parts();
    pages blobs(view.tiles(), parts.bytes, 64, false, 9);
    int poisoned = 0;
    for (std::int64_t tile = 0; tile < view.tiles(); ++tile) {
      for (int h = 0; h < heads; ++h) {
        // Section by section: the gaps between them stay 0xFF.
        std::byte* b = blobs.at(h, tile);
        std::byte const* from = cache.blob(tile, h);
        std::memcpy(b + parts.key_offset, from + parts.key_offset,
                    test::size(scheme.key.section_bytes(side::key, view.shape)));
        std::memcpy(b + parts.value_offset, from + parts.value_offset,
                    test::size(scheme.value.section_bytes(side::value, view.shape)));
        std::memcpy(b + parts.mask_offset, from + parts.mask_offset, tile_tokens / 8);
        std::vector<bool> valid;
        for (int t = 0; t < tile_tokens; ++t) {
          valid.push_back(view.valid(h, tile, t));
          poisoned += valid.back() ? 0 : 1;
        }
        poison(scheme.key, side::key, view.shape, b + parts.key_offset, valid);
        poison(scheme.value, side::value, view.shape, b + parts.value_offset, valid);
      }
    }
    view.keys = blobs.view;
    view.values = blobs.view;
    view.masks = blobs.view;
    view.keys.data += parts.key_offset;
    view.values.data += parts.value_offset;
    view.masks.data += parts.mask_offset;
    auto const got = test::run_attention(view, q, 4, 3);
    CAPTURE(scheme.name, tokens, generic, poisoned);
    CHECK((poisoned > 0) == (view.tiles() > 0));
    CHECK(test::same_bits(got.output, expected.output));
    CHECK(test::same_bits(got.lse, expected.lse));
  };
  using keys_type = composed<affine<2, float16, kivi_convention>, per_channel<8>>;
  using values_type = composed<affine<2, float16, kivi_convention>, per_token<32>>;
  struct unhooked : keys_type {
    void load_tile() const = delete;
  };
  if (generic) {
    run(kv_scheme<unhooked, values_type, token_pool<>>{.flush = {0, 8}, .isolate = {.capacity = 3}});
  } else {
    run(kv_scheme<keys_type, values_type, token_pool<>>{.flush = {0, 8}, .isolate = {.capacity = 3}});
    // Values per channel too.
    run(kv_scheme<keys_type, composed<affine<4>, per_channel<8>>, token_pool<>>{.flush = {3, 8},
                                                                                .isolate = {.capacity = 3}});
    run(schemes::qserve4());
    run(schemes::nqkv4());
    run(schemes::q8_0());
  }
}

TEST_CASE("poisoned exact rows beyond their counts never leak", "[view]") {
  test::layer_rows const rows = test::random_layer(6, heads, 75, dim, 3, 9);
  auto scheme = schemes::ott<2, 32>();
  scheme.isolate.sinks = 2;
  auto const cache = test::filled(scheme, rows, tile_tokens);
  auto view = cache.view();
  auto const q = test::random_queries(3, 4, 3, dim);
  auto const expected = test::run_attention(view, q, 4, 3);
  std::vector<std::vector<float16>> buffers;
  buffers.reserve(8);
  auto const move_rows = [&](rows_view<float16 const>& r, auto count_of) {
    std::int64_t const capacity = 60, stride_token = dim + 8, stride_head = capacity * stride_token;
    buffers.emplace_back(test::size(heads * stride_head), float16{0xFFFF});
    for (int h = 0; h < heads; ++h) {
      for (std::int64_t i = 0; i < count_of(h); ++i) {
        std::copy_n(r.row(h, i), dim, buffers.back().data() + h * stride_head + i * stride_token);
      }
    }
    r = {buffers.back().data(), stride_head, stride_token};
  };
  for (auto* part : {&view.sinks, &view.tail}) {
    move_rows(part->keys, [&](int) { return part->count; });
    move_rows(part->values, [&](int) { return part->count; });
  }
  for (auto* part : {&view.pool, &view.aux}) {
    move_rows(part->keys, [&](int h) { return part->counts[h]; });
    move_rows(part->values, [&](int h) { return part->counts[h]; });
  }
  CHECK(view.pool.counts[0] > 0);
  CHECK(view.tail.count > 0);
  auto const got = test::run_attention(view, q, 4, 3);
  CHECK(test::same_bits(got.output, expected.output));
  CHECK(test::same_bits(got.lse, expected.lse));
}

TEST_CASE("a view without pools: null counts mean empty", "[view]") {
  test::layer_rows const rows = test::random_layer(6, heads, 75, dim);
  auto const cache = test::filled(schemes::qserve4(), rows, tile_tokens);
  auto view = cache.view();
  auto const q = test::random_queries(3, 4, 1, dim);
  auto const expected = test::run_attention(view, q, 4, 1);
  view.pool = {};
  view.aux = {};
  view.sinks = {};
  CHECK(test::same_bits(test::run_attention(view, q, 4, 1).output, expected.output));
}

TEST_CASE("copy_tiles moves tiles between pages", "[view][paging]") {
  test::layer_rows const rows = test::random_layer(6, heads, 130, dim, 3, 5);
  auto const cache = test::filled(schemes::ott<2, 32>(), rows, tile_tokens);
  auto view = cache.view();
  auto const q = test::random_queries(3, 4, 3, dim);
  auto const expected = test::run_attention(view, q, 4, 3);
  blob_layout const parts = cache.blob_parts();
  pages blobs(view.tiles(), parts.bytes, 32, true, 4);
  sections_view<std::byte> const to{blobs.buffer.data(), blobs.view.stride_head, blobs.view.stride_tile,
                                    blobs.table.data()};
  sections_view<std::byte const> const from{cache.blob(0, 0), cache.blob(0, 1) - cache.blob(0, 0),
                                            cache.blob(1, 0) - cache.blob(0, 0), nullptr};
  REQUIRE(copy_tiles(from, to, heads, view.tiles(), parts.bytes) == status::ok);
  view.keys = view.values = view.masks = blobs.view;
  view.keys.data += parts.key_offset;
  view.values.data += parts.value_offset;
  view.masks.data += parts.mask_offset;
  CHECK(test::same_bits(test::run_attention(view, q, 4, 3).output, expected.output));
  // The padding of the pages is untouched.
  bool padding_kept = true;
  for (std::int64_t i = 0; i < 32; ++i)
    padding_kept = padding_kept && blobs.at(0, 0)[parts.bytes + i] == std::byte{0xFF};
  CHECK(padding_kept);

  auto const before = blobs.buffer;
  auto bad = to;
  CHECK(copy_tiles(from, to, -1, 1, parts.bytes) == status::bad_shape);
  CHECK(copy_tiles(from, to, 1, -1, parts.bytes) == status::bad_shape);
  CHECK(copy_tiles(from, to, 1, 1, -1) == status::bad_shape);
  CHECK(copy_tiles({}, to, 1, 1, 8) == status::null_pointer);
  CHECK(copy_tiles(from, {}, 1, 1, 8) == status::null_pointer);
  bad.stride_head = parts.bytes - 1;
  CHECK(copy_tiles(from, bad, heads, 1, parts.bytes) == status::bad_stride);
  bad = to;
  bad.stride_tile = 0;
  CHECK(copy_tiles(from, bad, 1, 2, parts.bytes) == status::bad_stride);
  CHECK(copy_tiles({}, {}, 0, 5, 8) == status::ok);
  CHECK(blobs.buffer == before);
}
