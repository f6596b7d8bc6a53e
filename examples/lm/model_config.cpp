// SPDX-License-Identifier: Apache-2.0
//! @file model_config: see model_config.hpp.
#include "model_config.hpp"

#include <array>
#include <cmath>
#include <numbers>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "byte_file.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::printable;
using nlohmann::json;

// Reads fields of one object and remembers the first thing that is wrong.
class fields {
 public:
  explicit fields(json const& object, std::string prefix = {})
      : object_(object), prefix_(std::move(prefix)) {}

  json const* find(char const* name) const {
    auto const at = object_.find(name);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  void refuse(char const* name, std::string const& why) {
    if (error.empty()) error = fmt::format("'{}{}' {}", prefix_, name, why);
  }
  std::int64_t integer(char const* name, std::optional<std::int64_t> missing, std::int64_t least,
                       std::int64_t most) {
    json const* const v = find(name);
    if (v == nullptr && missing) return *missing;
    if (v == nullptr || !v->is_number_integer()) {
      refuse(name, v == nullptr ? "is missing" : "is not a whole number");
      return least;
    }
    std::int64_t const n = v->get<std::int64_t>();
    if (n < least || n > most) refuse(name, fmt::format("is {}, outside of {} to {}", n, least, most));
    return n;
  }
  double number(char const* name, std::optional<double> missing) {
    json const* const v = find(name);
    if (v == nullptr && missing) return *missing;
    if (v == nullptr || !v->is_number()) {
      refuse(name, v == nullptr ? "is missing" : "is not a number");
      return 1.0;
    }
    double const x = v->get<double>();
    if (!(x > 0.0) || !std::isfinite(x)) refuse(name, "is not a positive number");
    return x;
  }
  bool flag(char const* name, bool missing) {
    json const* const v = find(name);
    if (v == nullptr) return missing;
    if (!v->is_boolean()) refuse(name, "is neither true nor false");
    return v->is_boolean() && v->get<bool>();
  }
  std::string word(char const* name, std::string missing) {
    json const* const v = find(name);
    if (v == nullptr) return missing;
    if (!v->is_string()) refuse(name, "is not a string");
    return v->is_string() ? v->get<std::string>() : missing;
  }

  std::string error;

 private:
  json const& object_;
  std::string prefix_;
};

// rope_scaling (older files) or rope_parameters (newer ones), which may hold rope_theta too.
std::string read_rope(fields& top, model_config& c) {
  c.rope_theta = top.number("rope_theta", 10000.0);
  for (char const* const name : {"rope_scaling", "rope_parameters"}) {
    json const* const object = top.find(name);
    if (object == nullptr) continue;
    if (!object->is_object()) return fmt::format("'{}' is not an object", name);
    fields f(*object, std::string(name) + ".");
    c.rope_theta = f.number("rope_theta", c.rope_theta);
    std::string const kind = f.word("rope_type", f.word("type", "default"));
    if (kind == "linear" || kind == "llama3") {
      c.scaling.how = kind == "linear" ? rope_scaling::kind::linear : rope_scaling::kind::llama3;
      c.scaling.factor = f.number("factor", std::nullopt);
    } else if (kind != "default") {
      f.refuse("rope_type",
               fmt::format("is {}; this engine has default, linear and llama3", printable(kind, 40)));
    }
    if (kind == "llama3") {
      c.scaling.low_frequency = f.number("low_freq_factor", std::nullopt);
      c.scaling.high_frequency = f.number("high_freq_factor", std::nullopt);
      c.scaling.original_context = f.number("original_max_position_embeddings", std::nullopt);
      if (c.scaling.high_frequency <= c.scaling.low_frequency)
        f.refuse("high_freq_factor", "is not above low_freq_factor");
    }
    if (f.number("partial_rotary_factor", 1.0) != 1.0)
      f.refuse("partial_rotary_factor", "is not 1: every channel must be rotated");
    if (!f.error.empty()) return f.error;
  }
  return {};
}

void read_window(fields& top, model_config& c) {
  bool const asked = c.model_type == "mistral" || top.flag("use_sliding_window", false);
  if (!asked) return;
  if (c.model_type != "mistral") {
    top.refuse("use_sliding_window", "is true; only mistral's window, the same in all layers, is supported");
  }
  c.window = top.integer("sliding_window", 0, 0, std::int64_t{1} << 40);
}

// Of the forms of the package compressed-tensors: 8-bit symmetric integers with a scale per output channel
// and activations as they are. False if there is no quantization.
bool read_quantization(fields& top) {
  json const* const q = top.find("quantization_config");
  if (q == nullptr) return false;
  auto const is = [](json const& object, char const* name, json const& value) {
    return object.is_object() && object.value(name, json{}) == value;
  };
  bool good = is(*q, "quant_method", "compressed-tensors") &&
              (is(*q, "format", "int-quantized") || is(*q, "format", "naive-quantized")) &&
              is(*q, "kv_cache_scheme", {});
  json const groups = good ? q->value("config_groups", json{}) : json{};
  good = good && groups.is_object() && !groups.empty();
  for (auto const& group : groups) {
    json const weights = group.is_object() ? group.value("weights", json{}) : json{};
    good = good && is(group, "input_activations", {}) && is(group, "output_activations", {}) &&
           is(weights, "num_bits", 8) && is(weights, "type", "int") && is(weights, "symmetric", true) &&
           is(weights, "strategy", "channel");
  }
  if (!good) {
    top.refuse(
        "quantization_config",
        "is not what this engine reads: compressed-tensors, int-quantized, 8-bit symmetric weights with "
        "a scale per channel, no other quantization");
  }
  return good;
}

void read_tokens(fields& top, model_config& c) {
  if (json const* const bos = top.find("bos_token_id"); bos != nullptr && bos->is_number_integer())
    c.bos = bos->get<int>();
  json const* const eos = top.find("eos_token_id");
  if (eos == nullptr) return;
  for (json const& id : eos->is_array() ? *eos : json::array({*eos})) {
    if (id.is_number_integer()) c.eos.push_back(id.get<int>());
  }
}

}  // namespace

result<std::string> read_text(std::filesystem::path const& path) {
  auto file = kvcrumb_compare::byte_file::open(path);
  std::string const shown = printable(path.string(), 400);
  if (!file) return failure{fmt::format("'{}': {}", shown, file.error)};
  std::string text(static_cast<std::size_t>(file->size()), '\0');
  if (!file->read(0, std::as_writable_bytes(std::span(text))))
    return failure{fmt::format("'{}' cannot be read", shown)};
  return text;
}

result<model_config> parse_config(std::string_view json_text) {
  json const root = json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return failure{"is not a JSON object"};
  fields top(root);
  model_config c;
  c.model_type = top.word("model_type", "");
  static constexpr std::array known{"llama", "mistral", "qwen2", "qwen3"};
  if (std::find(known.begin(), known.end(), c.model_type) == known.end())
    top.refuse("model_type", fmt::format("is '{}'; this engine runs llama, mistral, qwen2 and qwen3",
                                         printable(c.model_type, 40)));
  constexpr int most = 1 << 20;
  c.vocabulary = static_cast<int>(top.integer("vocab_size", std::nullopt, 1, 1 << 24));
  c.hidden = static_cast<int>(top.integer("hidden_size", std::nullopt, 1, most));
  c.layers = static_cast<int>(top.integer("num_hidden_layers", std::nullopt, 1, 4096));
  c.query_heads = static_cast<int>(top.integer("num_attention_heads", std::nullopt, 1, 4096));
  c.kv_heads = static_cast<int>(top.integer("num_key_value_heads", c.query_heads, 1, 4096));
  c.head_dim = static_cast<int>(top.integer("head_dim", c.hidden / c.query_heads, 2, 4096));
  c.intermediate = static_cast<int>(top.integer("intermediate_size", std::nullopt, 1, most));
  c.context = top.integer("max_position_embeddings", 2048, 1, std::int64_t{1} << 40);
  c.epsilon = static_cast<float>(top.number("rms_norm_eps", 1e-6));
  c.tied = top.flag("tie_word_embeddings", false);
  c.qk_norm = c.model_type == "qwen3";
  bool const attention_bias = top.flag("attention_bias", false);
  c.qkv_bias = c.model_type == "qwen2" || attention_bias;
  c.output_bias = attention_bias && c.model_type != "qwen2";
  if (c.query_heads % c.kv_heads != 0)
    top.refuse("num_attention_heads", "is not a multiple of num_key_value_heads");
  if (c.head_dim % 2 != 0) top.refuse("head_dim", "is odd");
  if (top.flag("mlp_bias", false)) top.refuse("mlp_bias", "is true, which is not supported");
  if (std::string const act = top.word("hidden_act", "silu"); act != "silu")
    top.refuse("hidden_act", fmt::format("is {}, not silu", printable(act, 40)));
  if (top.number("partial_rotary_factor", 1.0) != 1.0)
    top.refuse("partial_rotary_factor", "is not 1: every channel must be rotated");
  for (char const* const name : {"num_local_experts", "num_experts"}) {
    if (top.find(name) != nullptr) top.refuse(name, "is set, which is not supported");
  }
  c.weights_int8 = read_quantization(top);
  read_window(top, c);
  read_tokens(top, c);
  std::string const rope = read_rope(top, c);
  if (!top.error.empty()) return failure{top.error};
  if (!rope.empty()) return failure{rope};
  return c;
}

result<model_config> load_config(std::filesystem::path const& path) {
  auto const text = read_text(path);
  if (!text) return failure{text.error};
  auto c = parse_config(*text);
  if (!c) return failure{fmt::format("'{}': {}", printable(path.string(), 400), c.error)};
  return c;
}

std::vector<double> rope_frequencies(model_config const& c) {
  std::vector<double> out(static_cast<std::size_t>(c.head_dim / 2));
  for (std::size_t i = 0; i < out.size(); ++i) {
    double f = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / c.head_dim);
    rope_scaling const& s = c.scaling;
    if (s.how == rope_scaling::kind::linear) f /= s.factor;
    if (s.how == rope_scaling::kind::llama3) {
      // Slow channels are interpolated, fast ones left alone, those between them blended by how many turns
      // they make within the original context.
      double const turns = s.original_context * f / (2.0 * std::numbers::pi);
      double const share = (turns - s.low_frequency) / (s.high_frequency - s.low_frequency);
      double const kept = std::min(1.0, std::max(0.0, share));
      f = (1.0 - kept) * f / s.factor + kept * f;
    }
    out[i] = f;
  }
  return out;
}

}  // namespace kvcrumb_lm
