// SPDX-License-Identifier: Apache-2.0
//! @file Model folders: what is read, and that everything else is refused with a reason.
#include "support/catch.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include <nlohmann/json.hpp>

#include "tiny_model.hpp"

namespace {

using namespace kvcrumb_lm;
using namespace kvcrumb_lm::test;
using kvcrumb::test::Approx;

bool refused(scratch_folder const& folder, std::string const& why) {
  auto const loaded = load_model(folder.path());
  INFO(loaded.error);
  return !loaded && loaded.error.find(why) != std::string::npos;
}

std::string config_error(nlohmann::json const& config) {
  auto const c = parse_config(config.dump());
  return c ? "" : c.error;
}

std::string bytes_of(scratch_folder const& folder, std::string const& name) {
  auto const text = read_text(folder / name);
  REQUIRE(text);
  return *text;
}

}  // namespace

TEST_CASE("weights are read as they stand, and products with them are those of the definition") {
  scratch_folder const folder;
  tiny_files files(2);
  files.write(folder);
  auto const m = load_model(folder.path());
  INFO(m.error);
  REQUIRE(m);
  CHECK(m->layers.size() == 2);
  CHECK(m->layers[1].qkv.outputs() == 256 + 2 * 128);
  auto const& stored = files.tensor("model.layers.1.self_attn.v_proj.weight").data;
  std::vector<float> want(128 * 48), row(48);
  std::memcpy(want.data(), stored.data(), stored.size());
  for (int o = 0; o < 128; ++o) {
    m->layers[1].qkv.read_row(256 + 128 + o, row.data());
    CHECK(std::equal(row.begin(), row.end(), want.begin() + o * 48));
  }
}

TEST_CASE("a product has every row and column, for any shape, number of rows and threads") {
  std::mt19937_64 engine{1};
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  auto const random = [&](int n) {
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& x : v)
      x = uniform(engine);
    return v;
  };
  for (int const inputs : {1, 7, 64}) {
    for (int const outputs : {1, 15, 16, 17, 50}) {
      matrix m(inputs);
      auto const first = random(outputs * inputs), second = random(3 * inputs), bias = random(3);
      m.add_rows(first);
      m.add_rows(second, bias);
      REQUIRE(m.outputs() == outputs + 3);
      for (int const rows : {0, 1, 2, 3, 4, 5, 6, 7, 13}) {
        for (int const threads : {1, 3}) {
          CAPTURE(inputs, outputs, rows, threads);
          workers pool(threads);
          auto const x = random(rows * inputs);
          std::vector<float> y(static_cast<std::size_t>(rows * m.outputs() + 1), 77.0f);
          m.multiply(x.data(), rows, y.data(), pool);
          double worst = 0.0;
          for (int r = 0; r < rows; ++r) {
            for (int o = 0; o < m.outputs(); ++o) {
              float const* w =
                  o < outputs ? first.data() + o * inputs : second.data() + (o - outputs) * inputs;
              double sum =
                  o < outputs ? 0.0 : static_cast<double>(bias[static_cast<std::size_t>(o - outputs)]);
              for (int i = 0; i < inputs; ++i)
                sum += static_cast<double>(w[i]) *
                       static_cast<double>(x[static_cast<std::size_t>(r * inputs + i)]);
              worst = std::max(
                  worst,
                  std::fabs(sum - static_cast<double>(y[static_cast<std::size_t>(r * m.outputs() + o)])));
            }
          }
          CHECK(worst <= 65.0 * 65.0 * 0x1p-24);  // n^2 u for n products of at most 1
          CHECK(y.back() == 77.0f);
        }
      }
    }
  }
}

TEST_CASE("every piece of work is done once, round after round") {
  workers pool(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<int> done(static_cast<std::size_t>(round), 0);
    pool.run(round, [&](std::int64_t i) { ++done[static_cast<std::size_t>(i)]; });
    CHECK(std::all_of(done.begin(), done.end(), [](int n) { return n == 1; }));
  }
}

TEST_CASE("a model that is cut, incomplete or contradicts its config is refused") {
  scratch_folder const folder;
  tiny_files const good;
  good.write(folder);
  REQUIRE(load_model(folder.path()));
  std::string const whole = bytes_of(folder, "model.safetensors");

  folder.write("model.safetensors", whole.substr(0, whole.size() - 1));
  CHECK(refused(folder, "truncated"));
  folder.write("model.safetensors", whole.substr(0, 100));
  CHECK(refused(folder, "truncated"));
  folder.write("model.safetensors", "");
  CHECK(refused(folder, "too few"));
  std::filesystem::remove(folder / "model.safetensors");
  CHECK(refused(folder, "no such file"));

  auto const with = [&](auto change) {
    tiny_files files;
    change(files);
    files.write(folder);
  };
  with([](auto& f) { f.tensors.erase(f.tensors.begin() + 3); });
  CHECK(refused(folder, "there is no tensor 'model.layers.0.post_attention_layernorm.weight'"));
  with([](auto& f) { f.tensor("model.layers.0.mlp.up_proj.weight").shape = {48, 56}; });
  CHECK(refused(folder,
                "'model.layers.0.mlp.up_proj.weight' has the shape [48, 56]; config.json asks for [56, 48]"));
  with([](auto& f) { f.config["num_hidden_layers"] = 2; });
  CHECK(refused(folder, "there is no tensor 'model.layers.1."));
  with([](auto& f) { f.config["vocab_size"] = 321; });
  CHECK(refused(folder, "'model.embed_tokens.weight' has the shape [320, 48]"));
  with([](auto& f) { f.config["tie_word_embeddings"] = false; });
  CHECK(refused(folder, "there is no tensor 'lm_head.weight'"));
  with([](auto& f) { f.config["model_type"] = "qwen3"; });
  CHECK(refused(folder, "there is no tensor 'model.layers.0.self_attn.q_norm.weight'"));
  with(
      [](auto& f) { f.tensor("model.norm.weight") = i32_tensor("model.norm.weight", std::vector<int>(48)); });
  CHECK(refused(folder, "has the type I32"));
  with([](auto& f) {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(f.tensor("model.layers.0.self_attn.k_proj.weight").data.data() + 40, &nan, 4);
  });
  CHECK(refused(folder, "'model.layers.0.self_attn.k_proj.weight' is not finite at element 10"));
  std::filesystem::remove(folder / "config.json");
  CHECK(refused(folder, "config.json'"));
}

TEST_CASE("matrices of 8-bit integers are multiplied by the scales of their rows") {
  scratch_folder const folder;
  tiny_files files;
  files.config["quantization_config"] = int8_quantization();
  std::string const name = "model.layers.0.mlp.down_proj.weight";
  std::vector<float> scales(48);
  for (std::size_t o = 0; o < 48; ++o)
    scales[o] = 0.01f * static_cast<float>(o + 1);
  std::string values;
  for (int i = 0; i < 48 * 56; ++i)
    values.push_back(static_cast<char>(static_cast<signed char>(i % 256 - 128)));
  files.tensor(name) = {name, "I8", {48, 56}, values};
  files.write(folder);
  CHECK(refused(folder, "there is no tensor '" + name + "_scale'"));
  files.tensors.push_back(f32_tensor(name + "_scale", {48, 1}, scales));
  files.write(folder);
  auto const m = load_model(folder.path());
  INFO(m.error);
  REQUIRE(m);
  std::vector<float> row(56);
  for (int o = 0; o < 48; ++o) {
    m->layers[0].down.read_row(o, row.data());
    for (int i = 0; i < 56; ++i)
      CHECK(row[static_cast<std::size_t>(i)] ==
            static_cast<float>((56 * o + i) % 256 - 128) * scales[static_cast<std::size_t>(o)]);
  }
  scales[7] = std::numeric_limits<float>::infinity();
  files.tensors.back() = f32_tensor(name + "_scale", {48, 1}, scales);
  files.write(folder);
  CHECK(refused(folder, "'" + name + "_scale' is not finite at element 7"));
  files.config.erase("quantization_config");
  files.write(folder);
  CHECK(refused(folder, "has the type I8"));
}

TEST_CASE("an index of files is followed, and must be one") {
  scratch_folder const folder;
  tiny_files const files(2);
  files.write(folder);
  auto const whole = load_model(folder.path());
  REQUIRE(whole);
  std::filesystem::remove(folder / "model.safetensors");
  nlohmann::json map;
  std::vector<tensor_out> parts[2];
  for (std::size_t i = 0; i < files.tensors.size(); ++i) {
    parts[i % 2].push_back(files.tensors[i]);
    map[files.tensors[i].name] = i % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  REQUIRE(write_safetensors(folder / "a.safetensors", parts[0], {}).empty());
  REQUIRE(write_safetensors(folder / "b.safetensors", parts[1], {}).empty());
  folder.write("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
  auto const sharded = load_model(folder.path());
  INFO(sharded.error);
  REQUIRE(sharded);
  CHECK(sharded->hash == whole->hash);
  CHECK(sharded->layers[1].down.outputs() == whole->layers[1].down.outputs());

  map["model.norm.weight"] = "../a.safetensors";
  folder.write("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
  CHECK(refused(folder, "the file of 'model.norm.weight' is not a name"));
  folder.write("model.safetensors.index.json", "{}");
  CHECK(refused(folder, "has no weight_map"));
}

TEST_CASE("a config that the engine cannot run is refused with the name of the field") {
  nlohmann::json const good = tiny_files().config;
  CHECK(config_error(good).empty());
  auto const with = [&](char const* name, nlohmann::json value) {
    nlohmann::json c = good;
    c[name] = std::move(value);
    return config_error(c);
  };
  CHECK(with("model_type", "gpt2").find("'model_type' is 'gpt2'") != std::string::npos);
  CHECK(with("hidden_size", nullptr).find("'hidden_size' is missing") != std::string::npos);
  CHECK(with("hidden_size", "48").find("'hidden_size' is not a whole number") != std::string::npos);
  CHECK(with("hidden_size", -1).find("'hidden_size' is -1") != std::string::npos);
  CHECK(with("num_key_value_heads", 3).find("'num_attention_heads' is not a multiple") != std::string::npos);
  CHECK(with("head_dim", 33).find("'head_dim' is odd") != std::string::npos);
  CHECK(with("hidden_act", "gelu").find("'hidden_act' is gelu") != std::string::npos);
  CHECK(with("rms_norm_eps", 0.0).find("'rms_norm_eps'") != std::string::npos);
  CHECK(with("mlp_bias", true).find("'mlp_bias'") != std::string::npos);
  CHECK(with("use_sliding_window", true).find("'use_sliding_window'") != std::string::npos);
  CHECK(with("quantization_config", {{"bits", 4}}).find("'quantization_config'") != std::string::npos);
  CHECK(with("quantization_config", 8).find("'quantization_config'") != std::string::npos);
  nlohmann::json const int8 = int8_quantization();
  CHECK(with("quantization_config", int8).empty());
  for (char const* const path :
       {"/quant_method", "/format", "/config_groups", "/config_groups/group_0/weights",
        "/config_groups/group_0/weights/num_bits", "/config_groups/group_0/weights/symmetric",
        "/config_groups/group_0/weights/strategy", "/config_groups/group_0/weights/type"}) {
    nlohmann::json changed = int8;
    changed[nlohmann::json::json_pointer(path)] = 4;
    INFO(path);
    CHECK(with("quantization_config", changed).find("'quantization_config'") != std::string::npos);
  }
  for (char const* const path : {"/kv_cache_scheme", "/config_groups/group_0/input_activations"}) {
    nlohmann::json changed = int8;
    changed[nlohmann::json::json_pointer(path)] = {{"num_bits", 8}};
    INFO(path);
    CHECK(with("quantization_config", changed).find("'quantization_config'") != std::string::npos);
  }
  CHECK(with("partial_rotary_factor", 0.5).find("'partial_rotary_factor'") != std::string::npos);
  CHECK(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}})
            .find("'rope_scaling.rope_type' is yarn") != std::string::npos);
  CHECK(with("rope_scaling", {{"rope_type", "linear"}}).find("'rope_scaling.factor' is missing") !=
        std::string::npos);
  CHECK(with("rope_scaling", 3).find("'rope_scaling' is not an object") != std::string::npos);
  CHECK(parse_config("[]").error.find("not a JSON object") != std::string::npos);
}

TEST_CASE("rotary frequencies, also those that newer files keep in rope_parameters") {
  nlohmann::json config = tiny_files().config;
  config["rope_parameters"] = {{"rope_theta", 500.0}, {"rope_type", "default"}};
  auto const plain = parse_config(config.dump());
  REQUIRE(plain);
  auto const f = rope_frequencies(*plain);
  REQUIRE(f.size() == 32);
  CHECK(f[0] == 1.0);
  CHECK(f[16] == Approx(std::pow(500.0, -0.5)));
  config["rope_parameters"]["rope_type"] = "llama3";
  config["rope_parameters"]["factor"] = 8.0;
  config["rope_parameters"]["low_freq_factor"] = 1.0;
  config["rope_parameters"]["high_freq_factor"] = 4.0;
  config["rope_parameters"]["original_max_position_embeddings"] = 256;
  auto const scaled = parse_config(config.dump());
  REQUIRE(scaled);
  auto const g = rope_frequencies(*scaled);
  CHECK(g[0] == f[0]);                  // 40 turns within 256 tokens
  CHECK(g[31] == Approx(f[31] / 8.0));  // less than one
  // 2 turns: a third of the way from interpolated to kept
  double const two = 2.0 * std::numbers::pi * 2.0 / 256.0;
  for (std::size_t i = 0; i + 1 < f.size(); ++i) {
    if (!(f[i] >= two && f[i + 1] < two)) continue;
    double const turns = 256.0 * f[i] / (2.0 * std::numbers::pi), share = (turns - 1.0) / 3.0;
    CHECK(g[i] == Approx(f[i] * (share + (1.0 - share) / 8.0)));
  }
}
