// SPDX-License-Identifier: Apache-2.0
//! @file What the .safetensors reader takes, and that everything else is refused with a reason.
#include "support/catch.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "archive_builder.hpp"
#include "sample.hpp"
#include "tensor_file.hpp"

namespace {

using namespace kvcrumb_compare;
using namespace kvcrumb_compare::test;

// k and v of one layer, 2 heads x 3 tokens x 2 dims, f32: 48 bytes each.
std::string const k_entry = entry("k", "F32", "[1,2,3,2]", 0, 48);
std::string const v_entry = entry("v", "F32", "[1,2,3,2]", 48, 96);
std::string const kv_data = f32_bytes(ramp(12)) + f32_bytes(ramp(12, 100));

std::string kv_file(std::string const& more_entries = "", std::string const& more_data = "") {
  return safetensors_file("{" + k_entry + "," + v_entry + more_entries + "}", kv_data + more_data);
}

}  // namespace

TEST_CASE("a .safetensors file gives keys, values and queries in file order") {
  std::string const q = f32_bytes(ramp(2 * 4 * 2 * 2, 1000));
  std::string const header =
      "{\"__metadata__\":{\"layers\":\"4,7\",\"model\":\"tiny\"}," + entry("k", "F32", "[2,2,3,2]", 0, 96) +
      "," + entry("v", "F32", "[2,2,3,1]", 96, 144) + "," + entry("q", "F32", "[2,4,2,2]", 144, 272) + "," +
      entry("token_ids", "U8", "[3]", 272, 275) + "}   ";
  scratch_file const file(
      safetensors_file(header, f32_bytes(ramp(24)) + f32_bytes(ramp(12, 500)) + q + std::string(3, 'x')));
  auto const loaded = load_tensor_file(file.path());
  INFO(loaded.error);
  REQUIRE(loaded);
  REQUIRE(loaded->layers.size() == 2);
  CHECK(loaded->format == "safetensors");
  CHECK(loaded->metadata.at("model") == "tiny");
  CHECK(loaded->unused == std::vector<std::string>{"token_ids"});
  recorded_layer const& layer = loaded->layers[1];
  CHECK(layer.number == 7);
  CHECK(layer.kv_heads == 2);
  CHECK(layer.query_heads == 4);
  CHECK(layer.tokens == 3);
  CHECK(layer.queries == 2);
  CHECK(layer.head_dim == 2);
  CHECK(layer.value_dim == 1);
  CHECK(layer.k == ramp(12, 12));
  CHECK(layer.v == ramp(6, 506));
  CHECK(layer.q == ramp(16, 1016));
  CHECK(layer.k_type == stored_type::f32);
  CHECK(layer.query_positions == std::vector<std::int64_t>{1, 2});  // the last two of three
  CHECK(layer.key_positions.empty());
}

TEST_CASE("only the layers asked for are read") {
  std::string const header = "{\"__metadata__\":{\"layers\":\"2-3\"}," +
                             entry("k", "F32", "[2,1,1,2]", 0, 16) + "," +
                             entry("v", "F32", "[2,1,1,2]", 16, 32) + "}";
  // Layer 2 holds an infinity; layer 3 is sound.
  std::string const data = f32_bytes({std::numeric_limits<float>::infinity(), 1, 2, 3}) + f32_bytes(ramp(4));
  std::string const content = safetensors_file(header, data);
  load_options options;
  options.layers = {3};
  auto const loaded = load_bytes(content, options);
  REQUIRE(loaded);
  REQUIRE(loaded->layers.size() == 1);
  CHECK(loaded->layers[0].number == 3);
  CHECK(loaded->layers[0].k == std::vector<float>{2, 3});
  options.layers = {5};
  CHECK(refused(load_bytes(content, options), "no layer 5; its layers are 2 3"));
  CHECK(refused(load_bytes(content), "'k' is not finite at layer 2, head 0, token 0, dim 0"));
}

TEST_CASE("all four stored types give the stored numbers") {
  std::string const shape = "[1,1,2]";  // one head, one token
  SECTION("f16 and bf16") {
    std::string const header =
        "{" + entry("k", "F16", shape, 0, 4) + "," + entry("v", "BF16", shape, 4, 8) + "}";
    auto const loaded = load_bytes(safetensors_file(header, f16_bytes({0x3C00, 0x0001, 0x3F80, 0xC040})));
    REQUIRE(loaded);
    CHECK(loaded->layers[0].k == std::vector<float>{1.0F, 0x1p-24F});
    CHECK(loaded->layers[0].v == std::vector<float>{1.0F, -3.0F});
    CHECK(loaded->layers[0].k_type == stored_type::f16);
    CHECK(loaded->layers[0].v_type == stored_type::bf16);
  }
  SECTION("f64 is rounded to the nearest float; beyond its range is refused") {
    std::string const header =
        "{" + entry("k", "F64", shape, 0, 16) + "," + entry("v", "F64", shape, 16, 32) + "}";
    auto const loaded = load_bytes(safetensors_file(header, f64_bytes({0.1, 1e-60, 3.4028235e38, -2})));
    REQUIRE(loaded);
    CHECK(loaded->layers[0].k == std::vector<float>{0.1F, 0.0F});
    CHECK(loaded->layers[0].v == std::vector<float>{std::numeric_limits<float>::max(), -2.0F});
    CHECK(refused(load_bytes(safetensors_file(header, f64_bytes({0, 0, 1e39, 0}))),
                  "'v' is not finite as a 32-bit"));
  }
}

TEST_CASE("every half and bfloat16 has its value") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    double const sign = (bits & 0x8000U) != 0 ? -1 : 1;
    auto const exponent = static_cast<int>((bits >> 10) & 31U);
    double const fraction = static_cast<double>(bits & 1023U) / 1024;
    float const value = half_to_float(static_cast<std::uint16_t>(bits));
    if (exponent == 31) {
      bool const as_defined = fraction == 0 ? std::isinf(value) : std::isnan(value);
      if (!as_defined) FAIL("half " << bits);
    } else {
      double const expected =
          sign * std::ldexp(exponent == 0 ? fraction : 1 + fraction, exponent == 0 ? -14 : exponent - 15);
      if (static_cast<double>(value) != expected) FAIL("half " << bits);
    }
    if (std::bit_cast<std::uint32_t>(bfloat16_to_float(static_cast<std::uint16_t>(bits))) != bits << 16) {
      FAIL("bfloat16 " << bits);
    }
  }
}

TEST_CASE("arrays of single layers are found by the documented names") {
  std::string const names[] = {"layers.%.", "model.layers.%.self_attn.", "layer%/", "past_key_values.%."};
  for (std::string const& pattern : names) {
    CAPTURE(pattern);
    auto const name = [&](char layer, std::string const& what) {
      std::string out = pattern;
      out[out.find('%')] = layer;
      return out + what;
    };
    bool const words = pattern.starts_with("past");
    std::string const k = words ? "key" : "k";
    std::string const v = words ? "value" : "v";
    std::string const header = "{" + entry(name('5', k), "F32", "[1,1,2]", 0, 8) + "," +
                               entry(name('5', v), "F32", "[1,1,1,2]", 8, 16) + "," +
                               entry(name('2', k), "F32", "[1,1,2]", 16, 24) + "," +
                               entry(name('2', v), "F32", "[1,1,2]", 24, 32) + "}";
    auto const loaded = load_bytes(safetensors_file(header, f32_bytes(ramp(8))));
    INFO(loaded.error);
    REQUIRE(loaded);
    REQUIRE(loaded->layers.size() == 2);
    CHECK(loaded->layers[0].number == 2);
    CHECK(loaded->layers[1].number == 5);
    CHECK(loaded->layers[1].k == std::vector<float>{0, 1});
    CHECK(loaded->layers[1].v == std::vector<float>{2, 3});
  }
  auto const short_form = load_bytes(safetensors_file(
      "{" + entry("k.3", "F32", "[1,1,1]", 0, 4) + "," + entry("v.3", "F32", "[1,1,1]", 4, 8) + "}",
      f32_bytes(ramp(2))));
  REQUIRE(short_form);
  CHECK(short_form->layers[0].number == 3);
}

TEST_CASE("the weights of a model are not taken for a recording") {
  std::string const header = "{" + entry("model.layers.0.self_attn.k_proj.weight", "F32", "[2,2]", 0, 16) +
                             "," + entry("model.layers.0.k.weight", "F32", "[1]", 16, 20) + "}";
  auto const loaded = load_bytes(safetensors_file(header, f32_bytes(ramp(5))));
  CHECK(refused(loaded, "no arrays named k and v"));
  CHECK(refused(loaded, "k_proj.weight"));
}

TEST_CASE("query positions come from the metadata or are the last ones") {
  auto const file = [](std::string const& metadata) {
    return safetensors_file("{\"__metadata__\":{" + metadata + "}," + k_entry + "," + v_entry + "," +
                                entry("q", "F32", "[1,2,2,2]", 96, 128) + "}",
                            kv_data + f32_bytes(ramp(8)));
  };
  CHECK(load_bytes(file(""))->layers[0].query_positions == std::vector<std::int64_t>{1, 2});
  CHECK(load_bytes(file("\"query_positions\":\"0, 2\""))->layers[0].query_positions ==
        std::vector<std::int64_t>{0, 2});
  CHECK(load_bytes(file("\"query_positions\":\"0-1\""))->layers[0].query_positions ==
        std::vector<std::int64_t>{0, 1});
  CHECK(refused(load_bytes(file("\"query_positions\":\"1-3\"")), "2 numbers"));
  CHECK(refused(load_bytes(file("\"query_positions\":\"2,3\"")), "query position 3 is not one of the 3"));
  for (char const* const bad : {"", "1,", "-1,0", "a,b", "1-0", "0-99999999999", "0 1"}) {
    CAPTURE(bad);
    CHECK(refused(load_bytes(file(std::string("\"query_positions\":\"") + bad + "\"")),
                  "metadata 'query_positions'"));
  }
}

TEST_CASE("recorded key positions are kept per head") {
  std::string const ints =
      little_endian_bytes(7, 8) + little_endian_bytes(8, 8) + little_endian_bytes(~std::uint64_t{0}, 8);
  SECTION("the same for all heads") {
    auto const loaded = load_bytes(kv_file("," + entry("position", "I64", "[3]", 96, 120), ints));
    REQUIRE(loaded);
    CHECK(loaded->layers[0].key_positions == std::vector<std::int64_t>{7, 8, -1, 7, 8, -1});
  }
  SECTION("per layer and head") {
    auto const loaded = load_bytes(kv_file("," + entry("position", "I64", "[1,2,3]", 96, 144), ints + ints));
    REQUIRE(loaded);
    CHECK(loaded->layers[0].key_positions.size() == 6);
  }
  SECTION("of another number of tokens") {
    CHECK(refused(load_bytes(kv_file("," + entry("position", "I64", "[2]", 96, 112), ints.substr(8))),
                  "'position'"));
  }
}

TEST_CASE("shapes that do not fit together are refused by name") {
  struct {
    std::string k, v, q, reason;
  } const cases[] = {
      {"[1,2,3,2]", "[1,2,2,2]", "", "differ in heads or tokens"},
      {"[1,2,3,2]", "[1,1,3,2]", "", "differ in heads or tokens"},
      {"[1,2,3,2]", "[2,2,3,2]", "", "layers"},
      {"[1,2,3,2]", "[1,2,3,2]", "[1,2,3,4]", "head dimension 4"},
      {"[1,2,3,2]", "[1,2,3,2]", "[1,3,3,2]", "3 heads, not a multiple of the 2"},
      {"[1,2,3,2]", "[1,2,3,2]", "[1,2,4,2]", "4 tokens, more than the 3"},
      {"[12]", "[12]", "", "[layer][head][token][dim]"},
      {"[1,2,0,2]", "[1,2,0,2]", "", "every axis must have"},
      {"[0,2,3,2]", "[0,2,3,2]", "", "0 layers"},
      {"[]", "[]", "", "[layer][head][token][dim]"},
  };
  for (auto const& c : cases) {
    std::string header = "{";
    std::string data;
    for (auto const& [name, shape] :
         {std::pair<char const*, std::string>{"k", c.k}, {"v", c.v}, {"q", c.q}}) {
      if (shape.empty()) continue;
      std::size_t elements = 1;
      for (char const x : shape) {
        if (x >= '0' && x <= '9') elements *= static_cast<std::size_t>(x - '0');
      }
      if (shape == "[12]") elements = 12;
      header += (data.empty() && header == "{" ? "" : ",") +
                entry(name, "F32", shape, data.size(), data.size() + 4 * elements);
      data += f32_bytes(ramp(elements));
    }
    auto const loaded = load_bytes(safetensors_file(header + "}", data));
    CAPTURE(c.k, c.v, c.q, loaded.error);
    CHECK(refused(loaded, c.reason));
  }
}

TEST_CASE("a missing or doubled array is refused") {
  CHECK(refused(
      load_bytes(safetensors_file("{" + entry("k", "F32", "[1,1,1]", 0, 4) + "}", f32_bytes(ramp(1)))),
      "has no v"));
  CHECK(refused(load_bytes(kv_file("," + entry("key", "F32", "[1]", 96, 100), f32_bytes(ramp(1)))),
                "mean the same"));
  CHECK(refused(load_bytes(safetensors_file("{" + k_entry + "," + k_entry + "," + v_entry + "}", kv_data)),
                "occurs twice"));
  CHECK(refused(load_bytes(kv_file("," + entry("k.2", "F32", "[1]", 96, 100), f32_bytes(ramp(1)))),
                "single layers"));
  CHECK(refused(load_bytes(safetensors_file("{}", "")), "no arrays"));
}

TEST_CASE("a value that is not finite is named") {
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> k = ramp(12);
    k[2 * (3 + 1) + 1] = bad;  // head 1, token 1, dim 1
    CHECK(refused(
        load_bytes(safetensors_file("{" + k_entry + "," + v_entry + "}", f32_bytes(k) + f32_bytes(ramp(12)))),
        "'k' is not finite at layer 0, head 1, token 1, dim 1"));
  }
}

TEST_CASE("hostile headers are refused") {
  std::string const v = "," + v_entry + "}";
  auto const with_k = [&](std::string const& k) {
    return load_bytes(safetensors_file("{" + k + v, kv_data));
  };
  auto const k_offsets = [&](std::string const& offsets) {
    return with_k("\"k\":{\"dtype\":\"F32\",\"shape\":[1,2,3,2],\"data_offsets\":" + offsets + "}");
  };
  auto const k_shape = [&](std::string const& shape) {
    return with_k("\"k\":{\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":[0,48]}");
  };
  CHECK(refused(k_offsets("[-48,0]"), "not a natural number"));
  CHECK(refused(k_offsets("[0.0,48.0]"), "not a natural number"));
  CHECK(refused(k_offsets("[\"0\",\"48\"]"), "not a natural number"));
  CHECK(refused(k_offsets("[0,1e30]"), "not a natural number"));
  CHECK(refused(k_offsets("[0,18446744073709551616]"), "not a natural number"));
  CHECK(refused(k_offsets("[48,0]"), "ends before it begins"));
  CHECK(refused(k_offsets("[0,97]"), "truncated"));
  CHECK(refused(k_offsets("[18446744073709551568,18446744073709551615]"), "truncated"));
  CHECK(refused(k_offsets("[0,47]"), "need 48 bytes"));
  CHECK(refused(k_offsets("[1,49]"), "1 bytes before tensor 'k' belong to no tensor"));
  CHECK(refused(load_bytes(kv_file("," + entry("x", "U8", "[48]", 24, 72))), "overlap"));
  CHECK(refused(load_bytes(kv_file("," + entry("x", "F32", "[1,2,3,2]", 0, 48))), "overlap"));
  CHECK(refused(k_offsets("[0,48,96]"), "data_offsets"));
  CHECK(refused(k_offsets("{}"), "data_offsets"));
  CHECK(refused(k_shape("[1,2,3,-2]"), "not a natural number"));
  CHECK(refused(k_shape("[4294967296,4294967296,4294967296]"), "overflows"));
  CHECK(refused(k_shape("[9223372036854775807,1,1]"), "overflows"));
  CHECK(refused(k_shape("[3,1,1,1,1,1,1,1,1,1]"), "more than 8 axes"));
  CHECK(refused(k_shape("12"), "no shape"));
  CHECK(refused(with_k("\"k\":{\"dtype\":\"I32\",\"shape\":[1,2,3,2],\"data_offsets\":[0,48]}"), "type I32"));
  CHECK(refused(with_k("\"k\":{\"dtype\":\"Q9\",\"shape\":[1,2,3,2],\"data_offsets\":[0,48]}"), "Q9"));
  CHECK(refused(with_k("\"k\":{\"dtype\":7,\"shape\":[1,2,3,2],\"data_offsets\":[0,48]}"), "no dtype"));
  CHECK(refused(with_k("\"k\":[]"), "not a JSON object"));
  CHECK(refused(with_k("\"__metadata__\":[]"), "__metadata__"));
  CHECK(refused(with_k("\"__metadata__\":{\"a\":1}"), "metadata 'a'"));
  CHECK(refused(load_bytes(safetensors_file("{" + v_entry + "}", kv_data)), "belong to no tensor"));
  CHECK(refused(load_bytes(kv_file("", "rest")), "4 bytes at the end"));
}

TEST_CASE("what is not a .safetensors file is refused") {
  CHECK(refused(load_bytes(""), "empty"));
  CHECK(refused(load_bytes("abc"), "too few"));
  CHECK(refused(load_bytes(std::string(8, '\0')), "not a JSON object"));
  CHECK(refused(load_bytes(std::string(8, '\xFF') + "{}"), "truncated"));
  CHECK(refused(load_bytes(little_endian_bytes(3, 8) + "{}"), "truncated"));
  CHECK(refused(load_bytes(safetensors_file("{\"k\":", "")), "not a JSON object"));
  CHECK(refused(load_bytes(safetensors_file("[1,2]", "")), "not a JSON object"));
  CHECK(refused(load_bytes(safetensors_file("{\"\xFF\":1}", "")), "not a JSON object"));
  CHECK(refused(load_bytes(safetensors_file(std::string(200000, '['), "")), "not a JSON object"));
  CHECK(refused(load_bytes(little_endian_bytes((16U << 20) + 1, 8) + std::string((16U << 20) + 1, ' ')),
                "limit"));
  CHECK(refused(load_tensor_file("/nowhere/at/all.safetensors"), "no such file"));
  CHECK(refused(load_tensor_file(std::filesystem::temp_directory_path()), "directory"));
  CHECK(refused(load_tensor_file("/dev/null"), "not a regular file"));
}

TEST_CASE("names in error texts cannot steer a terminal") {
  std::string const header = "{" + entry("\\u001b[2J\\u009bx", "F32", "[2,2]", 0, 16) + "}";
  auto const loaded = load_bytes(safetensors_file(header, f32_bytes(ramp(4))));
  REQUIRE(!loaded);
  CHECK(loaded.error.find('\x1B') == std::string::npos);
  CHECK(loaded.error.find("\xC2\x9B") == std::string::npos);
}

TEST_CASE("more numbers than allowed are refused before they are read") {
  load_options options;
  options.max_values = 23;
  CHECK(refused(load_bytes(kv_file(), options), "more than 23 numbers"));
  options.max_values = 24;
  CHECK(load_bytes(kv_file(), options));
}

TEST_CASE("every truncation and many single-byte changes give a result or a reason") {
  std::string const whole = kv_file();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    auto const loaded = load_bytes(whole.substr(0, size));
    if (loaded || loaded.error.empty()) FAIL("accepted " << size << " of " << whole.size() << " bytes");
  }
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string changed = whole;
    changed[random() % changed.size()] = static_cast<char>(random());
    auto const loaded = load_bytes(changed);
    if (loaded.error.empty() == !loaded) FAIL("change " << i);
  }
}

TEST_CASE("the embedded samples are read") {
  REQUIRE(embedded_samples().size() == 2);
  std::size_t bytes = 0;
  for (embedded_sample const& sample : embedded_samples()) {
    auto const loaded = load_tensor_bytes(sample.bytes, sample.name);
    INFO(loaded.error);
    REQUIRE(loaded);
    CHECK(loaded->metadata.count("origin") == 1);
    CHECK(loaded->metadata.count("license") == 1);
    bytes += sample.bytes.size();
  }
  CHECK(bytes <= 3'000'000);
  auto const loaded = load_tensor_bytes(embedded_samples()[0].bytes, "sample");
  CHECK(loaded->layers.at(0).number == 1);
  CHECK(loaded->layers.at(1).number == 3);
  CHECK(loaded->layers[0].query_heads == 4);
  CHECK(loaded->layers[0].kv_heads == 2);
  CHECK(loaded->layers[0].query_positions.front() == 896);
  CHECK(loaded->layers[0].query_positions.back() == 1023);
  CHECK(find_sample("sample_gpt2"));
  CHECK(!find_sample("other"));
}
