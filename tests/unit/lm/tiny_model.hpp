// SPDX-License-Identifier: Apache-2.0
//! @file tiny_model: a model folder with random weights that a test can change before it is written.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "dump.hpp"
#include "evaluation.hpp"
#include "support/catch.hpp"

namespace kvcrumb_lm::test {

//! A folder for temporary files that disappears with the object.
class scratch_folder {
 public:
  scratch_folder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("kvcrumb_lm_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_folder(scratch_folder const&) = delete;
  scratch_folder& operator=(scratch_folder const&) = delete;

  std::filesystem::path operator/(std::string const& name) const { return path_ / name; }
  std::filesystem::path const& path() const noexcept { return path_; }
  void write(std::string const& name, std::string const& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }

 private:
  std::filesystem::path path_;
};

inline constexpr int tiny_vocabulary = 320;

//! The quantization_config of 8-bit weights that is read.
inline nlohmann::json int8_quantization() {
  return {
      {"quant_method", "compressed-tensors"},
      {"format", "int-quantized"},
      {"kv_cache_scheme", nullptr},
      {"config_groups",
       {{"group_0",
         {{"targets", {"Linear"}},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"weights", {{"num_bits", 8}, {"type", "int"}, {"symmetric", true}, {"strategy", "channel"}}}}}}}};
}

//! A qwen2 model (biases, tied) of `layers` layers: 4 query heads on 2 kv heads of 64 channels.
struct tiny_files {
  nlohmann::json config;
  std::vector<tensor_out> tensors;

  explicit tiny_files(int layers = 1, unsigned seed = 5, int head_dim = 64) {
    int const hidden = 48, heads = 4, kv_heads = 2, inner = 56;
    config = {{"model_type", "qwen2"},        {"vocab_size", tiny_vocabulary},
              {"hidden_size", hidden},        {"num_hidden_layers", layers},
              {"num_attention_heads", heads}, {"num_key_value_heads", kv_heads},
              {"head_dim", head_dim},         {"intermediate_size", inner},
              {"rms_norm_eps", 1e-5},         {"max_position_embeddings", 4096},
              {"tie_word_embeddings", true},  {"bos_token_id", 0}};
    std::mt19937_64 engine{seed};
    auto const add = [&](std::string const& name, std::vector<std::int64_t> const& shape, double mean,
                         double scale) {
      std::size_t count = 1;
      for (std::int64_t const n : shape)
        count *= static_cast<std::size_t>(n);
      std::normal_distribution<double> normal(mean, scale);
      std::vector<float> values(count);
      for (float& x : values)
        x = static_cast<float>(normal(engine));
      tensors.push_back(f32_tensor(name, shape, values));
    };
    add("model.embed_tokens.weight", {tiny_vocabulary, hidden}, 0.0, 0.25);
    add("model.norm.weight", {hidden}, 1.0, 0.2);
    for (int i = 0; i < layers; ++i) {
      std::string const at = "model.layers." + std::to_string(i) + ".";
      add(at + "input_layernorm.weight", {hidden}, 1.0, 0.2);
      add(at + "post_attention_layernorm.weight", {hidden}, 1.0, 0.2);
      auto const linear = [&](std::string const& part, int out, int in, bool bias) {
        add(at + part + ".weight", {out, in}, 0.0, 1.0 / std::sqrt(in));
        if (bias) add(at + part + ".bias", {out}, 0.0, 0.7);
      };
      linear("self_attn.q_proj", heads * head_dim, hidden, true);
      linear("self_attn.k_proj", kv_heads * head_dim, hidden, true);
      linear("self_attn.v_proj", kv_heads * head_dim, hidden, true);
      linear("self_attn.o_proj", hidden, heads * head_dim, false);
      linear("mlp.gate_proj", inner, hidden, false);
      linear("mlp.up_proj", inner, hidden, false);
      linear("mlp.down_proj", hidden, inner, false);
    }
  }

  tensor_out& tensor(std::string const& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](auto const& t) { return t.name == name; });
  }
  void write(scratch_folder const& to) const {
    to.write("config.json", config.dump());
    REQUIRE(write_safetensors(to / "model.safetensors", tensors, {}).empty());
  }
};

inline model tiny_model(int layers = 1, unsigned seed = 5, int head_dim = 64) {
  scratch_folder const folder;
  tiny_files(layers, seed, head_dim).write(folder);
  auto loaded = load_model(folder.path());
  INFO(loaded.error);
  REQUIRE(loaded);
  return std::move(*loaded);
}

inline std::vector<int> random_tokens(std::size_t count, unsigned seed = 3) {
  std::mt19937_64 engine{seed};
  std::vector<int> tokens(count);
  for (int& t : tokens)
    t = static_cast<int>(engine() % tiny_vocabulary);
  return tokens;
}

//! Logits of all tokens, read `chunk` at a time through `of`.
inline std::vector<float> logits_of(model const& m, sequence& of, std::vector<int> const& tokens,
                                    std::size_t chunk, int threads = 1) {
  workers pool(threads);
  activations a;
  std::vector<float> all, part;
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    step const next{&of, std::span<int const>(tokens).subspan(at, std::min(chunk, tokens.size() - at))};
    std::string const error = forward(m, std::span(&next, 1), a, pool);
    INFO(error);
    REQUIRE(error.empty());
    part.resize(next.tokens.size() * static_cast<std::size_t>(m.config.vocabulary));
    project_logits(m, a.x.data(), static_cast<std::int64_t>(next.tokens.size()), part.data(), pool);
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

//! Caches of one scheme for a context of `tokens`, calibrated (where it asks for that) on those tokens.
inline sequence sequence_of(model const& m, std::string const& scheme, std::vector<int> const& tokens) {
  workers pool(1);
  auto const request = parse_schemes(scheme);
  INFO(request.error);
  REQUIRE(request);
  auto const calibration = record_rows(m, tokens, pool);
  REQUIRE(calibration);
  auto layers =
      make_layers(request->front(), shape_of(m, static_cast<std::int64_t>(tokens.size())), *calibration);
  INFO(layers.error);
  REQUIRE(layers);
  sequence of;
  of.layers = std::move(*layers);
  return of;
}

inline double largest_difference(std::vector<float> const& a, std::vector<float> const& b) {
  REQUIRE(a.size() == b.size());
  double most = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

}  // namespace kvcrumb_lm::test
