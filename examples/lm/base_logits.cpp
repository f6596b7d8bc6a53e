// SPDX-License-Identifier: Apache-2.0
//! @file base_logits: see base_logits.hpp.
#include "base_logits.hpp"

#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <kvcrumb/numeric/storage_float.hpp>

#include "byte_file.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::byte_file;
using kvcrumb_compare::failure;
using kvcrumb_compare::printable;
using kvcrumb_compare::result;

struct file_header {
  char magic[16] = {'k', 'v', 'c', 'r', 'u', 'm', 'b', '-', 'l', 'm', ' ', 'b', 'a', 's', 'e', '\n'};
  std::uint32_t version = 1;
  std::uint32_t number_bytes = 4;
  base_key key;
};
static_assert(sizeof(file_header) == 56, "kvcrumb_lm::file_header: the file has no padding");

std::size_t size(std::uint64_t n) { return static_cast<std::size_t>(n); }

}  // namespace

base_logits::base_logits(base_key const& key, bool half) : key_(key), half_(half) {
  if (half) {
    halves_.resize(size(key.rows * key.vocabulary));
  } else {
    floats_.resize(size(key.rows * key.vocabulary));
  }
}

void base_logits::set_row(std::uint64_t row, std::span<float const> values) {
  std::size_t const at = size(row * key_.vocabulary);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (half_) {
      halves_[at + i] = kvcrumb::convert<kvcrumb::float16>(values[i]).bits;
    } else {
      floats_[at + i] = values[i];
    }
  }
}

void base_logits::read_row(std::uint64_t row, std::span<float> values) const {
  std::size_t const at = size(row * key_.vocabulary);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = half_ ? kvcrumb::to_float(kvcrumb::float16{halves_[at + i]}) : floats_[at + i];
}

std::string base_logits::save(std::filesystem::path const& path) const {
  file_header header;
  header.number_bytes = half_ ? 2 : 4;
  header.key = key_;
  std::filesystem::path beside = path;
  beside += ".part";
  std::string const shown = printable(path.string(), 400);
  {
    std::ofstream file(beside, std::ios::binary);
    file.write(reinterpret_cast<char const*>(&header), sizeof header);
    char const* const data =
        half_ ? reinterpret_cast<char const*>(halves_.data()) : reinterpret_cast<char const*>(floats_.data());
    file.write(data, static_cast<std::streamsize>(key_.rows * key_.vocabulary * header.number_bytes));
    if (!file.flush()) return fmt::format("'{}' cannot be written", shown);
  }
  std::error_code error;
  std::filesystem::rename(beside, path, error);
  return error ? fmt::format("'{}' cannot be written: {}", shown, error.message()) : std::string();
}

result<base_logits> base_logits::load(std::filesystem::path const& path, base_key const& expected) {
  std::string const shown = printable(path.string(), 400);
  auto const refuse = [&](std::string_view why) { return failure{fmt::format("'{}': {}", shown, why)}; };
  auto file = byte_file::open(path);
  if (!file) return refuse(file.error);
  file_header header;
  file_header const right;
  if (!file->read(0, std::as_writable_bytes(std::span(&header, 1))) ||
      std::memcmp(header.magic, right.magic, sizeof header.magic) != 0)
    return refuse("not a base of kvcrumb-lm");
  if (header.version != right.version) return refuse(fmt::format("version {} is not read", header.version));
  if (header.number_bytes != 2 && header.number_bytes != 4) return refuse("its numbers have an unknown size");
  base_key const& k = header.key;
  if (k.model != expected.model) return refuse("made with another model");
  if (k.text != expected.text || k.rows != expected.rows)
    return refuse("made from another text, --tokens or --context");
  if (k.vocabulary != expected.vocabulary) return refuse("made with another vocabulary");
  std::uint64_t const bytes =
      k.rows * k.vocabulary * header.number_bytes;  // as large as what we would allocate
  if (file->size() != sizeof header + bytes)
    return refuse(
        fmt::format("has {} bytes and should have {}: truncated?", file->size(), sizeof header + bytes));
  base_logits made(k, header.number_bytes == 2);
  auto const into = made.half_ ? std::as_writable_bytes(std::span(made.halves_))
                               : std::as_writable_bytes(std::span(made.floats_));
  if (!file->read(sizeof header, into)) return refuse("cannot be read");
  return made;
}

}  // namespace kvcrumb_lm
