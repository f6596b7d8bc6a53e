// SPDX-License-Identifier: Apache-2.0
//! @file dump: see dump.hpp.
#include "dump.hpp"

#include <bit>
#include <cmath>
#include <fstream>

#include <fmt/format.h>
#include <kvcrumb/numeric/storage_float.hpp>
#include <nlohmann/json.hpp>

#include "text.hpp"

namespace kvcrumb_lm {
namespace {

template <class Unsigned>
void append(Unsigned value, std::string& to) {
  for (std::size_t i = 0; i < sizeof value; ++i)
    to += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFFu);
}

}  // namespace

tensor_out f16_tensor(std::string name, std::vector<std::int64_t> shape, std::span<float const> values) {
  tensor_out t{std::move(name), "F16", std::move(shape), {}};
  for (float const x : values)
    append(kvcrumb::convert<kvcrumb::float16>(x).bits, t.data);
  return t;
}

tensor_out f32_tensor(std::string name, std::vector<std::int64_t> shape, std::span<float const> values) {
  tensor_out t{std::move(name), "F32", std::move(shape), {}};
  for (float const x : values)
    append(std::bit_cast<std::uint32_t>(x), t.data);
  return t;
}

tensor_out i32_tensor(std::string name, std::span<int const> values) {
  tensor_out t{std::move(name), "I32", {static_cast<std::int64_t>(values.size())}, {}};
  for (int const x : values)
    append(static_cast<std::uint32_t>(x), t.data);
  return t;
}

std::string write_safetensors(std::filesystem::path const& path, std::span<tensor_out const> tensors,
                              text_map const& metadata) {
  nlohmann::ordered_json header{{"__metadata__", metadata}};
  std::size_t at = 0;
  for (tensor_out const& t : tensors) {
    header[t.name] = {{"dtype", t.type}, {"shape", t.shape}, {"data_offsets", {at, at + t.data.size()}}};
    at += t.data.size();
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string size;
  append(static_cast<std::uint64_t>(text.size()), size);
  std::ofstream file(path, std::ios::binary);
  file << size << text;
  for (tensor_out const& t : tensors)
    file << t.data;
  if (!file.flush())
    return fmt::format("'{}' cannot be written", kvcrumb_compare::printable(path.string(), 400));
  return {};
}

std::string write_recording(std::filesystem::path const& path,
                            std::span<kvcrumb_compare::recorded_layer const> layers,
                            std::span<float const> before_rope, std::span<int const> tokens,
                            text_map const& metadata) {
  using kvcrumb_compare::recorded_layer;
  recorded_layer const& first = layers.front();
  auto const joined = [&](char const* name, std::int64_t heads, std::vector<float> recorded_layer::*rows) {
    std::vector<float> all;
    for (recorded_layer const& layer : layers)
      all.insert(all.end(), (layer.*rows).begin(), (layer.*rows).end());
    return f16_tensor(name, {static_cast<std::int64_t>(layers.size()), heads, first.tokens, first.head_dim},
                      all);
  };
  for (recorded_layer const& layer : layers) {
    for (auto const* const values : {&layer.q, &layer.k, &layer.v}) {
      for (float const x : *values) {
        if (!(std::fabs(x) < 65520.0f))
          return fmt::format("layer {}: a query, key or value is beyond the range of f16", layer.number);
      }
    }
  }
  std::vector<tensor_out> const tensors{
      joined("q", first.query_heads, &recorded_layer::q), joined("k", first.kv_heads, &recorded_layer::k),
      f16_tensor("k_pre_rope",
                 {static_cast<std::int64_t>(layers.size()), first.kv_heads, first.tokens, first.head_dim},
                 before_rope),
      joined("v", first.kv_heads, &recorded_layer::v), i32_tensor("token_ids", tokens)};
  return write_safetensors(path, tensors, metadata);
}

}  // namespace kvcrumb_lm
