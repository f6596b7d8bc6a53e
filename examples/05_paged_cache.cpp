// SPDX-License-Identifier: Apache-2.0
//! @file Pages that an engine owns: rows are encoded straight into them and attention reads through a block
//! table. No kv_cache is involved; kvcrumb neither allocates nor keeps anything.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

using namespace kvcrumb;

namespace {

constexpr int heads = 2, query_heads = 4;
constexpr std::int64_t tokens = 150;
constexpr tile_shape shape{.head_dim = 96, .tile_tokens = 64};
constexpr auto count(std::int64_t n) { return static_cast<std::size_t>(n); }
std::vector<float> normal_rows(unsigned seed, std::int64_t rows) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> x(count(rows * shape.head_dim));
  for (float& v : x)
    v = to_float(from_float<float16>(normal(engine)));  // a kv_cache rounds rows to fp16 first
  return x;
}

}  // namespace

int main() {
  using scheme_type = schemes::qserve4_type<>;  // row-independent: any token can be written alone
  scheme_type const scheme = schemes::qserve4();
  if (scheme.supports(shape, heads) != status::ok) return 1;
  // example-begin pages
  // The engine's memory: 8 pages of 16 KiB; a page holds one tile of every kv head, 6,912 bytes apart.
  blob_layout const blob = scheme.blob(shape);
  constexpr std::int64_t blob_stride = 6912, page_bytes = 16384;
  if (blob.bytes > blob_stride || heads * blob_stride > page_bytes) return 1;
  std::vector<std::byte> memory(8 * page_bytes, std::byte{0xFF});  // stale bytes
  std::vector<std::int32_t> const block_table{6, 1, 3};  // tile i of this sequence lies in this page

  auto const section = [&](std::int64_t offset) {  // keys, values or masks, wherever the pages are
    return sections_view<std::byte>{memory.data() + offset, blob_stride, page_bytes, block_table.data()};
  };
  auto const keys = section(blob.key_offset), values = section(blob.value_offset);
  auto const masks = section(blob.mask_offset);
  // example-end pages

  // example-begin write
  std::vector<float> const k = normal_rows(1, heads * tokens), v = normal_rows(2, heads * tokens);
  null_tracer none;
  for (int i = 0; i < 3 * heads; ++i)
    std::memset(masks.section(i % heads, i / heads), 0, shape.tile_tokens / 8);  // no slot is valid yet
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::int64_t const tile = t / shape.tile_tokens;
    int const slot = static_cast<int>(t % shape.tile_tokens);
    std::vector<float> key_rows, value_rows;  // [heads][1][head_dim]; encode() may overwrite them
    std::byte *key_sections[heads], *value_sections[heads];
    for (int h = 0; h < heads; ++h) {
      auto const row = (h * tokens + t) * shape.head_dim;
      key_rows.insert(key_rows.end(), k.begin() + row, k.begin() + row + shape.head_dim);
      value_rows.insert(value_rows.end(), v.begin() + row, v.begin() + row + shape.head_dim);
      key_sections[h] = keys.section(h, tile);
      value_sections[h] = values.section(h, tile);
      masks.section(h, tile)[slot / 8] |= std::byte{1} << (slot % 8);
    }
    encode_request const of_keys{key_rows.data(), nullptr, key_sections, heads, 1, slot, t};
    encode_request const of_values{value_rows.data(), nullptr, value_sections, heads, 1, slot, t};
    scheme.key.encode(side::key, shape, of_keys, none);
    scheme.value.encode(side::value, shape, of_values, none);
  }
  // example-end write

  // example-begin view
  cache_view<scheme_type, float16> view{
      .scheme = scheme, .shape = shape, .kv_heads = heads, .tokens = tokens};
  view.keys = keys, view.values = values, view.masks = masks;
  view.tile_tokens = tokens;
  // example-end view
  // The same tokens in a kv_cache must give the same output to the last bit.
  kv_cache<scheme_type> cache;
  status s = kv_cache<scheme_type>::create(scheme, {.kv_heads = heads, .shape = shape}, cache);
  if (s != status::ok) return 1;
  constexpr int width = shape.head_dim;
  s = cache.append(hnd_rows(k.data(), tokens, width), hnd_rows(v.data(), tokens, width), tokens);
  if (s != status::ok) return 1;
  std::vector<float> const q = normal_rows(3, query_heads);
  std::vector<float> work(count(attend_workspace(view, query_heads, 1))), paged(q.size()), owned(q.size());
  auto const ask = [&](cache_view<scheme_type, float16> const& from, std::vector<float>& o) {
    return attend(from, hnd_rows(q.data(), 1, width), query_heads, 1, hnd_rows(o.data(), 1, width), nullptr,
                  {}, work);
  };
  if ((s = ask(view, paged)) != status::ok || (s = ask(cache.view(), owned)) != status::ok) return 1;
  std::printf("output from pages 6, 1, 3 %s that of a kv_cache\n",
              paged == owned ? "equals" : "DIFFERS FROM");
  return paged == owned && std::isfinite(paged[0]) ? 0 : 1;
}
