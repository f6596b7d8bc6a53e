// SPDX-License-Identifier: Apache-2.0
//! @file Launchers of decode attention: check, plan, run. Nothing here allocates, synchronizes or reads a
//! length.
#pragma once

#include "kvcrumb/device/checks.cuh"
#include "kvcrumb/device/launch.cuh"
#include "kvcrumb/kernel/decode.cuh"

namespace kvcrumb::inline v0::device {

//! What a decode step computes. Pointers are device memory.
struct decode_options {
  float softmax_scale = 0.0f;          //!< factor of <q, k>, positive; 0 means 1 / sqrt(head_dim)
  float soft_cap = 0.0f;               //!< c > 0: logit = c tanh(s / c) after scaling
  int window = 0;                      //!< w > 0: a query at position p sees keys at positions > p - w
  float const* sink_logits = nullptr;  //!< learned logits that join the denominator only, [query_heads]
  //! 0: the tiles of all sequences are dealt evenly to the blocks; the last bits of a result then depend on
  //! the batch. n > 0: every sequence is cut into parts of n tiles, whatever else is in the batch, so its
  //! result is the same alone and in any batch. Then max_tokens must bound the lengths (it sizes the
  //! workspace).
  int tiles_per_part = 0;
  int max_tokens = 0;
  int blocks = 0;  //!< blocks of the decode grid; 0: as many as the device holds at once (queried per call)
  bool overlap = false;  //!< programmatic dependent launch between the kernels (sm_90 and later)
};

//! One decode step of a layer for a batch: the newest `queries` tokens of each sequence, token j at position
//! length - queries + j, attend to everything up to their own position.
template <class Query, class Output>
struct decode_request {
  batch_cache cache{};
  batch_rows<Query const> q{};  //!< row(sequence, query head, query token); head h reads kv head h / ratio
  batch_rows<Output> o{};       //!< likewise; 0 where nothing is visible
  //! [sequences][query_heads][queries] or null, natural log, sink logits included; -inf where nothing is
  //! visible. Parts that are merged later leave the sink logits to one of them.
  float* lse = nullptr;
  //! [sequences][query_heads][queries][2] or null: maximum and sum of exp(logit - maximum). Then o (float) is
  //! left un-normalized: sum of exp(logit - maximum) v. For cascades that merge partial results themselves.
  float* states = nullptr;
  int query_heads = 1;
  int queries = 1;  //!< 1 to 8
  decode_options options{};
};

//! Decode attention compiled for one scheme, head size, tile and pair of query and output types. ColumnTiles
//! 2 lets 16 instead of 8 query rows (query heads of a kv head times query tokens) share one pass over the
//! cache; schemes with more than two groups per vector and tile have no registers for it.
//!
//! `check` says why a request is refused, `workspace` how many bytes it needs, `plan` finds the split on the
//! device and `run` computes; these three return cudaErrorInvalidValue for what `check` refuses and for a
//! workspace that is null, misaligned (16 bytes) or too small, else what the runtime says. One plan serves
//! all layers of a step, whose lengths are equal; it reads `encoded`, so it comes behind the first append
//! that may encode. Work is enqueued in `stream` and can be captured in a graph: lengths, page lists and the
//! split are read on the device. plan() and run() must agree in everything but pointers to data.
template <class Scheme, int HeadDim, int TileTokens, class Query, class Output, int ColumnTiles = 1>
class decoder {
 public:
  using config = block::decode_config<Scheme, HeadDim, TileTokens, Query, Output, ColumnTiles>;
  using request_type = decode_request<Query, Output>;
  using arguments = block::decode_arguments<Query, Output>;
  static_assert(ColumnTiles == 1 || ColumnTiles == 2, "kvcrumb::decoder: ColumnTiles must be 1 or 2");

  //! Whether kernels can read this scheme in this shape, or why not.
  static constexpr status supports() noexcept {
    using key = typename Scheme::key_type;
    using value = typename Scheme::value_type;
    if constexpr (!warp::transform_traits<typename key::transform_type>::supported ||
                  !warp::transform_traits<typename value::transform_type>::supported) {
      return status::unknown_scheme;
    } else {
      if (status const k = config::blob::key::readable(); k != status::ok) return k;
      if (status const v = config::blob::value::readable(); v != status::ok) return v;
      bool const many = config::blob::key::groups > 2 || config::blob::value::groups > 2;
      return ColumnTiles > 1 && many ? status::bad_group : status::ok;
    }
  }

  //! The checks of every launcher. Ok also for empty batches.
  static status check(Scheme const& scheme, request_type const& r) noexcept {
    batch_cache const& c = r.cache;
    if constexpr (supports() != status::ok) return supports();
    if (c.shape.head_dim != HeadDim) return status::bad_head_dim;
    if (c.shape.tile_tokens != TileTokens) return status::bad_tile_tokens;
    if (status const s = check_sizes(r); s != status::ok) return s;
    if (status const s = scheme.supports(c.shape, c.kv_heads); s != status::ok) return s;
    decode_options const& o = r.options;
    if (!is_finite_bits(o.softmax_scale) || o.softmax_scale < 0.0f || !is_finite_bits(o.soft_cap) ||
        o.soft_cap < 0.0f) {
      return status::out_of_range;
    }
    if (r.states != nullptr && !std::same_as<Output, float>) return status::out_of_range;
    if (c.sequences == 0) return status::ok;
    if (status const s = detail::check_pages(c.pages, c.sequences); s != status::ok) return s;
    if (c.tokens == nullptr && (c.pages.last_page_len == nullptr || c.sink_capacity > 0 ||
                                c.tail_capacity > 0 || c.encoded != nullptr)) {
      return status::null_pointer;
    }
    using blob = typename config::blob;
    if (status const s =
            detail::check_sections(c.keys, blob::key::code_bytes + blob::key::param_bytes, c.kv_heads);
        s != status::ok) {
      return s;
    }
    if (status const s =
            detail::check_sections(c.values, blob::value::code_bytes + blob::value::param_bytes, c.kv_heads);
        s != status::ok) {
      return s;
    }
    if (status const s = detail::check_sections(c.masks, blob::mask_bytes, c.kv_heads); s != status::ok)
      return s;
    if (c.sink_capacity < 0 || c.tail_capacity < 0) return status::bad_window;
    if (c.encoded != nullptr && c.tail_capacity == 0) return status::bad_window;
    if (c.sink_capacity > 0) {
      if (status const s = detail::check_exact(c.sink_keys, c); s != status::ok) return s;
      if (status const s = detail::check_exact(c.sink_values, c); s != status::ok) return s;
    }
    if (c.tail_capacity > 0) {
      if (status const s = detail::check_exact(c.tail_keys, c); s != status::ok) return s;
      if (status const s = detail::check_exact(c.tail_values, c); s != status::ok) return s;
    }
    if (status const s = detail::check_isolated(c.pool, c); s != status::ok) return s;
    if (status const s = detail::check_isolated(c.aux, c); s != status::ok) return s;
    if (status const s = detail::check_rows(r.q, HeadDim, c.sequences, r.query_heads, r.queries);
        s != status::ok)
      return s;
    return detail::check_rows(r.o, HeadDim, c.sequences, r.query_heads, r.queries);
  }

  //! Bytes of workspace that plan() and run() need. Asks the device for its size unless options.blocks is
  //! given. Looks at shapes and options only: pointers may still be null, but those that say whether the
  //! cache has pools, sinks and tail must be set (their capacities).
  [[nodiscard]] static cudaError_t workspace(request_type const& r, std::int64_t& bytes) noexcept {
    if (check_sizes(r) != status::ok) return cudaErrorInvalidValue;
    arguments a = arguments_of(r);
    if (cudaError_t const e = grid_blocks(a); e != cudaSuccess) return e;
    bytes = place(a, r, nullptr);
    return cudaSuccess;
  }

  //! Finds out on the device where each block begins. Reads lengths, `encoded` and page lists only.
  [[nodiscard]] static cudaError_t plan(Scheme const& scheme, request_type const& r, void* workspace,
                                        std::int64_t bytes, cudaStream_t stream = nullptr) noexcept {
    arguments a;
    if (cudaError_t const e = prepare(scheme, r, workspace, bytes, a); e != cudaSuccess) return e;
    if (r.cache.sequences == 0) return cudaSuccess;
    return launch(kernel::plan_kernel<config, arguments>, 1, kernel::plan_threads, 0, stream, a);
  }

  //! Attention, with the plan that is in the workspace.
  [[nodiscard]] static cudaError_t run(Scheme const& scheme, request_type const& r, void* workspace,
                                       std::int64_t bytes, cudaStream_t stream = nullptr) noexcept {
    arguments a;
    if (cudaError_t const e = prepare(scheme, r, workspace, bytes, a); e != cudaSuccess) return e;
    if (r.cache.sequences == 0) return cudaSuccess;
    auto const enqueue = [&](auto... launch_arguments) {
      return r.options.overlap ? launch<dependency::programmatic>(launch_arguments...)
                               : launch<dependency::full>(launch_arguments...);
    };
    dim3 const grid(static_cast<unsigned>(a.grid_blocks)), threads(config::threads);
    cudaError_t const e = enqueue(kernel::decode_kernel<config, arguments>, grid, threads,
                                  block::decode<config>::dynamic_bytes, stream, a, scheme);
    if (e != cudaSuccess) return e;
    // One block for each query row, unless that is more than a device holds at once: most of so many segments
    // have nothing to join.
    int const columns = a.rows() < config::columns ? a.rows() : config::columns;
    int const segments = r.cache.sequences * a.segments(config::columns);
    dim3 const rows(static_cast<unsigned>(segments),
                    segments * columns <= 1024 ? static_cast<unsigned>(columns) : 1u);
    return enqueue(kernel::combine_kernel<config, arguments>, rows, threads, std::size_t{0}, stream, a,
                   scheme);
  }

  //! plan() and run().
  [[nodiscard]] static cudaError_t attend(Scheme const& scheme, request_type const& r, void* workspace,
                                          std::int64_t bytes, cudaStream_t stream = nullptr) noexcept {
    cudaError_t const e = plan(scheme, r, workspace, bytes, stream);
    return e != cudaSuccess ? e : run(scheme, r, workspace, bytes, stream);
  }

 private:
  static constexpr int longest =
      1 << 30;  //!< tokens of a sequence and a window, so that sums do not overflow

  static constexpr int ceil_div(int a, int b) noexcept { return a / b + (a % b != 0 ? 1 : 0); }

  //! What the size of the workspace depends on.
  static status check_sizes(request_type const& r) noexcept {
    batch_cache const& c = r.cache;
    if (c.sequences < 0 || c.kv_heads < 1 || r.query_heads < 1 || r.query_heads % c.kv_heads != 0 ||
        r.queries < 1 || r.queries > 8) {
      return status::bad_shape;
    }
    decode_options const& o = r.options;
    if (o.window < 0 || o.tiles_per_part < 0 || o.blocks < 0 || o.max_tokens < 0) return status::bad_window;
    if (o.tiles_per_part > 0 && o.max_tokens == 0) return status::bad_window;
    if (o.max_tokens > longest) return status::size_overflow;
    if (static_cast<std::int64_t>(c.sequences) * c.kv_heads * r.query_heads * r.queries > (1 << 30)) {
      return status::size_overflow;
    }
    return status::ok;
  }

  static arguments arguments_of(request_type const& r) noexcept {
    arguments a;
    a.cache = r.cache;
    a.q = r.q;
    a.o = r.o;
    a.lse = r.lse;
    a.states = r.states;
    a.query_heads = r.query_heads;
    a.queries = r.queries;
    float const scale = r.options.softmax_scale;
    a.scale = (scale > 0.0f ? scale : 1.0f / sqrt_rn(static_cast<float>(HeadDim))) * warp::log2_e;
    a.soft_cap = r.options.soft_cap;
    a.window = r.options.window < longest ? r.options.window : longest;
    a.sink_logits = r.options.sink_logits;
    int const tiles = ceil_div(r.options.max_tokens, TileTokens);
    a.chunk_tiles = r.options.tiles_per_part < tiles ? r.options.tiles_per_part : tiles;
    if (r.options.tiles_per_part > 0 && a.chunk_tiles < 1) a.chunk_tiles = 1;
    a.grid_blocks = r.options.blocks;
    return a;
  }

  static cudaError_t grid_blocks(arguments& a) noexcept {
    if (a.grid_blocks > 0) return cudaSuccess;
    constexpr std::size_t bytes = block::decode<config>::dynamic_bytes;
    auto* const decode = kernel::decode_kernel<config, arguments>;
    int device = 0, multiprocessors = 0, resident = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
      e = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (e == cudaSuccess) {
      e = cudaFuncSetAttribute(decode, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    }
    if (e == cudaSuccess) {
      e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, decode, config::threads, bytes);
    }
    if (e == cudaSuccess && resident == 0) e = cudaErrorInvalidConfiguration;
    a.grid_blocks = multiprocessors * resident;
    return e;
  }

  //! Divides the workspace; returns the bytes that are needed. With a null workspace nothing is set.
  static std::int64_t place(arguments& a, request_type const& r, std::byte* workspace) noexcept {
    std::int64_t used = 0;
    auto const take = [&](std::int64_t bytes) {
      std::int64_t const at = used;
      used += align_up(bytes, 16);
      return workspace == nullptr ? nullptr : workspace + at;
    };
    std::int64_t const segments = static_cast<std::int64_t>(r.cache.sequences) * a.segments(config::columns);
    std::int64_t const slot = 4 * block::partial_results::slot_floats(config::columns, HeadDim);
    a.plan.prefix = reinterpret_cast<std::int64_t*>(take(8 * (std::int64_t{r.cache.sequences} + 1)));
    a.plan.starts = reinterpret_cast<block::work_start*>(
        take(static_cast<std::int64_t>(sizeof(block::work_start)) * a.grid_blocks));
    a.plan.blocks = reinterpret_cast<std::int32_t*>(take(4));
    std::int64_t slots = 2 * std::int64_t{a.grid_blocks};
    if (a.chunk_tiles > 0) {
      slots = segments * (ceil_div(ceil_div(r.options.max_tokens, TileTokens), a.chunk_tiles) + 1);
    }
    a.partials = reinterpret_cast<float*>(take(slots * slot));
    a.exact_partials = nullptr;
    if (detail::has_exact_rows(r.cache)) {
      a.exact_partials = reinterpret_cast<float*>(take(2 * segments * slot));
    }
    return used;
  }

  static cudaError_t prepare(Scheme const& scheme, request_type const& r, void* workspace, std::int64_t bytes,
                             arguments& a) noexcept {
    if (check(scheme, r) != status::ok) return cudaErrorInvalidValue;
    a = arguments_of(r);
    if (r.cache.sequences == 0) return cudaSuccess;
    if (cudaError_t const e = grid_blocks(a); e != cudaSuccess) return e;
    if (workspace == nullptr || !detail::aligned(workspace, 16)) return cudaErrorInvalidValue;
    return place(a, r, static_cast<std::byte*>(workspace)) > bytes ? cudaErrorInvalidValue : cudaSuccess;
  }
};

}  // namespace kvcrumb::inline v0::device
