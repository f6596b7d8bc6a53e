// SPDX-License-Identifier: Apache-2.0
//! @file One layer of a batch in device memory, several times over, filled with codes and parameters that
//! decode reads as ordinary numbers.
#pragma once

#include <numeric>
#include <random>

#include "cuda/measure.cuh"
#include "kvcrumb/kernel/decode.cuh"
#include "kvcrumb/schemes.hpp"

namespace kvcrumb_bench {

using kvcrumb::affine, kvcrumb::composed, kvcrumb::kv_scheme, kvcrumb::per_channel, kvcrumb::per_row,
    kvcrumb::per_token, kvcrumb::raw, kvcrumb::float16;

inline constexpr int head_dim = 128, tile_tokens = 128;

template <int Bits, int Group = 128>
using affine_scheme =
    kv_scheme<composed<affine<Bits>, per_channel<Group>>, composed<affine<Bits>, per_token<Group>>>;
using fp16_scheme = kv_scheme<composed<raw<float16>, per_row>, composed<raw<float16>, per_row>>;

struct problem {
  int sequences = 1, tokens = 0, query_heads = 0, kv_heads = 0;
};
inline std::string name_of(problem const& p) {
  std::string name = "B:" + std::to_string(p.sequences) + "/S:" + std::to_string(p.tokens);
  if (p.query_heads > 0) name += "/Hq:" + std::to_string(p.query_heads);
  return name + "/Hkv:" + std::to_string(p.kv_heads);
}

//! Exact rows of each sequence and kv head.
struct exact_rows {
  int tail = 0, tail_capacity = 0;  //!< newest tokens that are not encoded
  int pool = 0, pool_capacity = 0;  //!< isolated tokens in use, and room for them
  int aux = 0, aux_capacity = 0;
  int sum() const { return tail + pool + aux; }
  int capacity() const { return tail_capacity + pool_capacity + aux_capacity; }
};

//! The exact rows that a scheme has after a prompt of this length: the tail that the window leaves; a full
//! pool; and, an assumption of these benchmarks, one token pushed out of the pool for every eighth tile.
template <class Scheme>
exact_rows exact_rows_of(Scheme const& scheme, int tokens) {
  exact_rows r;
  kvcrumb::window const w = scheme.flush;
  if (w.block > 1) {
    int const encoded = tokens > w.recent ? (tokens - w.recent) / w.block * w.block : 0;
    r.tail = tokens - encoded;
    r.tail_capacity = w.recent + w.block + 7;
  }
  r.pool = r.pool_capacity = scheme.isolate.pool_capacity();
  r.aux_capacity = scheme.isolate.aux_capacity();
  r.aux = std::min(r.aux_capacity, tokens / tile_tokens / 8);
  return r;
}

//! Where the bytes of a blob are.
struct blob_map {
  int key_codes, value_begin, value_codes, mask_begin, stride;
  bool floats;  //!< codes are fp16 values
};

//! Codes: random bits, or fp16 values of 0.25 to 1 and either sign. Parameters: fp16 of 2^-5 to 2^-4. Masks:
//! all valid, but one token of each of the first `masked` tiles.
static __global__ void fill_kernel(std::uint32_t* data, blob_map map, std::int64_t pages, int heads,
                                   std::int64_t const* tile_of_page, int masked) {
  std::int64_t const words = map.stride / 4, all = pages * heads * words;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 2654435761u + 777u;
    x ^= x >> 15, x *= 0x2C1B3C6Du, x ^= x >> 12;
    int const at = static_cast<int>(i % words) * 4;
    bool const codes =
        at < map.key_codes || (at >= map.value_begin && at < map.value_begin + map.value_codes);
    if (at >= map.mask_begin) {
      x = ~0u;
      if (tile_of_page[i / words / heads] < masked && at == map.mask_begin) x = ~(1u << (i % 31));
    } else if (!codes) {
      x = 0x28002800u | (x & 0x03FF03FFu);
    } else if (map.floats) {
      x = (x & 0x87FF87FFu) | 0x34003400u;
    }
    data[i] = x;
  }
}
//! fp16 values of 0.125 to 2 and either sign.
static __global__ void fill_rows_kernel(std::uint32_t* data, std::int64_t words) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < words;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 2246822519u + 99u;
    x ^= x >> 15, x *= 0x2C1B3C6Du, x ^= x >> 12;
    data[i] = (x & 0x8FFF8FFFu) | 0x30003000u;
  }
}
inline float16* filled_rows(std::int64_t halves) {
  auto* const words = arena::get().take<std::uint32_t>((halves + 1) / 2);
  fill_rows_kernel<<<1024, 256, 0, stream()>>>(words, (halves + 1) / 2);
  return reinterpret_cast<float16*>(words);
}

template <class T>
T* uploaded(std::vector<T> const& x) {
  T* const p = arena::get().take<T>(static_cast<std::int64_t>(x.size()));
  require(cudaMemcpyAsync(p, x.data(), x.size() * sizeof(T), cudaMemcpyHostToDevice, stream()),
          "cudaMemcpyAsync");
  require(cudaStreamSynchronize(stream()), "cudaMemcpyAsync");
  return p;
}

//! `copies` caches of equal lengths and different memory.
struct layer_copies {
  std::vector<kvcrumb::batch_cache> caches;
  double bytes = 0.0;  //!< that one pass over one of them must read
};

//! Bytes of device memory of one copy, and what a pass reads of it.
template <class Scheme>
struct layer_size {
  kvcrumb::blob_layout blob;
  std::int64_t stride, pages, tiles_used;
  double memory, read;

  layer_size(Scheme const& scheme, problem const& p, exact_rows const& e) {
    blob = scheme.blob({head_dim, tile_tokens});
    stride = kvcrumb::align_up(blob.bytes, kvcrumb::default_blob_alignment);
    tiles_used = (p.tokens - e.tail + tile_tokens - 1) / tile_tokens;
    std::int64_t const tiles = (p.tokens + tile_tokens - 1) / tile_tokens + 1;
    pages = tiles * p.sequences;
    double const rows = 4.0 * head_dim;  // bytes of a key and a value
    double const segments = static_cast<double>(p.sequences) * p.kv_heads;
    memory = segments * (static_cast<double>(tiles * stride) + (rows + 8.0) * e.capacity() + 8.0) +
             16.0 * static_cast<double>(pages) + static_cast<double>(1 << 16);
    read = segments * (static_cast<double>(tiles_used * blob.bytes) + rows * e.sum());
  }
};

//! Takes its memory from the arena; `room` bytes of it are left to the caller. False if it does not fit.
template <class Scheme>
bool make_layers(Scheme const& scheme, problem const& p, exact_rows const& e, double room,
                 layer_copies& out) {
  using blob = kvcrumb::warp::blob_traits<Scheme, head_dim, tile_tokens>;
  arena& memory = arena::get();
  layer_size<Scheme> const size(scheme, p, e);
  std::int64_t const copies = copies_beyond_l2(size.read);
  out.bytes = size.read;
  if (static_cast<double>(copies) * size.memory + room > static_cast<double>(memory.left())) return false;

  std::vector<std::int32_t> tokens(static_cast<std::size_t>(p.sequences), p.tokens),
      encoded(tokens.size(), p.tokens - e.tail);
  std::int32_t const* const lengths = uploaded(tokens);
  std::int32_t* const in_tiles = e.tail_capacity > 0 ? uploaded(encoded) : nullptr;
  blob_map const map{blob::key::code_bytes,         static_cast<int>(size.blob.value_offset),
                     blob::value::code_bytes,       static_cast<int>(size.blob.mask_offset),
                     static_cast<int>(size.stride), std::is_same_v<Scheme, fp16_scheme>};
  std::int64_t const tiles = size.pages / p.sequences, heads = p.kv_heads, segments = heads * p.sequences;
  std::mt19937 random{1};
  for (std::int64_t i = 0; i < copies; ++i) {
    kvcrumb::batch_cache c;
    c.shape = {head_dim, tile_tokens};
    c.sequences = p.sequences;
    c.kv_heads = p.kv_heads;
    c.tokens = lengths;
    c.encoded = in_tiles;
    std::vector<std::int32_t> table(static_cast<std::size_t>(size.pages));
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), random);
    std::vector<std::int64_t> tile_of_page(table.size());
    for (std::size_t j = 0; j < table.size(); ++j)
      tile_of_page[static_cast<std::size_t>(table[j])] = static_cast<std::int64_t>(j) % tiles;
    c.pages = {uploaded(table), tiles, nullptr, nullptr, size.pages};
    auto* const data = memory.take<std::byte>(size.pages * heads * size.stride);
    fill_kernel<<<static_cast<unsigned>(16 * multiprocessors()), 256, 0, stream()>>>(
        reinterpret_cast<std::uint32_t*>(data), map, size.pages, p.kv_heads, uploaded(tile_of_page),
        e.pool + e.aux);
    c.keys = {data, heads * size.stride, size.stride};
    c.values = {data + size.blob.value_offset, heads * size.stride, size.stride};
    c.masks = {data + size.blob.mask_offset, heads * size.stride, size.stride};
    auto const rows = [&](int capacity) {
      std::int64_t const head = std::int64_t{capacity} * head_dim;
      return kvcrumb::batch_rows<float16>{filled_rows(segments * head), heads * head, head, head_dim};
    };
    if (e.tail_capacity > 0) {
      c.tail_capacity = e.tail_capacity;
      c.tail_keys = rows(e.tail_capacity);
      c.tail_values = rows(e.tail_capacity);
    }
    auto const isolated = [&](kvcrumb::batch_isolated& to, int capacity, int used) {
      if (capacity == 0) return;
      std::vector<std::int32_t> positions;
      for (std::int64_t j = 0; j < segments * capacity; ++j)
        positions.push_back(static_cast<std::int32_t>(j % capacity));
      to = {rows(capacity),
            rows(capacity),
            uploaded(positions),
            uploaded(std::vector<float>(positions.size(), 1.0f)),
            uploaded(std::vector<std::int32_t>(static_cast<std::size_t>(segments), used)),
            capacity};
    };
    isolated(c.pool, e.pool_capacity, e.pool);
    isolated(c.aux, e.aux_capacity, e.aux);
    out.caches.push_back(c);
  }
  require(cudaStreamSynchronize(stream()), "filling a cache");
  return true;
}

//! Says loudly that a case was left out.
inline void skip_too_large(benchmark::State& state, double bytes) {
  char text[128];
  std::snprintf(text, sizeof text, "skipped: a cache of %.1f GB does not fit in %.1f GB", 1e-9 * bytes,
                1e-9 * static_cast<double>(arena::get().bytes()));
  state.SkipWithError(text);
}

}  // namespace kvcrumb_bench
