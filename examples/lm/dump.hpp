// SPDX-License-Identifier: Apache-2.0
//! @file dump: .safetensors files of what the model computed: recordings for kvcrumb-compare, logits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tensor_file.hpp"

namespace kvcrumb_lm {

//! One array of a file; `data` holds its bytes, little-endian.
struct tensor_out {
  std::string name;
  char const* type;  //!< F16, F32 or I32
  std::vector<std::int64_t> shape;
  std::string data;
};
tensor_out f16_tensor(std::string name, std::vector<std::int64_t> shape, std::span<float const> values);
tensor_out f32_tensor(std::string name, std::vector<std::int64_t> shape, std::span<float const> values);
tensor_out i32_tensor(std::string name, std::span<int const> values);

using text_map = std::map<std::string, std::string>;

//! Writes a .safetensors file. An error text, empty if all is well.
std::string write_safetensors(std::filesystem::path const& path, std::span<tensor_out const> tensors,
                              text_map const& metadata);

//! Writes q, k (both after RoPE), k_pre_rope and v as f16, [layer][head][token][dim], and token_ids as i32.
//! All layers have the same shape; `before_rope` is [layer][kv_heads][tokens][head_dim]. Values beyond f16
//! are refused.
std::string write_recording(std::filesystem::path const& path,
                            std::span<kvcrumb_compare::recorded_layer const> layers,
                            std::span<float const> before_rope, std::span<int const> tokens,
                            text_map const& metadata);

}  // namespace kvcrumb_lm
