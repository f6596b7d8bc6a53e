// SPDX-License-Identifier: Apache-2.0
//! @file Encoding with vector instructions: host::encode of whole tiles, one thread, with and without the
//! scores by which OTT traces outliers. bytes_per_second counts the fp16 input (keys and values).
//!
//! One iteration encodes 4,096 tokens of 8 kv heads into tiles that exist, a tile of all heads at a time;
//! scores are taken of its keys just before they are encoded. prefill_vector is the whole of
//! kv_cache::prefill of the same rows with a host::vector_encoder, into a cache that is made and freed:
//! checks, scores, choice, tail, codes and memory. Iterations take turns on inputs that together are four
//! times the last-level cache.

#include "kvcrumb/host/encode.hpp"
#include "kvcrumb/host/encode_scores.hpp"
#include "kvcrumb/host/vector_encoder.hpp"
#include "support/workload.hpp"

namespace {

using kvcrumb_bench::problem;
using namespace kvcrumb;

constexpr tile_shape shape{kvcrumb_bench::head_dim, 128};

template <class Side>
std::vector<std::byte> workspace(Side const& scheme, side which, int heads) {
  std::int64_t const bytes = host::encode_workspace_bytes(scheme, which, shape, heads, shape.tile_tokens);
  return std::vector<std::byte>(static_cast<std::size_t>(bytes) + 64);
}
std::span<std::byte> aligned(std::vector<std::byte>& memory) {
  std::size_t const past = reinterpret_cast<std::uintptr_t>(memory.data()) % 64;
  return std::span<std::byte>{memory}.subspan((64 - past) % 64);
}

template <class Scheme>
void encode(benchmark::State& state, Scheme const& scheme, problem const& p, host::execution const& how,
            bool with_scores) {
  auto const& rows = kvcrumb_bench::rows_for(p);
  std::int64_t const values = p.values() / 2, blocks = static_cast<std::int64_t>(rows.keys.size()) / values;
  blob_layout const parts = scheme.blob(shape);
  std::int64_t const stride = align_up(parts.bytes, default_blob_alignment),
                     tiles = p.tokens / shape.tile_tokens;
  std::vector<std::byte> blobs(static_cast<std::size_t>(tiles * p.kv_heads * stride));
  std::vector<std::byte> work_keys = workspace(scheme.key, side::key, p.kv_heads),
                         work_values = workspace(scheme.value, side::value, p.kv_heads);
  std::vector<float> scores(static_cast<std::size_t>(p.kv_heads * shape.tile_tokens));
  std::int64_t block = 0;
  kvcrumb_bench::cpu_clock const clock;
  for (auto _ : state) {
    float16 const* const keys = rows.keys.data() + block % blocks * values;
    float16 const* const vals = rows.values.data() + block % blocks * values;
    ++block;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      std::vector<std::byte*> key, value;
      for (int head = 0; head < p.kv_heads; ++head) {
        std::byte* const blob = blobs.data() + (tile * p.kv_heads + head) * stride;
        key.push_back(blob + parts.key_offset);
        value.push_back(blob + parts.value_offset);
      }
      std::int64_t const first = tile * shape.tile_tokens * shape.head_dim;
      auto const rows_of = [&](float16 const* all) {
        return rows_view<float16 const>{all + first, p.tokens * shape.head_dim, shape.head_dim};
      };
      auto const request = [&](float16 const* all, std::vector<std::byte*> const& sections) {
        return host::row_request<float16 const>{rows_of(all), nullptr,           sections.data(),
                                                p.kv_heads,   shape.tile_tokens, 0};
      };
      if (with_scores) {
        kvcrumb_bench::require(host::score_rows(l1_score{}, rows_of(keys), p.kv_heads, shape.tile_tokens,
                                                shape.head_dim, scores.data(), how),
                               "scores");
      }
      kvcrumb_bench::require(
          host::encode(scheme.key, side::key, shape, request(keys, key), aligned(work_keys), how), "keys");
      kvcrumb_bench::require(
          host::encode(scheme.value, side::value, shape, request(vals, value), aligned(work_values), how),
          "values");
    }
    benchmark::DoNotOptimize(blobs.data());
    benchmark::DoNotOptimize(scores.data());
  }
  double const bits = 4.0 * static_cast<double>(parts.bytes) / (shape.head_dim * shape.tile_tokens);
  kvcrumb_bench::report(state, p, 2.0 * static_cast<double>(p.values()), bits, clock.seconds());
}

template <class Scheme>
void add(char const* name, Scheme const& scheme, bool with_scores) {
  problem const p{0, 8, 4096};
  for (int i = 0; i < host::instruction_set_count; ++i) {
    auto const isa = static_cast<host::instruction_set>(i);
    if (isa == host::instruction_set::portable || !host::is_available(isa)) continue;
    host::execution const how{isa, host::precision::two_terms, false};
    std::string const what = std::string("encode_vector/") + host::to_string(isa);
    benchmark::RegisterBenchmark(kvcrumb_bench::name_of(what.c_str(), name, p).c_str(),
                                 [=](benchmark::State& state) { encode(state, scheme, p, how, with_scores); })
        ->Unit(benchmark::kMillisecond);
    if (with_scores) continue;
    std::string const whole = std::string("prefill_vector/") + host::to_string(isa);
    benchmark::RegisterBenchmark(kvcrumb_bench::name_of(whole.c_str(), name, p).c_str(),
                                 [=](benchmark::State& state) {
                                   host::vector_encoder encoder{how};
                                   kvcrumb_bench::prefill(state, scheme, p, encoder);
                                 })
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  add("ott2_traced", schemes::ott<2>(), true);
  add("ott2", schemes::ott<2>(), false);
  add("kivi2", schemes::kivi<2>(), false);
  add("kivi4", schemes::kivi<4>(), false);
  add("qserve4", schemes::qserve4(), false);
  add("nqkv4", schemes::nqkv4(), false);
  return kvcrumb_bench::run_benchmarks(argc, argv);
}
