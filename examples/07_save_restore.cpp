// SPDX-License-Identifier: Apache-2.0
//! @file Save a cache, restore it, go on; and what a cut, damaged or foreign file gives.
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

namespace {

constexpr int heads = 2, width = 64;
constexpr std::int64_t tokens = 400, before = 300;

std::vector<float> normal_rows(unsigned seed) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(heads * tokens * width));
  for (float& v : x)
    v = normal(engine);
  return x;
}

bool expect(char const* what, kvcrumb::status got, kvcrumb::status expected) {
  std::printf("%-34s %s\n", what, kvcrumb::to_string(got));
  return got == expected;
}

}  // namespace

int main() {
  using namespace kvcrumb;
  using scheme_type = schemes::ott_type<2, 32>;
  using cache_type = kv_cache<scheme_type>;
  scheme_type const scheme = schemes::ott<2, 32>();
  std::vector<float> const k = normal_rows(1), v = normal_rows(2);
  auto const keys = hnd_rows(k.data(), tokens, width), values = hnd_rows(v.data(), tokens, width);
  auto const from = [](rows_view<float const> rows, std::int64_t t) {
    return rows_view<float const>{rows.row(0, t), rows.stride_head, rows.stride_token};
  };

  cache_type cache;
  if (cache_type::create(scheme, {.kv_heads = heads, .shape = {width, 64}}, cache) != status::ok) return 1;
  if (cache.append(keys, values, before) != status::ok) return 1;

  // example-begin save
  std::vector<std::byte> file(static_cast<std::size_t>(saved_bytes(cache)));
  status const saved = save(cache, file);

  cache_type restored;  // left as it is unless restore() returns ok
  status const read = restore(file, scheme, restored);
  // example-end save
  bool good = expect("save", saved, status::ok);
  good = expect("restore", read, status::ok) && good;

  // Both go on and must stay equal to the last byte.
  if (cache.append(from(keys, before), from(values, before), tokens - before) != status::ok) return 1;
  if (restored.append(from(keys, before), from(values, before), tokens - before) != status::ok) return 1;
  std::vector<std::byte> a(static_cast<std::size_t>(saved_bytes(cache)));
  std::vector<std::byte> b(static_cast<std::size_t>(saved_bytes(restored)));
  good = save(cache, a) == status::ok && save(restored, b) == status::ok && a == b && good;
  std::printf("after 100 more tokens, both caches:  %s\n", a == b ? "the same bytes" : "DIFFERENT BYTES");

  // example-begin refused
  std::span<std::byte const> const whole = file;
  good = expect("cut in half", restore(whole.first(file.size() / 2), scheme, restored), status::truncated) &&
         good;
  good = expect("another pool size", restore(whole, schemes::ott<2, 32>(5), restored),
                status::scheme_mismatch) &&
         good;
  file.back() ^= std::byte{1};
  good = expect("one bit flipped", restore(whole, scheme, restored), status::bad_checksum) && good;
  file[0] = std::byte{'X'};
  good = expect("not a kvcrumb file", restore(whole, scheme, restored), status::bad_magic) && good;
  good = restored.size() == tokens && good;  // four refusals have not touched it
  // example-end refused
  return good ? 0 : 1;
}
