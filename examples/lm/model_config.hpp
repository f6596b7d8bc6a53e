// SPDX-License-Identifier: Apache-2.0
//! @file model_config: what config.json of a Hugging Face model says, as far as this engine can run it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "result.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::failure;
using kvcrumb_compare::result;

//! How the frequencies of RoPE are changed for longer contexts.
struct rope_scaling {
  enum class kind : std::uint8_t { none, linear, llama3 };
  kind how = kind::none;
  double factor = 1.0;
  double low_frequency = 1.0, high_frequency = 4.0, original_context = 8192.0;  //!< of llama3
};

struct model_config {
  std::string model_type;  //!< llama, mistral, qwen2 or qwen3
  int vocabulary = 0;
  int hidden = 0;
  int layers = 0;
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int intermediate = 0;
  std::int64_t context = 0;  //!< max_position_embeddings
  std::int64_t window = 0;   //!< sliding window of attention; 0: none
  double rope_theta = 10000.0;
  rope_scaling scaling;
  float epsilon = 1e-6f;  //!< of the RMS norms
  bool tied = false;      //!< the output matrix is the embedding
  bool qkv_bias = false;
  bool output_bias = false;   //!< o_proj has one too
  bool weights_int8 = false;  //!< matrices may be 8-bit integers with a scale for each row
  bool qk_norm = false;       //!< RMS norm of each head's queries and keys before RoPE
  std::optional<int> bos;
  std::vector<int> eos;

  int query_width() const noexcept { return query_heads * head_dim; }
  int kv_width() const noexcept { return kv_heads * head_dim; }
};

//! Reads the text of config.json. What the engine does not know is refused with the name of the field.
result<model_config> parse_config(std::string_view json_text);
result<model_config> load_config(std::filesystem::path const& path);

//! Radians per position of each of the head_dim / 2 pairs of channels.
std::vector<double> rope_frequencies(model_config const& config);

//! The bytes of a file, or why they cannot be read (with its name).
result<std::string> read_text(std::filesystem::path const& path);

}  // namespace kvcrumb_lm
