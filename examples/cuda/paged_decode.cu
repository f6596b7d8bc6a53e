// SPDX-License-Identifier: Apache-2.0
//! @file Decode steps of a small engine: pages of its own, a block table that all layers share, one new token
//! of each sequence per step, encoded on the device when a group is full. Compared with host caches that grow
//! alike.
#include <memory>

#include <kvcrumb/device/append.cuh>
#include <kvcrumb/device/decode.cuh>

#include "support.hpp"

using namespace example;

namespace {

constexpr int layers = 2, sequences = 3, kv_heads = 2, query_heads = 4, width = 64, tile = 64;
constexpr int pages = 8, longest = 160, most_new = 60, table_width = (longest + tile - 1) / tile;
using scheme_type = schemes::kivi_type<4, 32>;
using appender = device::appender<scheme_type, width, tile, float16>;
using decoder = device::decoder<scheme_type, width, tile, float16, float>;

scheme_type const kivi4{.flush = {0, 32}};  // a group is encoded as soon as its last token is there
blob_layout const blob = kivi4.blob({width, tile});
std::int64_t const blob_stride = align_up(blob.bytes, 64), page_stride = kv_heads * blob_stride;

// example-begin layer
//! One layer: its own pages, tails and `encoded`; lengths and block table are those of the engine.
struct layer {
  static constexpr int tail = 32 + most_new - 1;  // recent + block + new tokens of a call - 1
  device_array<std::byte> memory{pages * page_stride, 0xFF};
  device_array<float16> tail_keys{sequences * kv_heads * tail * width}, tail_values{tail_keys.bytes() / 2};
  device_array<std::int32_t> encoded{sequences};
  device_array<float16> k{sequences * kv_heads * most_new * width}, v{k.bytes() / 2};
  device_array<float16> q{sequences * query_heads * width};
  device_array<float> o{sequences * query_heads * width};
  appender::request_type rows;
  decoder::request_type step;

  layer(device_array<std::int32_t> const& tokens, device_array<std::int32_t> const& table,
        device_array<std::int32_t> const& counts) {
    batch_cache cache{.shape = {width, tile}, .sequences = sequences, .kv_heads = kv_heads};
    cache.pages = {.table = table.data(), .stride = table_width, .pages = pages};
    cache.keys = {memory.data() + blob.key_offset, page_stride, blob_stride};
    cache.values = {memory.data() + blob.value_offset, page_stride, blob_stride};
    cache.masks = {memory.data() + blob.mask_offset, page_stride, blob_stride};
    cache.tokens = tokens.data(), cache.encoded = encoded.data(), cache.tail_capacity = tail;
    cache.tail_keys = rows_of(tail_keys.data(), kv_heads, tail, width);
    cache.tail_values = rows_of(tail_values.data(), kv_heads, tail, width);
    rows = {.cache = cache, .count = most_new, .counts = counts.data()};
    rows.keys = rows_of<float16 const>(k.data(), kv_heads, most_new, width);
    rows.values = rows_of<float16 const>(v.data(), kv_heads, most_new, width);
    step = {.cache = cache, .query_heads = query_heads};
    step.q = rows_of<float16 const>(q.data(), query_heads, 1, width);
    step.o = rows_of(o.data(), query_heads, 1, width);
  }
};
// example-end layer

// example-begin step
//! What a CUDA graph would capture: grids and arguments are the same in every step. Before it runs, the
//! engine writes new lengths, counts and table entries to device memory. In each layer the new token is
//! appended first, because it attends to itself. The plan needs the lengths and `encoded`, so it comes after
//! an append; all layers share it.
cudaError_t enqueue_step(std::vector<std::unique_ptr<layer>> const& all, void* tickets,
                         std::int64_t ticket_bytes, void* work, std::int64_t work_bytes,
                         cudaStream_t stream) {
  bool planned = false;
  for (auto const& l : all) {
    cudaError_t e = appender::append(kivi4, l->rows, tickets, ticket_bytes, stream);
    if (e == cudaSuccess && !planned) e = decoder::plan(kivi4, l->step, work, work_bytes, stream);
    if (e == cudaSuccess) e = decoder::run(kivi4, l->step, work, work_bytes, stream);
    if (e != cudaSuccess) return e;
    planned = true;
  }
  return cudaSuccess;
}
// example-end step

}  // namespace

int main() {
  std::vector<std::int32_t> lengths(sequences), table(sequences * table_width, -1),
      free_pages{5, 0, 3, 7, 2, 6, 1, 4};
  device_array<std::int32_t> const tokens(lengths), block_table(table), counts(sequences);
  std::vector<std::unique_ptr<layer>> all;
  for (unsigned l = 0; l < layers; ++l)
    all.push_back(std::make_unique<layer>(tokens, block_table, counts));
  std::vector<host_batch<scheme_type>> hosts(layers, {kivi4, sequences, kv_heads, {width, tile}});
  if (appender::check(kivi4, all[0]->rows) != status::ok || decoder::check(kivi4, all[0]->step) != status::ok)
    return 1;
  std::int64_t work_bytes = 0;
  must(decoder::workspace(all[0]->step, work_bytes));
  device_array<std::byte> const work(work_bytes),
      tickets(appender::workspace(all[0]->rows.cache));  // tickets: zero

  double worst = 0.0;
  for (unsigned step = 0; step < 8; ++step) {
    // Two prompts first, then a token each; the third sequence joins in step 3.
    std::int32_t const joining = step < 3 ? 0 : step == 3 ? 31 : 1;
    std::vector<std::int32_t> const added{step == 0 ? 60 : 1, step == 0 ? 27 : 1, joining};
    for (int s = 0; s < sequences; ++s) {
      lengths[count(s)] += added[count(s)];
      for (int t = 0; t * tile < lengths[count(s)]; ++t) {
        std::int32_t& page = table[count(s * table_width + t)];
        if (page >= 0) continue;
        page = free_pages.back();
        free_pages.pop_back();
      }
    }
    tokens.set(lengths), block_table.set(table), counts.set(added);
    std::vector<float16> q[layers];
    for (unsigned l = 0; l < layers; ++l) {
      unsigned const seed = 100 * step + 10 * l;
      std::vector<float16> const k = normal_numbers(seed + 1, sequences * kv_heads * most_new * width);
      std::vector<float16> const v = normal_numbers(seed + 2, sequences * kv_heads * most_new * width);
      q[l] = normal_numbers(seed + 3, sequences * query_heads * width);
      all[l]->k.set(k), all[l]->v.set(v), all[l]->q.set(q[l]);
      hosts[l].append(k, v, most_new, added);
    }
    must(enqueue_step(all, tickets.data(), tickets.bytes(), work.data(), work_bytes, nullptr));
    for (unsigned l = 0; l < layers; ++l)
      worst = std::fmax(worst, hosts[l].difference(all[l]->o.get(), q[l], query_heads));
  }
  std::vector<std::int32_t> const encoded = all[0]->encoded.get();
  std::printf("tokens encoded: %d %d %d; largest relative difference of an output: %.1e\n", encoded[0],
              encoded[1], encoded[2], worst);
  return encoded == std::vector<std::int32_t>{64, 32, 32} && worst < 1e-3 ? 0 : 1;
}
