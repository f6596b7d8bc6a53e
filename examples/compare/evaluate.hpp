// SPDX-License-Identifier: Apache-2.0
//! @file evaluate: what each named scheme does to recorded layers.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "report.hpp"
#include "result.hpp"
#include "tensor_file.hpp"

namespace kvcrumb_compare {

//! How the caches are made and which queries are asked. The same for every scheme.
struct evaluation_settings {
  int group = 128;  //!< tokens per key group and channels per value group of kivi and ott: 16, 32, 64, 128
  int window = 32;  //!< newest tokens that kivi and ott keep in full precision besides an unfilled group
  int tile_tokens = 128;  //!< 32, 64 or 128
  int pool = 3;           //!< outlier tokens that ott keeps per kv head
  int first_traced = 2;   //!< layers with a smaller number are not traced
  int max_queries = 64;   //!< the last so many recorded queries of every query head
};

//! Settings that fit a sequence: groups of 128 tokens from 512 tokens on, 64 from 256, 32 from 128, else 16
//! without a window; tiles of max(32, group) tokens.
evaluation_settings settings_for(std::int64_t tokens);

//! A name and one sentence.
struct scheme_entry {
  std::string_view name;
  std::string_view summary;
};

//! The schemes of `--schemes all`, in the order of the table.
std::span<scheme_entry const> known_schemes();

//! The entry of a scheme by name or alias (sinkq is ott2); null if there is none.
scheme_entry const* find_scheme(std::string_view name);

//! Exact attention of one layer, computed once for all schemes: double precision over the recorded values.
struct exact_layer {
  std::int64_t queries = 0;             //!< asked per query head, the last ones recorded
  std::vector<std::int64_t> positions;  //!< [queries]
  std::vector<double> output;           //!< [query_heads][queries][head_dim]
  std::vector<double> weights;          //!< [query_heads][queries][tokens]
};
exact_layer exact_attention(recorded_layer const& layer, evaluation_settings const& settings);

//! Runs one scheme over all layers; `advance` is called after each. The text of a failure says which layer
//! and why.
result<scheme_result> evaluate(std::string_view scheme, recorded_layers const& recorded,
                               std::span<exact_layer const> exact, evaluation_settings const& settings,
                               std::function<void()> const& advance);

//! L1 norms of the keys of one kv head, [tokens].
std::vector<double> key_norms(recorded_layer const& layer, std::int64_t head);

}  // namespace kvcrumb_compare
