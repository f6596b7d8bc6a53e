// SPDX-License-Identifier: Apache-2.0
//! @file Prompts of two sequences encoded on the device, then a decode step over them. The bytes must be
//! those of the host library, the outputs within the rounding that docs/numerics.md derives.
#include <algorithm>

#include "support.hpp"
// example-begin device
#include <kvcrumb/device/decode.cuh>
#include <kvcrumb/device/encode.cuh>
#include <kvcrumb/schemes.hpp>

using scheme_type = kvcrumb::schemes::ott_type<2>;  // head_dim 128, tiles of 128 tokens, fp16 in and out
using encoder = kvcrumb::device::encoder<scheme_type, 128, 128, kvcrumb::float16>;
using decoder = kvcrumb::device::decoder<scheme_type, 128, 128, kvcrumb::float16, kvcrumb::float16>;

//! Enqueues the encoding of prompts and a decode step. The memory is yours; nothing allocates or waits.
cudaError_t attend_prompt(scheme_type const& scheme, encoder::request_type const& prompt,
                          decoder::request_type const& step, void* work, std::int64_t bytes, cudaStream_t s) {
  cudaError_t const e = encoder::encode(scheme, prompt, work, bytes, s);
  return e != cudaSuccess ? e : decoder::attend(scheme, step, work, bytes, s);
}
// example-end device

using namespace example;

int main() {
  constexpr int sequences = 2, kv_heads = 2, query_heads = 8, width = 128, tile = 128, longest = 300;
  constexpr tile_shape shape{.head_dim = width, .tile_tokens = tile};
  scheme_type const scheme = schemes::ott();
  std::vector<std::int32_t> const lengths{300, 170};
  std::vector<float16> const k = normal_numbers(1, sequences * kv_heads * longest * width);
  std::vector<float16> const v = normal_numbers(2, sequences * kv_heads * longest * width);
  std::vector<float16> const q = normal_numbers(3, sequences * query_heads * width);
  device_array<float16> const keys(k), values(v), queries(q), output(sequences * query_heads * width);

  // example-begin cache
  // Pages one after the other: tile i of sequence s is page s * tiles + i, with a blob for each kv head.
  constexpr int tiles = (longest + tile - 1) / tile;
  blob_layout const blob = scheme.blob(shape);
  std::int64_t const blob_stride = align_up(blob.bytes, 64), page_stride = kv_heads * blob_stride;
  device_array<std::byte> const pages(sequences * tiles * page_stride);
  device_array<std::int32_t> const tokens(lengths), encoded(sequences);
  int const tail = scheme.flush.recent + scheme.flush.block;
  std::int64_t const tail_numbers = std::int64_t{sequences} * kv_heads * tail * width;
  device_array<float16> const tail_keys(tail_numbers), tail_values(tail_numbers);
  pool_memory const pool(sequences, kv_heads, scheme.isolate.pool_capacity(), width);
  pool_memory const aux(sequences, kv_heads, scheme.isolate.aux_capacity(), width);

  batch_cache cache{.shape = shape, .sequences = sequences, .kv_heads = kv_heads};
  cache.pages.stride = tiles;
  cache.keys = {pages.data() + blob.key_offset, page_stride, blob_stride};
  cache.values = {pages.data() + blob.value_offset, page_stride, blob_stride};
  cache.masks = {pages.data() + blob.mask_offset, page_stride, blob_stride};
  cache.tokens = tokens.data();
  cache.encoded = encoded.data();
  cache.tail_capacity = tail;
  cache.tail_keys = rows_of(tail_keys.data(), kv_heads, tail, width);
  cache.tail_values = rows_of(tail_values.data(), kv_heads, tail, width);
  cache.pool = pool.view;
  cache.aux = aux.view;
  // example-end cache

  // example-begin attend
  encoder::request_type prompt{.cache = cache, .max_tokens = longest};
  prompt.keys = rows_of<float16 const>(keys.data(), kv_heads, longest, width);
  prompt.values = rows_of<float16 const>(values.data(), kv_heads, longest, width);
  decoder::request_type step{.cache = cache, .query_heads = query_heads};
  step.q = rows_of<float16 const>(queries.data(), query_heads, 1, width);
  step.o = rows_of(output.data(), query_heads, 1, width);
  if (encoder::check(scheme, prompt) != status::ok || decoder::check(scheme, step) != status::ok) return 1;

  std::int64_t bytes = 0;
  must(decoder::workspace(step, bytes));
  bytes = std::max(bytes, encoder::workspace(scheme, cache, longest));  // one after the other: they may share
  device_array<std::byte> const work(bytes);
  must(attend_prompt(scheme, prompt, step, work.data(), bytes, nullptr));
  // example-end attend

  host_batch<scheme_type> host(scheme, sequences, kv_heads, shape);
  host.append(k, v, longest, lengths, true);
  std::vector<std::byte> const got = pages.get();
  bool same = true;
  for (int s = 0; s < sequences; ++s) {
    std::vector<std::byte> const x = blobs_of(host.caches[count(s)].view(), blob.bytes, blob_stride);
    same = same && std::equal(x.begin(), x.end(), got.begin() + s * tiles * page_stride);
  }
  double const worst = host.difference(output.get(), q, query_heads);
  std::printf("the tiles %s those of the host; largest relative difference of an output: %.1e\n",
              same ? "equal" : "DIFFER FROM", worst);
  return same && worst < 1e-3 ? 0 : 1;
}
