// SPDX-License-Identifier: Apache-2.0
//! @file Encoding whole sequences into empty device caches (the host's kv_cache::prefill), byte for byte.
#pragma once

#include "kvcrumb/device/encode_checks.cuh"
#include "kvcrumb/kernel/encode.cuh"

namespace kvcrumb::inline v0::device {

//! Sequences to encode. Pointers are device memory.
template <class Input>
struct encode_request {
  batch_cache cache{};  //!< empty; `tokens` has the lengths, 0 included
  //! row(sequence, kv head, token), float16, bfloat16 or float; multiples of 16 bytes. Finite values that
  //! fp16 can hold: larger bfloat16 and float ones are saturated; an infinity of float16 and a NaN stay
  //! visible as NaN parameters of their group.
  batch_rows<Input const> keys{}, values{};
  int max_tokens = 0;  //!< bound of the lengths; sizes the grid and the workspace
  //! [sequences] or null: token at which the rows of each sequence begin (cu_seqlens; then stride_sequence is
  //! 0).
  std::int64_t const* first_row = nullptr;
};

//! Encoding compiled for one scheme, head size, tile and input type.
//!
//! Everything of a sequence is written: sinks, tiles with their masks (all bytes of a page's sections, so
//! that recycled pages need no clearing), the pool (chosen once over all tokens that are encoded), empty
//! auxiliary pools, the tail and `encoded`. Bytes equal those of kv_cache::prefill with float16 rows.
//! Enqueued in `stream`; nothing allocates, synchronizes or reads a length. One block encodes one side of a
//! tile of a kv head.
template <class Scheme, int HeadDim, int TileTokens, class Input>
class encoder {
 public:
  using config = block::encode_config<Scheme, HeadDim, TileTokens, Input>;
  using request_type = encode_request<Input>;
  using arguments = block::encode_arguments<Input>;

  //! Whether kernels can encode this scheme in this shape, or why not.
  static constexpr status supports() noexcept { return can_encode<config>(); }

  //! The checks of the launcher. Ok also for empty batches.
  static status check(Scheme const& scheme, request_type const& r) noexcept {
    if (r.max_tokens < 0) return status::out_of_range;
    if (status const s = detail::check_cache<config>(scheme, r.cache, 0); s != status::ok) return s;
    if (r.cache.sequences == 0) return status::ok;
    if (scheme.flush.block == 0 && r.cache.tail_capacity < r.max_tokens - r.cache.sink_capacity)
      return status::bad_window;
    int const tiles = static_cast<int>(ceil_div(max_slots(scheme, r.cache, r.max_tokens), TileTokens));
    page_map const& pages = r.cache.pages;
    if (pages.indptr == nullptr && r.cache.sequences > 1 && pages.stride < tiles) return status::bad_stride;
    bool const packed = r.first_row != nullptr;
    if (status const s = detail::check_input(r.keys, r.cache, packed, r.max_tokens); s != status::ok)
      return s;
    if (status const s = detail::check_input(r.values, r.cache, packed, r.max_tokens); s != status::ok)
      return s;
    return grids_of(scheme, r.cache, r.max_tokens).fit() ? status::ok : status::size_overflow;
  }

  //! Bytes of workspace: with a token pool 4 for each of the at most max_tokens encoded tokens of each kv
  //! head (of each layer, where its heads decide together), else 0.
  static std::int64_t workspace(Scheme const& scheme, batch_cache const& c, int max_tokens) noexcept {
    if (scheme.isolate.pool_capacity() <= 0) return 0;
    return 4 * static_cast<std::int64_t>(c.sequences) * deciding(scheme, c) *
           max_slots(scheme, c, max_tokens);
  }

  //! Enqueues the kernels: scores and selection (token pools), exact rows, tiles.
  [[nodiscard]] static cudaError_t encode(Scheme const& scheme, request_type const& r, void* workspace,
                                          std::int64_t bytes, cudaStream_t stream = nullptr) noexcept {
    if (check(scheme, r) != status::ok) return cudaErrorInvalidValue;
    batch_cache const& c = r.cache;
    if (c.sequences == 0) return cudaSuccess;
    std::int64_t const needed = encoder::workspace(scheme, c, r.max_tokens);
    if (needed > bytes || (needed > 0 && (workspace == nullptr || !detail::aligned(workspace, 16))))
      return cudaErrorInvalidValue;
    arguments a;
    a.cache = c;
    a.keys = r.keys;
    a.values = r.values;
    a.first_row = r.first_row;
    a.flush = scheme.flush;
    a.max_tokens = r.max_tokens;
    a.max_slots = max_slots(scheme, c, r.max_tokens);
    a.scores = static_cast<float*>(workspace);
    if constexpr (supports() != status::ok) {
      return cudaErrorInvalidValue;
    } else {
      return enqueue(scheme, a, stream);
    }
  }

 private:
  static int deciding(Scheme const& scheme, batch_cache const& c) noexcept {
    return scheme.isolate.scope() == pool_scope::per_layer ? 1 : c.kv_heads;
  }
  static int max_slots(Scheme const& scheme, batch_cache const& c, int max_tokens) noexcept {
    int const behind = max_tokens > c.sink_capacity ? max_tokens - c.sink_capacity : 0;
    return scheme.flush.to_encode(behind);
  }
  static std::int64_t ceil_div(std::int64_t a, std::int64_t b) noexcept { return (a + b - 1) / b; }

  //! Blocks of the kernels, 0 where they are too many.
  struct grids {
    int slots, exact_blocks;
    unsigned score, select, rows, tiles;

    bool fit() const noexcept {
      return select != 0 && rows != 0 && (slots == 0 || (score != 0 && tiles != 0));
    }
  };
  static grids grids_of(Scheme const& scheme, batch_cache const& c, int max_tokens) noexcept {
    // No length has more exact rows: sinks, and a tail that is full but for one.
    window const w = scheme.flush;
    std::int64_t const tail = w.block == 0 ? max_tokens : std::int64_t{w.recent} + w.block - 1;
    std::int64_t const exact = c.sink_capacity + tail < max_tokens ? c.sink_capacity + tail : max_tokens;
    std::int64_t const blocks = exact > 0 ? ceil_div(exact, kernel::rows_per_block) : 1;
    int const slots = max_slots(scheme, c, max_tokens), segments = deciding(scheme, c);
    return {slots,
            static_cast<int>(blocks),
            detail::grid_of(c.sequences, segments, ceil_div(slots, kernel::rows_per_block)),
            detail::grid_of(c.sequences, segments, 1),
            detail::grid_of(c.sequences, c.kv_heads, blocks),
            detail::grid_of(c.sequences, 2 * std::int64_t{c.kv_heads}, ceil_div(slots, TileTokens))};
  }

  static cudaError_t enqueue(Scheme const& scheme, arguments const& a, cudaStream_t stream) noexcept {
    batch_cache const& c = a.cache;
    grids const g = grids_of(scheme, c, a.max_tokens);
    dim3 const threads(config::threads);
    cudaError_t e = cudaSuccess;
    if constexpr (config::isolating) {
      if (c.pool.capacity > 0) {
        if (a.max_slots > 0)
          e = launch(kernel::score_kernel<config>, dim3(g.score), threads, 0, stream, a, scheme);
        if (e != cudaSuccess) return e;
        e = launch(kernel::select_kernel<Input>, dim3(g.select), dim3(kernel::select_threads), 0, stream, a,
                   scheme.isolate.scope() == pool_scope::per_layer);
        if (e != cudaSuccess) return e;
      }
    }
    e = launch(kernel::exact_kernel<config>, dim3(g.rows), threads, 0, stream, a, g.exact_blocks);
    if (e != cudaSuccess || a.max_slots == 0) return e;
    return launch(kernel::encode_kernel<config>, dim3(g.tiles), threads,
                  static_cast<std::size_t>(config::shared_bytes(TileTokens)), stream, a, scheme);
  }
};

//! Whether the device can encode a scheme in this shape, or why not.
template <class Scheme>
status supports_encode(Scheme const& scheme, tile_shape shape, int kv_heads) noexcept {
  if (status const s = scheme.supports(shape, kv_heads); s != status::ok) return s;
  return detail::with_shape<Scheme, float16>(
      shape, status::bad_head_dim, [](auto config) { return can_encode<typename decltype(config)::type>(); });
}

//! Bytes of workspace of encode().
template <class Scheme>
std::int64_t encode_workspace(Scheme const& scheme, batch_cache const& cache, int max_tokens) noexcept {
  return encoder<Scheme, 128, 128, float16>::workspace(scheme, cache, max_tokens);
}

//! encoder::encode for a shape that is known at run time only: compiles kernels for all of them.
template <class Scheme, class Input>
[[nodiscard]] cudaError_t encode(Scheme const& scheme, batch_cache const& cache, batch_rows<Input const> keys,
                                 batch_rows<Input const> values, int max_tokens,
                                 std::int64_t const* first_row, void* workspace, std::int64_t workspace_bytes,
                                 cudaStream_t stream = nullptr) noexcept {
  return detail::with_shape<Scheme, Input>(cache.shape, cudaErrorInvalidValue, [&](auto config) {
    using type = typename decltype(config)::type;
    return encoder<Scheme, type::head_dim, type::tile_tokens, Input>::encode(
        scheme, {cache, keys, values, max_tokens, first_row}, workspace, workspace_bytes, stream);
  });
}

}  // namespace kvcrumb::inline v0::device
