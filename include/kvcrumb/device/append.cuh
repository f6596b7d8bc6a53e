// SPDX-License-Identifier: Apache-2.0
//! @file Decode-time appends to device caches, and dropping tokens again, with the bytes of the host cache.
#pragma once

#include "kvcrumb/device/encode_checks.cuh"
#include "kvcrumb/kernel/append.cuh"

namespace kvcrumb::inline v0::device {

//! Bytes of workspace of append(). The caller zeroes them once; every append leaves them zero.
inline std::int64_t append_workspace(batch_cache const& cache) noexcept {
  return 4 * std::int64_t{cache.sequences};
}

//! New tokens of every sequence. `cache.tokens` counts them already: the first new position is tokens -
//! count.
template <class Input>
struct append_request {
  batch_cache cache{};
  //! row(sequence, kv head, new token), float16, bfloat16 or float; multiples of 16 bytes.
  batch_rows<Input const> keys{}, values{};
  int count = 1;  //!< new tokens of each sequence, at least 1
  std::int32_t const* counts =
      nullptr;  //!< [sequences] or null: their numbers; at most `count`, below 1: none
  //! [sequences] or null: token at which the new rows of each sequence begin (query_start_loc of packed
  //! batches; then stride_sequence is 0).
  std::int64_t const* first_row = nullptr;
};

//! Appends compiled for one scheme, head size, tile and input type.
//!
//! append() writes the rows into sinks and tail, and as soon as the tail holds recent + block tokens encodes
//! the oldest `block` (token pools: by the streaming rule first) and moves `encoded` on, all on the device:
//! bytes equal those of kv_cache::append for any chunking. The tail needs recent + block + count - 1 rows
//! (with block 0, which encodes nothing, as many as the longest sequence has behind its sinks: no check can
//! know that). Row-independent schemes with window {0, 1} do without tail and `encoded`. Grid and arguments
//! do not depend on lengths, so that steps can be captured in a graph.
//!
//! Rollback: lower tokens[sequence]; nothing else is needed as long as the dropped tokens are in the tail.
//! truncate() lets row-independent schemes drop encoded tokens as well; it is called after lowering.
template <class Scheme, int HeadDim, int TileTokens, class Input>
class appender {
 public:
  using config = block::encode_config<Scheme, HeadDim, TileTokens, Input>;
  using request_type = append_request<Input>;
  using arguments = block::encode_arguments<Input>;

  //! Whether kernels can encode this scheme in this shape, or why not.
  static constexpr status supports() noexcept { return can_encode<config>(); }

  //! The checks of the launcher. Ok also for empty batches.
  static status check(Scheme const& scheme, request_type const& r) noexcept {
    if (r.count < 1) return status::out_of_range;
    if (status const s = detail::check_cache<config>(scheme, r.cache, r.count); s != status::ok) return s;
    if (r.cache.sequences == 0) return status::ok;
    if (detail::grid_of(r.cache.sequences, r.cache.kv_heads, 1) == 0) return status::size_overflow;
    if (shared_bytes(scheme, r.cache, r.count) > block::max_encode_shared) return status::bad_window;
    bool const packed = r.first_row != nullptr;
    if (status const s = detail::check_input(r.keys, r.cache, packed, r.count); s != status::ok) return s;
    return detail::check_input(r.values, r.cache, packed, r.count);
  }

  //! As append_workspace().
  static std::int64_t workspace(batch_cache const& c) noexcept { return append_workspace(c); }

  //! Enqueues one kernel: one block for each kv head (for heads that share groups or a pool) of each
  //! sequence.
  [[nodiscard]] static cudaError_t append(Scheme const& scheme, request_type const& r, void* workspace,
                                          std::int64_t bytes, cudaStream_t stream = nullptr) noexcept {
    if (check(scheme, r) != status::ok) return cudaErrorInvalidValue;
    batch_cache const& c = r.cache;
    if (c.sequences == 0) return cudaSuccess;
    bool const tickets = c.encoded != nullptr;
    if (tickets &&
        (workspace == nullptr || !detail::aligned(workspace, 16) || bytes < appender::workspace(c)))
      return cudaErrorInvalidValue;
    arguments a;
    a.cache = c;
    a.keys = r.keys;
    a.values = r.values;
    a.flush = scheme.flush;
    a.count = r.count;
    a.counts = r.counts;
    a.first_row = r.first_row;
    a.tickets = static_cast<std::uint32_t*>(workspace);
    a.heads_per_block = heads_per_block(scheme, c);
    a.chunk_tokens = chunk_tokens(scheme, r.count);
    if constexpr (supports() != status::ok) {
      return cudaErrorInvalidValue;
    } else {
      return launch(kernel::append_kernel<config>, dim3(detail::grid_of(c.sequences, a.units(), 1)),
                    dim3(config::threads),
                    {static_cast<std::size_t>(shared_bytes(scheme, c, r.count)),
                     static_cast<std::size_t>(shared_bytes(scheme, c, TileTokens))},
                    stream, a, scheme);
    }
  }

  //! The checks of truncate().
  static status check_truncate(Scheme const& scheme, batch_cache const& c) noexcept {
    if (!Scheme::row_independent) return status::not_in_tail;
    if (status const s = detail::check_cache<config>(scheme, c, 0); s != status::ok) return s;
    bool const fits = c.sequences == 0 || detail::grid_of(c.sequences, c.kv_heads, 1) != 0;
    return fits ? status::ok : status::size_overflow;
  }

  //! After tokens[sequence] was lowered below encoded tokens: clears their slots and mask bits in the tile in
  //! which the sequence now ends (later tiles are cleared when they are used again), forgets isolated tokens
  //! beyond the length and lowers `encoded`. Row-independent schemes only.
  [[nodiscard]] static cudaError_t truncate(Scheme const& scheme, batch_cache const& c,
                                            cudaStream_t stream = nullptr) noexcept {
    if (check_truncate(scheme, c) != status::ok) return cudaErrorInvalidValue;
    if (c.sequences == 0) return cudaSuccess;
    if constexpr (!Scheme::row_independent || supports() != status::ok) {
      return cudaErrorInvalidValue;
    } else {
      unsigned const grid = detail::grid_of(c.sequences, c.kv_heads, 1);
      arguments a;
      a.cache = c;
      cudaError_t const e =
          launch(kernel::truncate_kernel<config>, dim3(grid), dim3(config::threads), 0, stream, a);
      if (e != cudaSuccess || c.encoded == nullptr) return e;
      return launch(kernel::shorten_kernel<arguments>, dim3(static_cast<unsigned>((c.sequences + 255) / 256)),
                    dim3(256), 0, stream, a);
    }
  }

 private:
  //! Rows that are encoded at once: whole groups, at most a tile.
  static int chunk_tokens(Scheme const& scheme, int count) noexcept {
    if (scheme.flush.block == 0) return Scheme::append_tokens;
    int const block = Scheme::row_independent && count > scheme.flush.block ? count : scheme.flush.block;
    return block < TileTokens ? block : TileTokens;
  }
  static int heads_per_block(Scheme const& scheme, batch_cache const& c) noexcept {
    if (scheme.isolate.pool_capacity() > 0 && scheme.isolate.scope() == pool_scope::per_layer)
      return c.kv_heads;
    return config::head_span < c.kv_heads ? config::head_span : c.kv_heads;
  }
  static std::int64_t shared_bytes(Scheme const& scheme, batch_cache const& c, int count) noexcept {
    std::int64_t const flags =
        config::isolating
            ? 4 * (std::int64_t{heads_per_block(scheme, c)} * block::row_flags::words + max_tile_tokens)
            : 0;
    return flags + config::shared_bytes(chunk_tokens(scheme, count));
  }
};

//! appender::append for a shape that is known at run time only: compiles kernels for all of them.
template <class Scheme, class Input>
[[nodiscard]] cudaError_t append(Scheme const& scheme, batch_cache const& cache, batch_rows<Input const> keys,
                                 batch_rows<Input const> values, int count, std::int32_t const* counts,
                                 void* workspace, std::int64_t workspace_bytes,
                                 cudaStream_t stream = nullptr) noexcept {
  return detail::with_shape<Scheme, Input>(cache.shape, cudaErrorInvalidValue, [&](auto config) {
    using type = typename decltype(config)::type;
    return appender<Scheme, type::head_dim, type::tile_tokens, Input>::append(
        scheme, {cache, keys, values, count, counts}, workspace, workspace_bytes, stream);
  });
}

//! appender::truncate for a shape that is known at run time only.
template <class Scheme>
[[nodiscard]] cudaError_t truncate(Scheme const& scheme, batch_cache const& cache,
                                   cudaStream_t stream = nullptr) noexcept {
  return detail::with_shape<Scheme, float16>(cache.shape, cudaErrorInvalidValue, [&](auto config) {
    using type = typename decltype(config)::type;
    return appender<Scheme, type::head_dim, type::tile_tokens, float16>::truncate(scheme, cache, stream);
  });
}

}  // namespace kvcrumb::inline v0::device
