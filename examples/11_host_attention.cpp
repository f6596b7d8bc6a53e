// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention with the vector instructions of the CPU: choose kernels once, split a call among
//! threads, compare with the portable attention.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <kvcrumb/host.hpp>
#include <kvcrumb/kvcrumb.hpp>

namespace {

constexpr int kv_heads = 3, query_heads = 12, width = 128;
constexpr std::int64_t tokens = 3000;
constexpr auto count(std::int64_t n) { return static_cast<std::size_t>(n); }
std::vector<float> normal_rows(unsigned seed, std::int64_t rows) {
  std::mt19937 engine{seed};
  std::normal_distribution<float> normal;
  std::vector<float> x(count(rows * width));
  for (float& v : x)
    v = normal(engine);
  return x;
}

}  // namespace

int main() {
  using namespace kvcrumb;
  std::vector<float> const keys = normal_rows(1, kv_heads * tokens),
                           values = normal_rows(2, kv_heads * tokens);
  std::vector<float> const q = normal_rows(3, query_heads);
  auto const scheme = schemes::ott<2>();
  tile_shape const shape{.head_dim = width, .tile_tokens = 128};

  // example-begin attend
  // Once, when the program starts: which kernels to use. The best of this processor, unless a user overrides
  // it; AMX only if Linux was asked for it.
  bool const amx = host::request_amx() == status::ok;
  host::execution how;
  how.allow_slow = true;  // an example must run anywhere; an engine would rather know
  std::printf("kernels: %s%s\n", host::to_string(how.isa), amx ? "" : " (no AMX here)");
  if (status const s = host::supports(scheme, shape, kv_heads, how); s != status::ok) {
    std::printf("host::attend cannot do this: %s\n", to_string(s));
    return 1;
  }
  // example-end attend

  // example-begin append
  kv_cache<schemes::ott_type<2>> cache;
  if (decltype(cache)::create(scheme, {.kv_heads = kv_heads, .shape = shape}, cache) != status::ok) return 1;
  host::vector_encoder encoder{how};  // keeps its memory between calls; one per thread
  status const appended = cache.append(hnd_rows(keys.data(), tokens, width),
                                       hnd_rows(values.data(), tokens, width), tokens, encoder);
  if (appended != status::ok) return 1;
  // example-end append

  std::vector<float> o(q.size()), lse(count(query_heads));
  rows_view<float const> const queries = hnd_rows(q.data(), 1, width);
  rows_view<float> const out = hnd_rows(o.data(), 1, width);

  // example-begin threads
  constexpr int workers = 2;
  auto const view = cache.view();
  auto const split = host::work_split::of(kv_heads, view.tiles(), workers);
  std::vector<float> partial(count(split.partial_floats(query_heads, 1, width)));
  std::int64_t const bytes = host::attend_workspace_bytes(view, query_heads, 1);
  std::atomic<int> next{0};
  std::atomic<bool> good{true};
  auto const work_off = [&] {  // every worker takes items until none is left
    std::unique_ptr<std::byte, decltype(&std::free)> const memory(
        static_cast<std::byte*>(std::aligned_alloc(64, count(align_up(bytes, 64)))), &std::free);
    for (int item = next++; item < split.items(); item = next++) {
      status const s = host::attend_item(split, item, view, queries, query_heads, 1, out, lse.data(), {},
                                         partial, {memory.get(), count(bytes)}, how);
      if (s != status::ok) good = false;
    }
  };
  std::thread other(work_off);
  work_off();
  other.join();
  if (!good || host::join(split, query_heads, 1, width, out, lse.data(), partial) != status::ok) return 1;
  // example-end threads

  // The same without vector instructions.
  std::vector<float> expected(o.size()), work(count(attend_workspace(view, query_heads, 1)));
  status const s =
      attend(view, queries, query_heads, 1, hnd_rows(expected.data(), 1, width), nullptr, {}, work);
  if (s != status::ok) return 1;
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < o.size(); ++i) {
    error += std::pow(static_cast<double>(o[i] - expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  double const relative = std::sqrt(error / norm);
  std::printf("%d items of %d kv heads; difference from attend: %s\n", split.items(), kv_heads,
              relative < 1e-3 ? "below 1e-3" : "too large");
  return relative < 1e-3 ? 0 : 1;
}
