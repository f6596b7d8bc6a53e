// SPDX-License-Identifier: Apache-2.0
//! @file Promises of the README about how functions work: this program is built without exceptions and
//! run-time type information and counts every allocation. attend, merge_outputs and a scheme's encode must
//! make none.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

namespace {

long allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  void* const p = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
  if (p == nullptr) std::abort();
  return p;
}

}  // namespace

// Not inlined: g++ 12.2 takes free() in an inlined delete for a mismatch with the new that it did not inline.
[[gnu::noinline]] void* operator new(std::size_t n) { return counted(n, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new[](std::size_t n) { return counted(n, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  return counted(n, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void* operator new[](std::size_t n, std::align_val_t a) {
  return counted(n, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace kvcrumb;

constexpr int kv_heads = 2, query_heads = 4, width = 64, queries = 3;
constexpr std::int64_t tokens = 300;

//! True if the calls that must not allocate do not, for one system.
template <class Scheme>
bool allocates_nothing(Scheme const& scheme) {
  std::mt19937 engine{1};
  std::normal_distribution<float> normal;
  std::vector<float> rows(kv_heads * tokens * width), q(query_heads * queries * width), o(q.size()),
      other(q.size());
  for (float& x : rows)
    x = normal(engine);
  for (float& x : q)
    x = normal(engine);
  kv_cache<Scheme> cache;
  cache_config const config{.kv_heads = kv_heads, .shape = {.head_dim = width, .tile_tokens = 128}};
  auto const view = hnd_rows(rows.data(), tokens, width);
  bool good = kv_cache<Scheme>::create(scheme, config, cache) == status::ok;
  good = good && cache.append(view, view, tokens) == status::ok;
  std::vector<float> work(static_cast<std::size_t>(attend_workspace(cache.view(), query_heads, queries)));
  std::vector<float> lse(query_heads * queries);
  auto const in = hnd_rows(q.data(), queries, width);

  blob_layout const blob = scheme.blob(config.shape);
  std::vector<std::byte> page(static_cast<std::size_t>(kv_heads * blob.bytes));
  std::byte* key_sections[kv_heads] = {page.data() + blob.key_offset,
                                       page.data() + blob.bytes + blob.key_offset};
  std::byte* value_sections[kv_heads] = {page.data() + blob.value_offset,
                                         page.data() + blob.bytes + blob.value_offset};
  null_tracer none;
  int const n = Scheme::append_tokens;
  encode_request const of_keys{rows.data(), nullptr, key_sections, kv_heads, n, 0, 0};
  encode_request const of_values{rows.data(), nullptr, value_sections, kv_heads, n, 0, 0};

  long const before = allocations;
  scheme.key.encode(side::key, config.shape, of_keys, none);
  scheme.value.encode(side::value, config.shape, of_values, none);
  good = good && attend(cache.view(), in, query_heads, queries, hnd_rows(o.data(), queries, width),
                        lse.data(), {}, work) == status::ok;
  merge_outputs(other.data(), lse[0], o.data(), lse[1], width);
  long const made = allocations - before;
  std::printf("%-8s %ld allocations\n", scheme.name, made);
  return good && made == 0;
}

}  // namespace

int main() {
  bool good = allocates_nothing(schemes::kivi<2, 32>());
  good = allocates_nothing(schemes::ott<2, 64>()) && good;
  good = allocates_nothing(schemes::nqkv4()) && good;
  good = allocates_nothing(schemes::qserve4()) && good;
  good = allocates_nothing(schemes::q8_0()) && good;
  good = allocates_nothing(schemes::q4_0()) && good;
  good = allocates_nothing(schemes::fp16()) && good;
  return good && allocations > 0 ? 0 : 1;
}
