// SPDX-License-Identifier: Apache-2.0
//! @file Conservation: after any operations every token is in exactly one place of every kv head, with its
//! own numbers: 10^6 random operations on caches of every isolation policy.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int share = 20;  // sanitizers: one operation in 20
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr int share = 20;
#else
constexpr int share = 1;
#endif
#else
constexpr int share = 1;
#endif

// Eight bits, so that a token in a wrong slot is far outside the error of the codec.
template <class Layout>
using keys_by_channel = composed<affine<8, float16, kivi_convention>, per_channel<8>, identity, Layout>;
template <class Layout>
using keys_by_token = composed<affine<8, float16, kivi_convention>, per_token<32>, identity, Layout>;
template <class Isolation, class Layout = linear>
using tiled = kv_scheme<keys_by_channel<Layout>, keys_by_token<Layout>, Isolation>;
template <class Isolation, class Layout = linear>
using independent = kv_scheme<keys_by_token<Layout>, keys_by_token<Layout>, Isolation>;

//! A cache beside a plain list of which row every position should hold.
template <class Scheme>
class model {
 public:
  using cache_type = kv_cache<Scheme, float16>;

  model(Scheme const& scheme, int heads, int dim, std::int64_t longest)
      : rows_{test::random_layer(17, heads, 512, dim)},
        cache_{test::made(scheme, heads, {dim, 32})},
        longest_{longest} {
    // Rows 0 to 7 have small keys; row 9 equals row 8, so scores tie.
    for (int h = 0; h < heads; ++h) {
      for (std::int64_t i = rows_.at(h, 0); i < rows_.at(h, 8); ++i) {
        rows_.keys[test::size(i)] = test::half(0.1 * static_cast<double>(rows_.keys[test::size(i)]));
      }
      for (int d = 0; d < dim; ++d) {
        rows_.keys[test::size(rows_.at(h, 9) + d)] = rows_.keys[test::size(rows_.at(h, 8) + d)];
      }
    }
  }

  //! One random operation; the full comparison follows every `full`-th one and everything that removes
  //! tokens.
  void operate(int number, int full) {
    int const what = pick(100);
    bool removed = true;
    if (what < 62) {
      add(1 + pick(what < 40 ? 3 : 20), false);
      removed = false;
    } else if (what < 86) {
      shorten();
    } else if (what < 89) {
      cache_.clear();
      expected_.clear();
    } else if (what < 93) {
      cache_.clear();
      expected_.clear();
      add(pick(60), true);
    } else if (what < 95) {
      save_and_restore();
    } else {
      announce();
    }
    if (cache_.size() > longest_) {
      cache_.clear();
      expected_.clear();
    }
    if ((removed && pick(8) == 0) || number % full == 0) {
      check_everything();
    } else {
      check_counts();
    }
  }

  bool sound() const { return failures_ == 0; }
  bool visited_all(std::initializer_list<token_place> places) const {
    for (token_place const p : places) {
      if (seen_[static_cast<int>(p)] == 0) return false;
    }
    return true;
  }

 private:
  int pick(int below) { return static_cast<int>(engine_() % static_cast<unsigned>(below)); }
  void expect(bool condition) { failures_ += condition ? 0 : 1; }

  void add(int count, bool at_once) {
    // Consecutive table rows, so that one strided view holds the chunk.
    int const first = pick(512 - count);
    auto const k = rows_.key_rows(first), v = rows_.value_rows(first);
    expect((at_once ? cache_.prefill(k, v, count) : cache_.append(k, v, count)) == status::ok);
    for (int i = 0; i < count; ++i)
      expected_.push_back(first + i);
  }

  void shorten() {
    std::int64_t const size = cache_.size(), encoded = cache_.sink_tokens() + cache_.tile_slots();
    std::int64_t const tokens = std::max<std::int64_t>(size - pick(12), 0);
    bool const allowed = Scheme::row_independent || tokens >= encoded || cache_.tile_slots() == 0;
    status const s = cache_.truncate(tokens);
    expect(s == (allowed ? status::ok : status::not_in_tail));
    if (s == status::ok) expected_.resize(test::size(tokens));
    expect(cache_.truncate(cache_.size() + 1) == status::out_of_range);
    expect(cache_.truncate(-1) == status::out_of_range);
  }

  void save_and_restore() {
    std::vector<std::byte> file(test::size(saved_bytes(cache_)));
    expect(save(cache_, std::span<std::byte>{file}) == status::ok);
    cache_type other;
    expect(restore(std::span<std::byte const>{file}, cache_.scheme(), other, pick(2) == 0 ? 16 : 64) ==
           status::ok);
    cache_ = std::move(other);
  }

  void announce() {
    if constexpr (Scheme::isolation_type::how == selection::listed) {
      std::int64_t const encoded = cache_.sink_tokens() + cache_.tile_slots();
      std::int64_t const list[2] = {encoded + pick(20), encoded + pick(20)};
      status const s = cache_.isolate(list);
      expect(s == status::ok || s == status::bad_window);
      if (encoded > 0) {
        std::int64_t const late[1] = {encoded - 1};
        expect(cache_.isolate(late) == status::out_of_range);
      }
    }
  }

  //! Cheap: the numbers of tokens of the parts add up in every head.
  void check_counts() {
    expect(cache_.size() == static_cast<std::int64_t>(expected_.size()));
    auto const view = cache_.view();
    for (int head = 0; head < view.kv_heads; ++head) {
      std::int64_t n = view.sinks.count + view.tail.count + view.pool.counts[head] + view.aux.counts[head];
      for (std::int64_t tile = 0; tile < view.tiles(); ++tile) {
        std::byte const* mask = view.masks.section(head, tile);
        for (int i = 0; i < view.shape.tile_tokens / 8; ++i)
          n += std::popcount(std::to_integer<unsigned>(mask[i]));
      }
      expect(n == view.tokens);
    }
  }

  //! Every position once, through the view; every row, through the view and through read().
  void check_everything() {
    check_counts();
    auto const view = cache_.view();
    int const dim = view.shape.head_dim;
    std::vector<float> key(test::size(dim)), value(test::size(dim));
    for (int head = 0; head < view.kv_heads; ++head) {
      std::vector<token_place> found(expected_.size(), token_place::tile);
      std::vector<int> times(expected_.size(), 0);
      auto const see = [&](std::int64_t position, token_place where) {
        expect(position >= 0 && position < view.tokens);
        if (position < 0 || position >= view.tokens) return;
        ++times[test::size(position)];
        found[test::size(position)] = where;
      };
      auto const exact = [&](std::int64_t position, float16 const* k, float16 const* v) {
        if (position < 0 || position >= view.tokens) return;
        std::int64_t const row = expected_[test::size(position)];
        bool same = true;
        for (int d = 0; d < dim; ++d) {
          same = same && to_float(k[d]) == rows_.key(head, row)[d] &&
                 to_float(v[d]) == rows_.value(head, row)[d];
        }
        expect(same);
      };
      auto const see_rows = [&](exact_rows<float16> const& part, token_place where) {
        for (std::int64_t i = 0; i < part.count; ++i) {
          see(part.first + i, where);
          exact(part.first + i, part.keys.row(head, i), part.values.row(head, i));
        }
      };
      auto const see_isolated = [&](isolated_rows<float16> const& part, token_place where) {
        for (std::int32_t i = 0; i < part.counts[head]; ++i) {
          std::int64_t const position = part.positions[head * part.stride_positions + i];
          see(position, where);
          exact(position, part.keys.row(head, i), part.values.row(head, i));
        }
      };
      see_rows(view.sinks, token_place::sink);
      see_isolated(view.pool, token_place::pool);
      see_isolated(view.aux, token_place::auxiliary);
      see_rows(view.tail, token_place::tail);
      for (std::int64_t tile = 0; tile < view.tiles(); ++tile) {
        for (int slot = 0; slot < view.shape.tile_tokens; ++slot) {
          std::int64_t const index = tile * view.shape.tile_tokens + slot;
          if (index >= view.tile_tokens) {
            expect(!view.valid(head, tile, slot));
          } else if (view.valid(head, tile, slot)) {
            see(view.tile_first + index, token_place::tile);
          }
        }
      }
      for (std::size_t position = 0; position < expected_.size(); ++position) {
        expect(times[position] == 1);
        token_place where{};
        expect(cache_.read(head, static_cast<std::int64_t>(position), key.data(), value.data(), &where) ==
               status::ok);
        expect(where == found[position]);
        ++seen_[static_cast<int>(where)];
        std::int64_t const row = expected_[position];
        // Groups span at most 10 (normal numbers of the table lie within +-5): half a step of 10 / 255, and
        // the fp16 rounding of scale, minimum, difference and quotient, each at most 2^-11 of 10.
        float const allowed = where == token_place::tile ? 10.0f * (0.5f / 255.0f + 4.0f / 2048.0f) : 0.0f;
        for (int d = 0; d < dim; ++d) {
          expect(std::fabs(key[test::size(d)] - rows_.key(head, row)[d]) <= allowed);
          expect(std::fabs(value[test::size(d)] - rows_.value(head, row)[d]) <= allowed);
        }
      }
    }
  }

  test::layer_rows rows_;
  cache_type cache_;
  std::int64_t longest_;
  std::vector<std::int64_t> expected_;  //!< row of the table at each position
  std::mt19937 engine_{77};
  std::int64_t failures_ = 0;
  std::int64_t seen_[5] = {};
};

template <class Scheme>
void run(Scheme const& scheme, int heads, int dim, int operations,
         std::initializer_list<token_place> places) {
  model<Scheme> m{scheme, heads, dim, 150};
  for (int i = 0; i < operations / share; ++i) {
    m.operate(i, 40);
    if (!m.sound()) {
      CAPTURE(i);
      FAIL_CHECK("a token was lost, doubled or changed");
      return;
    }
  }
  CHECK(m.visited_all(places));
}

using enum token_place;
constexpr int operations = 165000;  // times six, and 20000 more on the mma layout

}  // namespace

TEST_CASE("conservation: traced pool per head that freezes", "[cache][conservation]") {
  run(tiled<token_pool<>>{.flush = {5, 8}, .isolate = {.capacity = 3, .auxiliary = 4}}, 2, 8, operations,
      {tile, pool, auxiliary, tail});
}

TEST_CASE("conservation: traced pool per layer behind sinks", "[cache][conservation]") {
  run(
      tiled<token_pool<>>{
          .flush = {0, 16},
          .isolate = {.capacity = 2, .auxiliary = 32, .across = pool_scope::per_layer, .sinks = 3}},
      2, 8, operations, {sink, tile, pool, auxiliary, tail});
}

TEST_CASE("conservation: prefix", "[cache][conservation]") {
  run(tiled<prefix<4>>{.flush = {7, 8}}, 2, 8, operations, {sink, tile, tail});
}

TEST_CASE("conservation: the caller's list", "[cache][conservation]") {
  run(tiled<external>{.flush = {3, 8}, .isolate = {.capacity = 6, .sinks = 2}}, 2, 8, operations,
      {sink, tile, pool, tail});
}

TEST_CASE("conservation: row-independent with a traced pool", "[cache][conservation]") {
  run(independent<token_pool<>>{.flush = {2, 1}, .isolate = {.capacity = 3, .auxiliary = 5, .sinks = 1}}, 2,
      8, operations, {sink, tile, pool, auxiliary, tail});
}

TEST_CASE("conservation: row-independent blocks", "[cache][conservation]") {
  run(independent<no_isolation>{.flush = {1, 4}}, 2, 8, operations, {tile, tail});
}

TEST_CASE("conservation: the mma layout", "[cache][conservation]") {
  run(tiled<token_pool<>, fragment>{.flush = {5, 16}, .isolate = {.capacity = 3, .auxiliary = 4}}, 2, 64,
      10000, {tile, pool, auxiliary, tail});
  run(independent<token_pool<>, fragment>{.flush = {2, 1},
                                          .isolate = {.capacity = 3, .auxiliary = 5, .sinks = 1}},
      1, 64, 10000, {sink, tile, pool, auxiliary, tail});
}
