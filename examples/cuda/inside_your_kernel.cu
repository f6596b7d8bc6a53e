// SPDX-License-Identifier: Apache-2.0
//! @file The warp layer inside a kernel of your own: attention with a bias that the library does not know
//! (ALiBi), put between scores and softmax. Compared with double precision on what the cache reads back.
#include "support.hpp"

#include <kvcrumb/device/launch.cuh>
#include <kvcrumb/warp/accumulate.cuh>

using namespace example;
using scheme_type = kv_scheme<composed<affine<4>, per_channel<32>>, composed<affine<4>, per_row>>;
constexpr int width = 64, tile = 32;

// example-begin kernel
//! One warp for each kv head of each sequence, 8 query heads to a kv head. Whole tiles only, every slot
//! valid.
template <class Scheme, class Blob>
__global__ void __launch_bounds__(32)
    alibi_kernel(__grid_constant__ batch_cache const cache, __grid_constant__ Scheme const scheme,
                 float16 const* q, float* o) {
  constexpr int head_dim = Blob::head_dim, columns = 8;
  using ring_type = warp::ring<Blob>;
  using query_type = warp::query_of<Blob, 1>;
  using form = typename warp::tile_scores<Blob, 1>::form;
  struct shared {
    alignas(16) std::byte operand[query_type::shared_bytes];
    typename ring_type::shared_barriers barriers;
  };
  KVCRUMB_SHARED(shared, storage);
  KVCRUMB_SHARED_DYNAMIC(dynamic);  // Blob::warp_bytes
  int const lane = static_cast<int>(threadIdx.x), group = static_cast<int>(blockIdx.x);
  int const sequence = group / cache.kv_heads, head = group % cache.kv_heads;

  // The queries as tensor cores want them, and barriers for the tiles on their way.
  std::uint32_t const to = ptx::shared_address(storage.operand);
  for (int i = lane; i < columns * head_dim; i += 32) {
    std::uint32_t const at = to + static_cast<std::uint32_t>(query_type::offset(i / head_dim, i % head_dim));
    ptx::store_shared_16(at, q[group * columns * head_dim + i].bits);
  }
  ring_type tiles{ptx::shared_address(dynamic), ptx::shared_address(&storage.barriers), cache, 1, lane};
  tiles.init_barriers();
  __syncthreads();
  query_type query;
  query.load(to, lane);

  float const f = warp::log2_e / ::sqrtf(static_cast<float>(head_dim));
  float const scale[1][2] = {{f, f}}, one[1][2] = {{1.0f, 1.0f}}, none[1][1][2] = {};
  std::uint32_t const all[4] = {~0u, ~0u, ~0u, ~0u};
  auto const key_levels = warp::make_levels(scheme.key.codec);
  auto const value_levels = warp::make_levels(scheme.value.codec);
  warp::column_state<Blob::dim_blocks, 1> state;
  state.clear();
  int const length = cache.tokens[sequence], end = length / Blob::tile_tokens;
  tiles.start(sequence, head, 0, end);
  for (int i = 0; i < end; ++i) {
    tiles.begin_tile();
    warp::tile_scores<Blob, 1> scores;
    warp::score_tile(scores, tiles, query, key_levels, nullptr, lane);
    warp::apply_columns(scores, scale, none[0]);
    warp::unrolled<2 * Blob::token_blocks>([&]<int j>() {
      constexpr int p = j / 2, r = j % 2;
      int const token = i * Blob::tile_tokens + 16 * p + 8 * r + lane / 4;
      KVCRUMB_UNROLL
      for (int c = 0; c < 2; ++c) {  // this lane has query heads 2 (lane % 4) and the next
        float& s = scores.s[0][p][2 * r + c];
        s = fmaf(s, warp::power_of_two(form::exponent(p, r)) * f, scores.zero[form::group_of(p)][0][c]);
        float const slope = warp::power_of_two(-1 - (2 * (lane % 4) + c));  // from here on it is yours
        s += warp::log2_e * slope * static_cast<float>(token - (length - 1));
      }
    });
    std::uint32_t weights[1][Blob::token_blocks][2];
    warp::weigh<warp::plain_form>(weights, scores.s, none, one, state, warp::weight_bias);
    warp::accumulate_tile(state, tiles, weights, value_levels, all, lane);
    tiles.end_tile();
  }
  warp::unpack_output<Blob>(state, lane, [&](int column, int channel, float x) {
    o[(group * columns + column) * head_dim + channel] = x / state.sums[0][column % 2];
  });
}
// example-end kernel

int main() {
  constexpr int kv_heads = 2, columns = 8, tokens = 160, pages = tokens / tile;
  using blob_type = warp::blob_traits<scheme_type, width, tile>;
  static_assert(blob_type::key::readable() == status::ok && blob_type::value::readable() == status::ok);
  scheme_type const scheme{};
  std::vector<float16> const q = normal_numbers(1, kv_heads * columns * width);
  host_batch<scheme_type> batch(scheme, 1, kv_heads, {width, tile});
  int const numbers = kv_heads * tokens * width;
  batch.append(normal_numbers(2, numbers), normal_numbers(3, numbers), tokens, {tokens});
  kv_cache<scheme_type> const& host = batch.caches.front();

  blob_layout const blob = scheme.blob({width, tile});
  std::int64_t const stride = align_up(blob.bytes, 64);
  device_array<std::byte> const bytes(blobs_of(host.view(), blob.bytes, stride));
  device_array<std::int32_t> const lengths(std::vector<std::int32_t>{tokens});
  device_array<float16> const queries(q);
  device_array<float> const output(kv_heads * columns * width);
  batch_cache cache{.shape = {width, tile}, .sequences = 1, .kv_heads = kv_heads};
  cache.pages.stride = pages;
  cache.keys = {bytes.data() + blob.key_offset, kv_heads * stride, stride};
  cache.values = {bytes.data() + blob.value_offset, kv_heads * stride, stride};
  cache.masks = {bytes.data() + blob.mask_offset, kv_heads * stride, stride};
  cache.tokens = lengths.data();
  must(device::launch(alibi_kernel<scheme_type, blob_type>, dim3(kv_heads), dim3(32), blob_type::warp_bytes,
                      nullptr, cache, scheme, queries.data(), output.data()));
  std::vector<float> const o = output.get();

  // The same in double precision on what the cache reads back.
  double worst = 0.0;
  std::vector<float> key(width), value(width), expected(width);
  for (int row = 0; row < kv_heads * columns; ++row) {
    std::vector<double> sum(width);
    double total = 0.0;
    for (int t = 0; t < tokens; ++t) {
      if (host.read(row / columns, t, key.data(), value.data()) != status::ok) return 1;
      double logit = std::ldexp(1.0, -1 - row % columns) * (t - (tokens - 1));
      for (std::size_t d = 0; d < width; ++d)
        logit += static_cast<double>(to_float(q[count(row * width) + d]) * key[d]) / std::sqrt(double{width});
      total += std::exp(logit);
      for (std::size_t d = 0; d < width; ++d)
        sum[d] += std::exp(logit) * static_cast<double>(value[d]);
    }
    for (std::size_t d = 0; d < width; ++d)
      expected[d] = static_cast<float>(sum[d] / total);
    worst = std::fmax(worst, relative_difference(o.data() + row * width, expected));
  }
  std::printf("largest relative difference of a row: %.1e\n", worst);
  return worst < 2e-3 ? 0 : 1;
}
