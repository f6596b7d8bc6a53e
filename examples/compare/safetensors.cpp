// SPDX-License-Identifier: Apache-2.0
//! @file open_safetensors: see tensor_archive.hpp.
#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tensor_archive.hpp"
#include "text.hpp"

namespace kvcrumb_compare {
namespace {

using nlohmann::json;

struct byte_range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

class safetensors_archive final : public tensor_archive {
 public:
  safetensors_archive(byte_file file, std::uint64_t data_start, std::vector<tensor_entry> entries,
                      std::vector<byte_range> ranges, std::map<std::string, std::string> metadata)
      : file_(std::move(file)), data_start_(data_start), ranges_(std::move(ranges)) {
    entries_ = std::move(entries);
    metadata_ = std::move(metadata);
  }

  result<std::vector<std::byte>> read(std::size_t index, std::uint64_t first, std::uint64_t count) override {
    std::uint64_t const size = size_of(entries_[index].type);
    std::vector<std::byte> bytes(static_cast<std::size_t>(count * size));
    if (!file_.read(data_start_ + ranges_[index].begin + first * size, bytes)) {
      return failure{fmt::format("the data of '{}' cannot be read", printable(entries_[index].name, 200))};
    }
    return bytes;
  }

 private:
  byte_file file_;
  std::uint64_t data_start_;
  std::vector<byte_range> ranges_;
};

// Bits of one element of every type of the format; 0: a type this program does not know.
std::uint64_t bits_of(std::string const& type) {
  static constexpr std::array<std::pair<char const*, std::uint64_t>, 22> known{{
      {"BOOL", 8},        {"U8", 8},          {"I8", 8},      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
      {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"U16", 16},    {"I16", 16},    {"F16", 16},    {"BF16", 16},
      {"U32", 32},        {"I32", 32},        {"F32", 32},    {"U64", 64},    {"I64", 64},    {"F64", 64},
      {"C64", 64},        {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6},
  }};
  auto const found =
      std::find_if(known.begin(), known.end(), [&](auto const& row) { return type == row.first; });
  return found == known.end() ? 0 : found->second;
}

element_type type_of(std::string const& type) {
  if (type == "F16") return element_type::f16;
  if (type == "BF16") return element_type::bf16;
  if (type == "F32") return element_type::f32;
  if (type == "F64") return element_type::f64;
  if (type == "I8") return element_type::i8;
  if (type == "I32") return element_type::i32;
  if (type == "I64") return element_type::i64;
  return element_type::other;
}

// A JSON number that is a non-negative integer; 1.0, -1 and "1" are not.
std::optional<std::uint64_t> natural_number(json const& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<std::uint64_t>();
}

// Fills entry and range from one member of the header. Returns an error text, empty if all is well.
std::string parse_entry(std::string const& name, json const& value, std::uint64_t data_size,
                        tensor_entry& entry, byte_range& range) {
  std::string const shown = printable(name, 200);
  if (!value.is_object()) return fmt::format("tensor '{}': its header is not a JSON object", shown);
  auto const type = value.find("dtype");
  auto const shape = value.find("shape");
  auto const offsets = value.find("data_offsets");
  if (type == value.end() || !type->is_string()) return fmt::format("tensor '{}' has no dtype", shown);
  if (shape == value.end() || !shape->is_array()) return fmt::format("tensor '{}' has no shape", shown);
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2) {
    return fmt::format("tensor '{}' has no data_offsets [begin, end]", shown);
  }
  entry.name = name;
  entry.type_name = type->get<std::string>();
  entry.type = type_of(entry.type_name);
  entry.elements = 1;
  if (shape->size() > max_rank) return fmt::format("tensor '{}' has more than {} axes", shown, max_rank);
  for (json const& axis : *shape) {
    auto const extent = natural_number(axis);
    if (!extent) return fmt::format("tensor '{}': an axis of its shape is not a natural number", shown);
    if (!multiply_into(entry.elements, *extent)) {
      return fmt::format("tensor '{}': the product of its shape overflows", shown);
    }
    entry.shape.push_back(*extent);
  }
  auto const begin = natural_number((*offsets)[0]);
  auto const end = natural_number((*offsets)[1]);
  if (!begin || !end) return fmt::format("tensor '{}': a data offset is not a natural number", shown);
  if (*begin > *end) return fmt::format("tensor '{}' ends before it begins ({} > {})", shown, *begin, *end);
  if (*end > data_size) {
    return fmt::format("tensor '{}' ends at byte {} of the data, but the file has only {}: truncated?", shown,
                       *end, data_size);
  }
  std::uint64_t bits = bits_of(entry.type_name);
  if (bits == 0) {
    entry.unusable = fmt::format("type {} is unknown", printable(entry.type_name, 40));
  } else {
    if (!multiply_into(bits, entry.elements)) return fmt::format("tensor '{}': its size overflows", shown);
    if ((bits + 7) / 8 != *end - *begin) {
      return fmt::format("tensor '{}': type {} and its shape need {} bytes, its data_offsets span {}", shown,
                         printable(entry.type_name, 40), (bits + 7) / 8, *end - *begin);
    }
  }
  range = {*begin, *end};
  return {};
}

// The format allows neither overlaps nor holes. Returns an error text, empty if all is well.
std::string check_coverage(std::vector<tensor_entry> const& entries, std::vector<byte_range> const& ranges,
                           std::uint64_t data_size) {
  std::vector<std::size_t> order(ranges.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(ranges[a].begin, ranges[a].end) < std::pair(ranges[b].begin, ranges[b].end);
  });
  std::uint64_t at = 0;
  for (std::size_t const i : order) {
    std::string const shown = printable(entries[i].name, 200);
    if (ranges[i].begin < at) return fmt::format("tensor '{}' overlaps another one", shown);
    if (ranges[i].begin > at) {
      return fmt::format("{} bytes before tensor '{}' belong to no tensor", ranges[i].begin - at, shown);
    }
    at = ranges[i].end;
  }
  if (at != data_size)
    return fmt::format("{} bytes at the end of the file belong to no tensor", data_size - at);
  return {};
}

}  // namespace

result<std::unique_ptr<tensor_archive>> open_safetensors(byte_file file) {
  std::array<std::byte, 8> prefix{};
  if (!file.read(0, prefix)) {
    return failure{fmt::format("not a .safetensors file: {} bytes are too few", file.size())};
  }
  std::uint64_t const header_size = little_endian<8>(prefix, 0);
  if (header_size > file.size() - 8) {
    return failure{
        fmt::format("not a .safetensors file, or truncated: its header would have {} bytes, the file {}",
                    header_size, file.size())};
  }
  if (header_size > max_header_bytes) {
    return failure{
        fmt::format("its header has {} bytes, more than the limit of {}", header_size, max_header_bytes)};
  }
  std::vector<std::byte> header(static_cast<std::size_t>(header_size));
  if (!file.read(8, header)) return failure{"its header cannot be read"};

  std::set<std::string> names;
  std::string twice;
  auto const note_names = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::key && depth == 1 && parsed.is_string()) {
      if (!names.insert(parsed.get<std::string>()).second) twice = parsed.get<std::string>();
    }
    return true;
  };
  char const* const text = reinterpret_cast<char const*>(header.data());
  json const root = json::parse(text, text + header.size(), note_names, /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object()) {
    return failure{"not a .safetensors file: its header is not a JSON object"};
  }
  if (!twice.empty()) return failure{fmt::format("the name '{}' occurs twice", printable(twice, 200))};

  std::uint64_t const data_size = file.size() - 8 - header_size;
  std::vector<tensor_entry> entries;
  std::vector<byte_range> ranges;
  std::map<std::string, std::string> metadata;
  for (auto const& [name, value] : root.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) return failure{"its __metadata__ is not a JSON object"};
      for (auto const& [key, text_value] : value.items()) {
        if (!text_value.is_string()) {
          return failure{fmt::format("its metadata '{}' is not a string", printable(key, 200))};
        }
        metadata[key] = text_value.get<std::string>();
      }
      continue;
    }
    tensor_entry entry;
    byte_range range;
    std::string error = parse_entry(name, value, data_size, entry, range);
    if (!error.empty()) return failure{std::move(error)};
    entries.push_back(std::move(entry));
    ranges.push_back(range);
  }
  std::string error = check_coverage(entries, ranges, data_size);
  if (!error.empty()) return failure{std::move(error)};
  return std::unique_ptr<tensor_archive>(std::make_unique<safetensors_archive>(
      std::move(file), 8 + header_size, std::move(entries), std::move(ranges), std::move(metadata)));
}

}  // namespace kvcrumb_compare
