// SPDX-License-Identifier: Apache-2.0
//! @file weights: see weights.hpp.
#include "weights.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tensor_archive.hpp"
#include "tensor_file.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using namespace kvcrumb_compare;
using shape_type = std::vector<std::uint64_t>;

// All tensors of all files of a folder, by name.
class tensor_folder {
 public:
  // Empty text: opened.
  std::string open(std::filesystem::path const& folder) {
    std::set<std::string> files{"model.safetensors"};
    if (auto const index = folder / "model.safetensors.index.json"; std::filesystem::exists(index)) {
      auto const text = read_text(index);
      if (!text) return text.error;
      auto const root = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
      auto const map = root.is_object() ? root.find("weight_map") : root.end();
      if (!root.is_object() || map == root.end() || !map->is_object())
        return fmt::format("'{}' has no weight_map", printable(index.string(), 400));
      files.clear();
      for (auto const& [name, file] : map->items()) {
        if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
          return fmt::format("'{}': the file of '{}' is not a name", printable(index.string(), 400),
                             printable(name, 200));
        files.insert(file.get<std::string>());
      }
    }
    for (std::string const& name : files) {
      auto file = byte_file::open(folder / name);
      std::string const shown = printable((folder / name).string(), 400);
      if (!file) return fmt::format("'{}': {}", shown, file.error);
      auto archive = open_safetensors(std::move(*file));
      if (!archive) return fmt::format("'{}': {}", shown, archive.error);
      archives_.push_back(std::move(*archive));
      for (std::size_t i = 0; i < archives_.back()->entries().size(); ++i)
        places_[archives_.back()->entries()[i].name] = {archives_.size() - 1, i};
    }
    return {};
  }

  // The values of a tensor; remembers the first error and gives zeros from then on.
  std::vector<float> read(std::string const& name, shape_type const& shape) {
    std::uint64_t count = 1;
    for (std::uint64_t const n : shape)
      count *= n;
    std::vector<float> values(error.empty() ? static_cast<std::size_t>(count) : 0);
    if (error.empty()) fill(name, shape, values);
    if (!error.empty()) values.assign(static_cast<std::size_t>(count), 0.0f);
    return values;
  }

  std::string error;
  std::uint64_t hash = hash_bytes("", 0);
  bool int8 = false;  //!< whether the config announces tensors of 8-bit integers

 private:
  void fill(std::string const& name, shape_type const& shape, std::vector<float>& values) {
    auto const place = places_.find(name);
    if (place == places_.end()) {
      error = fmt::format("there is no tensor '{}'", name);
      return;
    }
    tensor_archive& archive = *archives_[place->second.first];
    tensor_entry const& entry = archive.entries()[place->second.second];
    if (entry.shape != shape) {
      error = fmt::format("tensor '{}' has the shape [{}]; config.json asks for [{}]", name,
                          fmt::join(entry.shape, ", "), fmt::join(shape, ", "));
      return;
    }
    bool const integers = entry.type == element_type::i8 && int8 && shape.size() == 2;
    if (!integers && entry.type != element_type::f32 && entry.type != element_type::f16 &&
        entry.type != element_type::bf16) {
      error = fmt::format("tensor '{}' has the type {}; f32, f16 and bf16 are read{}", name,
                          printable(entry.type_name, 40),
                          int8 ? ", and i8 for matrices" : ", and i8 if quantization_config has it");
      return;
    }
    auto const bytes = archive.read(place->second.second, 0, entry.elements);
    if (!bytes) {
      error = bytes.error;
      return;
    }
    hash = hash_bytes(bytes->data(), bytes->size(), hash);
    std::vector<float> const scales = integers ? read(name + "_scale", {shape[0], 1}) : std::vector<float>{};
    if (!error.empty()) return;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = value(entry.type, bytes->data() + i * size_of(entry.type));
      if (integers) values[i] *= scales[i / shape[1]];
      if (std::isfinite(values[i])) continue;
      error = fmt::format("tensor '{}' is not finite at element {}", name, i);
      return;
    }
  }

  static float value(element_type type, std::byte const* from) {
    if (type == element_type::i8) return static_cast<float>(static_cast<std::int8_t>(*from));
    if (type == element_type::f32) {
      float x;
      std::memcpy(&x, from, sizeof x);
      return x;
    }
    std::uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return type == element_type::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }

  std::vector<std::unique_ptr<tensor_archive>> archives_;
  std::map<std::string, std::pair<std::size_t, std::size_t>> places_;
};

void add(matrix& m, tensor_folder& from, std::string const& name, int outputs, bool bias) {
  auto const out = static_cast<std::uint64_t>(outputs), in = static_cast<std::uint64_t>(m.inputs());
  std::vector<float> const rows = from.read(name + ".weight", {out, in});
  m.add_rows(rows, bias ? from.read(name + ".bias", {out}) : std::vector<float>{});
}

layer_weights read_layer(tensor_folder& from, model_config const& c, int number) {
  std::string const name = fmt::format("model.layers.{}.", number);
  auto const hidden = static_cast<std::uint64_t>(c.hidden), head = static_cast<std::uint64_t>(c.head_dim);
  layer_weights w{.input_norm = from.read(name + "input_layernorm.weight", {hidden}),
                  .output_norm = from.read(name + "post_attention_layernorm.weight", {hidden}),
                  .q_norm = {},
                  .k_norm = {},
                  .qkv = matrix(c.hidden),
                  .output = matrix(c.query_width()),
                  .gate_up = matrix(c.hidden),
                  .down = matrix(c.intermediate)};
  if (c.qk_norm) {
    w.q_norm = from.read(name + "self_attn.q_norm.weight", {head});
    w.k_norm = from.read(name + "self_attn.k_norm.weight", {head});
  }
  add(w.qkv, from, name + "self_attn.q_proj", c.query_width(), c.qkv_bias);
  add(w.qkv, from, name + "self_attn.k_proj", c.kv_width(), c.qkv_bias);
  add(w.qkv, from, name + "self_attn.v_proj", c.kv_width(), c.qkv_bias);
  add(w.output, from, name + "self_attn.o_proj", c.hidden, c.output_bias);
  add(w.gate_up, from, name + "mlp.gate_proj", c.intermediate, false);
  add(w.gate_up, from, name + "mlp.up_proj", c.intermediate, false);
  add(w.down, from, name + "mlp.down_proj", c.hidden, false);
  return w;
}

}  // namespace

std::uint64_t hash_bytes(void const* data, std::size_t size, std::uint64_t hash) {
  auto const* const bytes = static_cast<unsigned char const*>(data);
  for (std::size_t i = 0; i < size; ++i)
    hash = (hash ^ bytes[i]) * 0x100000001B3u;
  return hash;
}

result<model> load_model(std::filesystem::path const& folder) {
  auto const config_text = read_text(folder / "config.json");
  if (!config_text) return failure{config_text.error};
  auto config = load_config(folder / "config.json");
  if (!config) return failure{config.error};
  tensor_folder from;
  if (std::string error = from.open(folder); !error.empty()) return failure{std::move(error)};
  from.hash = hash_bytes(config_text->data(), config_text->size());
  from.int8 = config->weights_int8;

  model m;
  m.config = *config;
  model_config const& c = m.config;
  m.embedding = matrix(c.hidden);
  add(m.embedding, from, "model.embed_tokens", c.vocabulary, false);
  if (!c.tied) {
    m.head = matrix(c.hidden);
    add(m.head, from, "lm_head", c.vocabulary, false);
  }
  m.final_norm = from.read("model.norm.weight", {static_cast<std::uint64_t>(c.hidden)});
  for (int i = 0; i < c.layers && from.error.empty(); ++i)
    m.layers.push_back(read_layer(from, c, i));
  if (!from.error.empty())
    return failure{fmt::format("'{}': {}", printable(folder.string(), 400), from.error)};
  m.frequencies = rope_frequencies(c);
  m.hash = from.hash;
  return m;
}

}  // namespace kvcrumb_lm
