// SPDX-License-Identifier: Apache-2.0
//! @file load_tensor_file: recorded queries, keys and values out of a .safetensors or .npz file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "result.hpp"

namespace kvcrumb_compare {

//! The type in which the file holds a tensor.
enum class stored_type : std::uint8_t { f16, bf16, f32, f64 };

//! "f16", "bf16", "f32" or "f64".
std::string_view name_of(stored_type type) noexcept;

//! One layer. All arrays are dense, slowest axis first, converted to float (exact from f16, bf16 and f32;
//! from f64 rounded to nearest even). Everything is finite.
struct recorded_layer {
  int number = 0;                //!< its number in the model
  std::int64_t query_heads = 0;  //!< 0 without queries; else a multiple of kv_heads
  std::int64_t kv_heads = 0;
  std::int64_t queries = 0;    //!< query tokens; 0 without queries
  std::int64_t tokens = 0;     //!< cached tokens
  std::int64_t head_dim = 0;   //!< of q and k
  std::int64_t value_dim = 0;  //!< of v
  std::vector<float> q;        //!< [query_heads][queries][head_dim]; empty without queries
  std::vector<float> k;        //!< [kv_heads][tokens][head_dim]
  std::vector<float> v;        //!< [kv_heads][tokens][value_dim]
  stored_type q_type = stored_type::f16;
  stored_type k_type = stored_type::f16;
  stored_type v_type = stored_type::f16;
  std::vector<std::int64_t> query_positions;  //!< [queries]: query i may see tokens 0 ... query_positions[i]
  std::vector<std::int64_t> key_positions;    //!< [kv_heads][tokens] in the text; empty if the file has none

  bool has_queries() const noexcept { return queries > 0; }
};

//! The content of a file. Every layer has the same numbers of heads, tokens and queries and the same
//! dimensions.
struct recorded_layers {
  std::vector<recorded_layer> layers;           //!< at least one, in the order of the file
  std::map<std::string, std::string> metadata;  //!< as in the file (.npz has none)
  std::string format;                           //!< "safetensors" or "npz"
  std::vector<std::string> unused;              //!< names of arrays that were not recognised
};

struct load_options {
  std::vector<int> layers;                            //!< numbers of the layers wanted; empty: all
  std::uint64_t max_values = std::uint64_t{1} << 31;  //!< refuse to load more numbers than this
};

//! Reads a file. Its kind is seen from its first bytes, not from its name.
//!
//! Arrays, types f16, bf16 (.safetensors only), f32, f64:
//! - `q`, `k`, `v` (or `query key value`, `queries keys values`) with axes [layer][head][token][dim], or
//!   [head][token][dim] for one layer; or
//! - one array per layer, [head][token][dim] or [1][head][token][dim], named after the layer: `layers.3.k`,
//!   `model.layers.3.self_attn.k`, `layer3/k`, `k.3`, `past_key_values.3.key`. In general: parts joined by
//!   `.` or
//!   `/`, one of them the letter or word above, one of them a number or `layer` with a number, the others out
//!   of `model transformer layers layer h self_attn attn attention cache kv_cache past_key_values`.
//! `q` may be absent. With as many tokens as `k`, query i stands at position i; with fewer, n, they are the
//! last n.
//!
//! Optional metadata (strings; in .npz: one-dimensional integer arrays of the same names):
//! - `layers`, "2,4": the numbers of the layers of [layer]... arrays, otherwise 0, 1, 2, ...
//! - `query_positions`, "896-1023" or "3,7,11": the token at which each query stands, counted in the cache.
//! Optional integer array `position` (`positions`, `key_positions`), [token], [head][token] or
//! [layer][head][token]: where in the text each cached token stood.
//!
//! Refused with a sentence that names the array: anything truncated, foreign or contradictory, sizes that
//! overflow or exceed the limits, query heads that are not a multiple of the kv heads, and the first value
//! that is NaN or infinite (with layer, head, token and dim). Cost: one pass; memory of the layers asked for.
result<recorded_layers> load_tensor_file(std::filesystem::path const& path, load_options const& options = {});

//! The same from the bytes of a file in memory; `name` stands in error texts.
result<recorded_layers> load_tensor_bytes(std::span<std::byte const> bytes, std::string_view name,
                                          load_options const& options = {});

//! Exact value of a binary16 / bfloat16 number given by its bits.
float half_to_float(std::uint16_t bits) noexcept;
float bfloat16_to_float(std::uint16_t bits) noexcept;

}  // namespace kvcrumb_compare
