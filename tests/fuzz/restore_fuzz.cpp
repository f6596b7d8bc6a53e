// SPDX-License-Identifier: Apache-2.0
//! @file libFuzzer target: restore of hostile files, and use of what it accepts. The input is either a file
//! as it is, or a list of edits to a valid saved cache whose checksums are then made right, so that the
//! checks behind them are reached.
#include <cstdlib>
#include <random>

#include "support/cache_file_tools.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

using bytes = std::vector<std::byte>;

void require(bool condition) {
  if (!condition) std::abort();
}

constexpr int dim = 64;

//! Keys and values [2 heads][tokens][64].
std::vector<float> rows_of(int tokens) {
  std::mt19937 engine{7};
  std::vector<float> rows(static_cast<std::size_t>(2 * tokens * dim));
  for (float& x : rows)
    x = static_cast<float>(static_cast<int>(engine() % 201) - 100) / 32.0f;
  return rows;
}

template <class Scheme>
kv_cache<Scheme> filled(Scheme const& scheme, int tokens) {
  kv_cache<Scheme> cache;
  require(kv_cache<Scheme>::create(scheme, {2, {dim, 32}}, cache) == status::ok);
  if constexpr (Scheme::isolation_type::how == selection::listed) {
    std::int64_t const list[3] = {4, 9, 200};
    require(cache.isolate(list) == status::ok);
  }
  std::vector<float> const rows = rows_of(tokens);
  rows_view<float const> const view{rows.data(), static_cast<std::int64_t>(tokens) * dim, dim};
  require(cache.append(view, view, tokens) == status::ok);
  return cache;
}

template <class Scheme>
bytes saved(kv_cache<Scheme> const& cache) {
  bytes file(static_cast<std::size_t>(saved_bytes(cache)));
  require(save(cache, std::span<std::byte>{file}) == status::ok);
  return file;
}

//! Everything one can do with an accepted cache must stay inside its memory.
template <class Scheme>
void use(kv_cache<Scheme>& cache, bytes const& file) {
  bytes const again = saved(cache);
  require(again.size() <= file.size());
  int const heads = cache.config().kv_heads, width = cache.config().shape.head_dim;
  require(cache.bytes_used() <= 64 * static_cast<std::int64_t>(file.size()) + 65536);
  if (heads > 8 || cache.size() > 4096) return;
  std::vector<float> q(static_cast<std::size_t>(heads * 2 * width), 0.5f), o(q.size()),
      lse(static_cast<std::size_t>(heads * 2));
  auto const attend_once = [&] {
    auto const view = cache.view();
    std::vector<float> work(static_cast<std::size_t>(attend_workspace(view, heads, 2)));
    require(attend(view, hnd_rows(static_cast<float const*>(q.data()), 2, width), heads, 2,
                   hnd_rows(o.data(), 2, width), lse.data(), {}, work) == status::ok);
  };
  std::vector<float> key(static_cast<std::size_t>(width)), value(key.size());
  for (std::int64_t t = 0; t < cache.size(); t += 5) {
    for (int h = 0; h < heads; ++h)
      require(cache.read(h, t, key.data(), value.data()) == status::ok);
  }
  // Enough tokens to close a group and to push isolated ones around.
  std::vector<float> rows(static_cast<std::size_t>(heads * 34 * width));
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = 1.0f / static_cast<float>(1 + i % 97 + i / 97);
  rows_view<float const> const view{rows.data(), static_cast<std::int64_t>(34) * width, width};
  require(cache.append(view, view, 34) == status::ok);
  (void)cache.truncate(cache.size() - 1);
  (void)cache.truncate(cache.size() / 2);
  attend_once();
}

template <class Scheme>
void try_file(bytes const& file, Scheme const& scheme) {
  kv_cache<Scheme> cache;
  if (restore(std::span<std::byte const>{file}, scheme, cache) == status::ok) {
    use(cache, file);
  } else {
    require(cache.size() == 0 && cache.bytes_reserved() == 0);
  }
}

//! Edits of 8 bytes: where (3 bytes), how (1), what (4). Positions fold onto the file, half of them onto the
//! header and the beginning of the payload, where the structure is.
bytes edited(bytes file, std::span<std::uint8_t const> edits) {
  for (; edits.size() >= 8; edits = edits.subspan(8)) {
    std::size_t at =
        edits[0] | static_cast<std::size_t>(edits[1]) << 8 | static_cast<std::size_t>(edits[2]) << 16;
    std::uint32_t const what =
        static_cast<std::uint32_t>(edits[4]) | static_cast<std::uint32_t>(edits[5]) << 8 |
        static_cast<std::uint32_t>(edits[6]) << 16 | static_cast<std::uint32_t>(edits[7]) << 24;
    int const how = edits[3] % 6;
    std::size_t const structured = std::min<std::size_t>(file.size(), 800);
    at %= (edits[3] & 0x80) != 0 ? file.size() : structured;
    std::int32_t word = 0;
    std::size_t const n = std::min<std::size_t>(4, file.size() - at);
    std::memcpy(&word, file.data() + at, n);
    if (how == 0) word = static_cast<std::int32_t>(what);
    if (how == 1) word = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) + what % 17 - 8);
    if (how == 2) word ^= static_cast<std::int32_t>(1u << (what % 32));
    if (how == 3) word = static_cast<std::int8_t>(what & 0xFF);
    if (how == 4) file.resize(std::max<std::size_t>(file.size() - what % 64, sizeof(file_header)));
    if (how == 5) file.resize(file.size() + what % 64);
    if (how < 4) std::memcpy(file.data() + at, &word, n);
  }
  test::seal(file);
  return file;
}

auto per_layer() {
  auto scheme = schemes::ott<2, 32>(2);
  scheme.flush.recent = 5;
  scheme.isolate = {.capacity = 2, .auxiliary = 3, .across = pool_scope::per_layer, .sinks = 2};
  return scheme;
}
auto per_head() {
  kv_scheme<schemes::qserve4_type<>::key_type, schemes::qserve4_type<>::value_type, token_pool<>> scheme;
  scheme.isolate = {.capacity = 2, .auxiliary = 3};
  return scheme;
}
auto listed() {
  kv_scheme<schemes::q8_0_type::key_type, schemes::q8_0_type::value_type, external> scheme;
  scheme.isolate = {.capacity = 3, .sinks = 1};
  return scheme;
}

//! Three valid files, made once.
template <class F>
void with_seed(int which, F&& f) {
  static bytes const first = saved(filled(per_layer(), 75)), second = saved(filled(per_head(), 33)),
                     third = saved(filled(listed(), 33));
  if (which == 0) f(per_layer(), first);
  if (which == 1) f(per_head(), second);
  if (which == 2) f(listed(), third);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::span<std::uint8_t const> const rest{data + 1, size - 1};
  with_seed(data[0] % 3, [&](auto const& scheme, bytes const& seed) {
    if ((data[0] & 0x80) != 0) {
      bytes file(rest.size());
      if (!rest.empty()) std::memcpy(file.data(), rest.data(), rest.size());
      if ((data[0] & 0x40) != 0) test::seal(file);
      try_file(file, scheme);
    } else {
      bytes const file = edited(seed, rest);
      if (file != seed) try_file(file, scheme);
    }
  });
  return 0;
}
