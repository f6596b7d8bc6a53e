// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention of random small batches and random requests against the double reference.
//!
//! A case is one launch; its seed is printed when it fails. $KVCRUMB_SOAK_CASES (default 100,000 on a device,
//! 240 under the emulator), $KVCRUMB_SOAK_SECONDS (default 150) and $KVCRUMB_SOAK_SEED (default 1).
#include <chrono>
#include <cstdlib>

#include "cuda/decode_fixture.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {

long setting(char const* name, long otherwise) {
  char const* const text = std::getenv(name);
  return text != nullptr ? std::atol(text) : otherwise;
}

#if defined(__CUDACC__)
constexpr long default_cases = 100000;
#elif defined(KVCRUMB_SIMT_LIGHT)
constexpr long default_cases = 60;
#else
constexpr long default_cases = 240;
#endif

//! How many cases, and until when.
class budget {
 public:
  explicit budget(long parts)
      : cases_{setting("KVCRUMB_SOAK_CASES", default_cases) / parts},
        end_{std::chrono::steady_clock::now() +
             std::chrono::milliseconds(1000 * setting("KVCRUMB_SOAK_SECONDS", 150) / parts)} {}
  bool left() const { return done_ < cases_ && std::chrono::steady_clock::now() < end_; }
  void spend() { ++done_; }
  long done() const { return done_; }

 private:
  long cases_, done_ = 0;
  std::chrono::steady_clock::time_point end_;
};

//! A number of [low, high].
int pick(std::mt19937& random, int low, int high) {
  return low + static_cast<int>(random() % static_cast<unsigned>(high - low + 1));
}

template <class Decoder, class Scheme>
void soak(Scheme const& scheme, tile_shape shape, long parts) {
  constexpr int requests_of_a_batch = 24;
  unsigned const seed = static_cast<unsigned>(setting("KVCRUMB_SOAK_SEED", 1));
  budget work(parts);
  for (unsigned round = 0; work.left(); ++round) {
    std::mt19937 random{seed + 7919u * round};
    std::vector<int> lengths(size(pick(random, 1, 4)));
    for (int& n : lengths)
      n = pick(random, 0, 3) == 0 ? pick(random, 0, 40) : pick(random, 0, 300);
    device_options memory;
    memory.pages = static_cast<page_form>(pick(random, 0, 2));
    memory.separate = pick(random, 0, 1) == 0;
    int const heads = pick(random, 1, 3);
    host_batch<Scheme> batch(caches_of(scheme, heads, shape, lengths, pick(random, 0, 9)), memory);
    for (int i = 0; i < requests_of_a_batch && work.left(); ++i) {
      decode_case k;
      k.query_heads = heads * pick(random, 1, 9);
      k.queries = pick(random, 0, 2) == 0 ? pick(random, 1, 8) : 1;
      k.part = pick(random, 0, 2) == 0 ? pick(random, 1, 5) : 0;
      k.blocks = pick(random, 1, 20);
      if (pick(random, 0, 3) == 0) k.options.window = pick(random, 1, 200);
      if (pick(random, 0, 5) == 0) k.options.soft_cap = 0.5f * static_cast<float>(pick(random, 2, 40));
      if (pick(random, 0, 5) == 0) k.options.softmax_scale = 0.01f * static_cast<float>(pick(random, 1, 20));
      if (pick(random, 0, 5) == 0) k.sink = static_cast<float>(pick(random, 1, 4));
      int const shortest = *std::min_element(lengths.begin(), lengths.end());
      if (shortest < k.queries) k.queries = 1;  // what a query before the first token sees is not compared
      INFO("KVCRUMB_SOAK_SEED " << seed << " round " << round << " request " << i << ": heads "
                                << k.query_heads << "/" << heads << " queries " << k.queries << " part "
                                << k.part << " blocks " << k.blocks << " window " << k.options.window
                                << " cap " << k.options.soft_cap << " scale " << k.options.softmax_scale
                                << " sink " << k.sink);
      decode_outcome const r = run_decode<Decoder>(batch, k, seed + 31u * round + static_cast<unsigned>(i));
      REQUIRE(r.output < 2e-3);  // few tokens: the error of one is not averaged out
      REQUIRE(r.lse < 4e-3);
      work.spend();
    }
  }
  WARN(scheme.name << ": " << work.done() << " cases");
}

}  // namespace

TEST_CASE("random requests: traced outliers", "[cuda][decode][soak]") {
  using type = schemes::ott_type<2, 32>;
  type scheme = schemes::ott<2, 32>();
  scheme.isolate.sinks = 2;
  soak<device::decoder<type, 64, 32, float16, float>>(scheme, {64, 32}, 3);
}

TEST_CASE("random requests: rows on their own", "[cuda][decode][soak]") {
  using type = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
  soak<device::decoder<type, 64, 64, float16, float>>(type{.name = "rows4"}, {64, 64}, 3);
}

TEST_CASE("random requests: three bits, two column tiles", "[cuda][decode][soak]") {
  using type = kv_scheme<composed<affine<3>, per_channel<32>>, composed<affine<3>, per_token<32>>>;
  soak<device::decoder<type, 64, 32, float16, float, 2>>(type{.name = "channels3"}, {64, 32}, 3);
}
