// SPDX-License-Identifier: Apache-2.0
//! @file weights: the tensors of a Hugging Face model folder as matrices of this engine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "matrix.hpp"
#include "model_config.hpp"

namespace kvcrumb_lm {

struct layer_weights {
  std::vector<float> input_norm, output_norm;  //!< [hidden], before attention and before the MLP
  std::vector<float> q_norm, k_norm;           //!< [head_dim]; empty without qk_norm
  matrix qkv;                                  //!< queries, then keys, then values
  matrix output;
  matrix gate_up;  //!< gate, then up
  matrix down;
};

struct model {
  model_config config;
  matrix embedding;  //!< [vocabulary][hidden]
  matrix head;       //!< the same without tying; empty if tied
  std::vector<float> final_norm;
  std::vector<layer_weights> layers;
  std::vector<double> frequencies;  //!< rope_frequencies(config)
  std::uint64_t hash = 0;           //!< of the config and of all bytes that were read

  matrix const& output_matrix() const noexcept { return config.tied ? embedding : head; }
};

//! Reads config.json and model.safetensors, or the files that model.safetensors.index.json names. Tensors are
//! f32, f16 or bf16, converted to fp32 (exactly); with weights_int8 in the config also i8 with a scale per
//! row in NAME_scale. Refused with the name of the tensor: one that is missing, has another shape or type, or
//! holds a value that is not finite.
result<model> load_model(std::filesystem::path const& folder);

//! FNV-1a over bytes, continued from `hash`.
std::uint64_t hash_bytes(void const* data, std::size_t size, std::uint64_t hash = 0xCBF29CE484222325u);

}  // namespace kvcrumb_lm
