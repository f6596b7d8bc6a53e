// SPDX-License-Identifier: Apache-2.0
//! @file What is timed: one layer of decode attention over caches in memory, in kvcrumb's formats; and the
//! floor.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "host_decode/workers.hpp"
#include "kvcrumb/host.hpp"
#include "kvcrumb/kvcrumb.hpp"

namespace kvcrumb_bench {

struct decode_problem {
  int query_heads = 32, kv_heads = 32;
  std::int64_t tokens = 4096;
};

inline constexpr int bench_head_dim = 128, bench_tile = 128;
inline constexpr std::int64_t pool_bytes = std::int64_t{384} << 20;

//! Asks Linux for pages of 2 MiB: with 4 KiB the tables of all variants' pages do not fit the caches.
inline bool use_huge_pages = false;

//! Memory on a page boundary, touched.
class bench_memory {
 public:
  explicit bench_memory(std::int64_t bytes) {
    constexpr std::int64_t huge = std::int64_t{2} << 20;
    std::int64_t const page = use_huge_pages && bytes >= huge ? huge : 4096;
    std::size_t const whole = static_cast<std::size_t>((bytes + page - 1) / page * page);
    data_ = static_cast<std::byte*>(std::aligned_alloc(static_cast<std::size_t>(page), whole));
    if (data_ == nullptr) {
      std::fputs("host_decode: no memory\n", stderr);
      std::exit(1);
    }
#if defined(__linux__)
    if (page == huge && madvise(data_, whole, MADV_HUGEPAGE) != 0) {
      std::fputs("host_decode: this system has no huge pages\n", stderr);
      std::exit(1);
    }
#endif
    std::uint64_t state = 1;  // no two pages alike, so that no hypervisor merges them
    for (std::int64_t i = 0; i + 8 <= bytes; i += 8) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      std::memcpy(data_ + i, &state, 8);
    }
  }
  bench_memory(bench_memory const&) = delete;
  bench_memory& operator=(bench_memory const&) = delete;
  ~bench_memory() { std::free(data_); }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

//! Something that one step is timed of.
struct variant {
  virtual ~variant() = default;
  virtual std::string name() const = 0;
  virtual std::int64_t bytes() const = 0;               //!< that a step must read
  virtual std::span<std::byte const> pool() const = 0;  //!< at least as many; steps go around it
  virtual void step(int round, workers& crew) = 0;
  virtual void wake(workers& crew) { crew.wake(); }
  virtual void rest(workers& crew) { crew.rest(); }
};

inline void require(kvcrumb::status s, char const* what) {
  if (s == kvcrumb::status::ok) return;
  std::fprintf(stderr, "host_decode: %s: %s\n", what, kvcrumb::to_string(s));
  std::exit(1);
}

//! host::attend over tiles in a pool that is larger than the caches. 512 random tokens are encoded; all tiles
//! are copies of theirs. There is no tail and no pool of exact rows: every byte that is read belongs to a
//! tile.
template <class Scheme>
class kv_variant final : public variant {
 public:
  kv_variant(std::string name, Scheme scheme, decode_problem const& p, kvcrumb::host::execution how)
      : name_{std::move(name)}, scheme_{scheme}, problem_{p}, how_{how} {
    using namespace kvcrumb;
    scheme_.flush.recent = 0;
    constexpr std::int64_t encoded = 512;
    kv_cache<Scheme> cache;
    require(kv_cache<Scheme>::create(scheme_, {p.kv_heads, {bench_head_dim, bench_tile}}, cache), "create");
    std::mt19937 engine{1};
    std::normal_distribution<float> normal;
    std::vector<float> rows(static_cast<std::size_t>(p.kv_heads * encoded * bench_head_dim));
    for (float& x : rows)
      x = normal(engine);
    auto const view = hnd_rows<float const>(rows.data(), encoded, bench_head_dim);
    require(cache.append(view, view, encoded), "append");
    parts_ = scheme_.blob({bench_head_dim, bench_tile});
    stride_ = align_up(parts_.bytes, default_blob_alignment);
    tiles_ = p.tokens / bench_tile;
    std::int64_t const layer = tiles_ * p.kv_heads * stride_;
    copies_ = static_cast<int>(pool_bytes / layer + 1);
    pool_ = std::make_unique<bench_memory>(layer * copies_);
    auto const source = cache.view();
    for (std::int64_t i = 0; i < copies_ * tiles_ * p.kv_heads; ++i) {
      std::int64_t const tile = i / p.kv_heads % source.tiles(), head = i % p.kv_heads;
      std::memcpy(pool_->data() + i * stride_, source.keys.section(head, tile),
                  static_cast<std::size_t>(parts_.bytes));
    }
    queries_.assign(rows.begin(), rows.begin() + p.query_heads * bench_head_dim);
    output_.resize(queries_.size());
  }

  std::string name() const override { return name_; }
  std::int64_t bytes() const override { return tiles_ * problem_.kv_heads * parts_.bytes; }
  std::span<std::byte const> pool() const override {
    return {pool_->data(), static_cast<std::size_t>(copies_ * tiles_ * problem_.kv_heads * stride_)};
  }

  kvcrumb::cache_view<Scheme, kvcrumb::float16> view(int round) const {
    kvcrumb::cache_view<Scheme, kvcrumb::float16> v;
    v.scheme = scheme_;
    v.shape = {bench_head_dim, bench_tile};
    v.kv_heads = problem_.kv_heads;
    v.tokens = v.tile_tokens = problem_.tokens;
    std::int64_t const per_tile = problem_.kv_heads * stride_;
    std::byte const* const first = pool_->data() + round % copies_ * tiles_ * per_tile;
    v.keys = {first + parts_.key_offset, stride_, per_tile};
    v.values = {first + parts_.value_offset, stride_, per_tile};
    v.masks = {first + parts_.mask_offset, stride_, per_tile};
    return v;
  }

  void step(int round, workers& crew) override {
    using namespace kvcrumb;
    auto const v = view(round);
    auto const split = host::work_split::of(v.kv_heads, v.tiles(), crew.threads());
    partial_.resize(static_cast<std::size_t>(split.partial_floats(problem_.query_heads, 1, bench_head_dim)));
    std::int64_t const needed = host::attend_workspace_bytes(v, problem_.query_heads, 1);
    while (static_cast<int>(work_.size()) < crew.threads())
      work_.push_back(std::make_unique<bench_memory>(needed));
    crew.run([&](int thread) {
      std::span<std::byte> const work{work_[static_cast<std::size_t>(thread)]->data(),
                                      static_cast<std::size_t>(needed)};
      // Neighbouring items, so that a worker reads one stretch of memory.
      int const begin = split.items() * thread / crew.threads(),
                end = split.items() * (thread + 1) / crew.threads();
      for (int i = begin; i < end; ++i)
        require(host::attend_item(split, i, v, hnd_rows<float const>(queries_.data(), 1, bench_head_dim),
                                  problem_.query_heads, 1, hnd_rows(output_.data(), 1, bench_head_dim),
                                  nullptr, {}, partial_, work, how_),
                "attend");
    });
    require(host::join(split, problem_.query_heads, 1, bench_head_dim,
                       hnd_rows(output_.data(), 1, bench_head_dim), nullptr, partial_),
            "join");
  }

 private:
  std::string name_;
  Scheme scheme_;
  decode_problem problem_;
  kvcrumb::host::execution how_;
  kvcrumb::blob_layout parts_;
  std::int64_t stride_ = 0, tiles_ = 0;
  int copies_ = 1;
  std::unique_ptr<bench_memory> pool_;
  std::vector<float> queries_, output_, partial_;
  std::vector<std::unique_ptr<bench_memory>> work_;
};

//! The hardware limit: reads as many bytes, four streams a thread, and adds them up. It reads them where the
//! variant reads its own: caches of hundreds of megabytes exist, and a pool of one's own would stay there.
class stream_floor {
 public:
  void step(variant const& of, int round, workers& crew) {
    auto const pool = of.pool();
    std::int64_t const bytes = of.bytes(), places = static_cast<std::int64_t>(pool.size()) / bytes;
    std::byte const* const first = pool.data() + round % places * bytes / 64 * 64;
    crew.run([&](int thread) {
      std::int64_t const part = bytes / crew.threads() / 256 * 256;
      sums_[static_cast<std::size_t>(16 * thread)] += sum(first + part * thread, part);
    });
  }

 private:
#if defined(__AVX512F__)
  static constexpr int width = 64;
#elif defined(__AVX2__)
  static constexpr int width = 32;
#else
  static constexpr int width = 16;
#endif
  //! As wide as a register: g++ takes wider ones apart, and reads at two thirds of the speed.
  using block = std::int64_t __attribute__((vector_size(width), aligned(8), may_alias));
  static std::int64_t sum(std::byte const* p, std::int64_t bytes) {
    block sums[4] = {};
    std::int64_t const quarter = bytes / 256 * 64;
    for (std::int64_t i = 0; i < quarter; i += 64) {
      for (int s = 0; s < 4; ++s) {
        for (int at = 0; at < 64; at += width)
          sums[s] += *reinterpret_cast<block const*>(p + s * quarter + i + at);
      }
    }
    sums[0] += sums[1] + sums[2] + sums[3];
    std::int64_t total = 0;
    for (int i = 0; i < width / 8; ++i)
      total += sums[0][i];
    return total;
  }
  std::vector<std::int64_t> sums_ = std::vector<std::int64_t>(16 * 512);
};

}  // namespace kvcrumb_bench
