// SPDX-License-Identifier: Apache-2.0
//! @file The waist of the library: what a scheme for one side of the cache is.
#pragma once

#include <concepts>
#include <type_traits>

#include "kvcrumb/description.hpp"
#include "kvcrumb/layout/tile_shape.hpp"
#include "kvcrumb/trace/concept.hpp"

namespace kvcrumb::inline v0 {

//! Rows to encode into one tile of each kv head of a layer. All kv heads are passed together, because groups
//! may cross heads.
struct encode_request {
  float* rows = nullptr;                   //!< [heads][count][head_dim]; overwritten (transformed in place)
  std::uint8_t const* isolated = nullptr;  //!< [heads][count], nonzero: kept exact elsewhere; null: none
  std::byte* const* sections = nullptr;    //!< [heads], this side's section of the tile
  int heads = 0;
  int count = 0;              //!< a multiple of append_tokens
  int slot = 0;               //!< first slot, a multiple of append_tokens
  std::int64_t position = 0;  //!< sequence position of the first row, for tracers
};

//! A scheme encodes rows of one side into sections of tiles. Everything above it (cache, attention, kernels)
//! sees only this. A scheme is a small trivially copyable value; `shape` and side come with each call.
//!
//! - append_tokens: tokens that must be encoded together, 1 (row-independent) or the token group
//! - supports(side, shape, heads): ok, or the reason why not
//! - section_bytes(side, shape): bytes of one section, codes and parameters, self-contained
//! - encode(side, shape, request, tracer): writes the slots of the request and nothing else
//! - clear(side, shape, slot, count, section): slots as if never written; row-independent schemes only
//! - state_id(heads, head_dim): distinguishes states that change bytes (means, user tables)
//! - describe(text): everything else that changes bytes, as text
template <class S>
concept scheme = requires(S const s, tile_shape shape, encode_request const& request, null_tracer t,
                          description d) {
  requires std::is_trivially_copyable_v<S>;
  { S::append_tokens } -> std::convertible_to<int>;
  { s.supports(side::key, shape, 1) } -> std::same_as<status>;
  { s.section_bytes(side::key, shape) } -> std::same_as<std::int64_t>;
  s.encode(side::key, shape, request, t);
  { s.state_id(1, 128) } -> std::same_as<std::uint64_t>;
  s.describe(d);
};

//! Keys whose score depends on where the token stands in the sequence (keys kept before their rotary
//! embedding): of a slot, and of an exact row, which the cache holds as it was given.
template <class S>
concept positional_key = scheme<S> &&
    requires(S const s, tile_shape shape, float* f, std::byte const* section, std::int64_t at) {
  { s.score_at(shape, f, section, 0, at) } -> std::same_as<float>;
  { s.score_row_at(128, f, f, at) } -> std::same_as<float>;
};

//! Keys: a prepared query (query_floats(head_dim) floats) and the score of one slot, an estimate of <q, k>.
//! A sketch without any decoding is a key scheme.
template <class S>
concept key_scheme = scheme<S> && requires(S const s, float* f) {
  { S::query_floats(128) } -> std::same_as<std::int64_t>;
  s.prepare_query(0, 128, f, f);
} &&(positional_key<S> || requires(S const s, tile_shape shape, float* f, std::byte const* section) {
  { s.score(shape, f, section, 0) } -> std::same_as<float>;
});

//! Values: o += w * v of one slot in the scheme's own basis, and `finish`, which leaves that basis.
template <class S>
concept value_scheme = scheme<S> &&
    requires(S const s, tile_shape shape, float* f, std::byte const* section) {
  s.accumulate(shape, 1.0f, section, 0, f);
  s.finish(0, 128, f, 1.0f);
};

//! Can give back a row of the original basis.
template <class S>
concept decodable = scheme<S> && requires(S const s, tile_shape shape, float* f, std::byte const* section) {
  s.decode_row(side::key, shape, 0, section, 0, f);
};

//! Whole-tile hooks, used instead of score / accumulate when present. `work` holds tile_floats(side, shape)
//! floats that load_tile fills once per tile, however many queries read it.
template <class S>
concept tile_hooks = scheme<S> && requires(S const s, tile_shape shape, float* f, std::byte const* section) {
  { s.tile_floats(side::key, shape) } -> std::same_as<std::int64_t>;
  s.load_tile(side::key, shape, section, f);
  s.score_tile(shape, f, f, f);
  s.accumulate_tile(shape, f, f, f);
};

}  // namespace kvcrumb::inline v0
