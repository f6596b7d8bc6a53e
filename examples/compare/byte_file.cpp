// SPDX-License-Identifier: Apache-2.0
//! @file byte_file: see byte_file.hpp.
#include "byte_file.hpp"

#include <algorithm>
#include <system_error>

namespace kvcrumb_compare {

result<byte_file> byte_file::open(std::filesystem::path const& path) {
  std::error_code code;
  auto const status = std::filesystem::status(path, code);
  if (!std::filesystem::exists(status)) return failure{"there is no such file"};
  if (std::filesystem::is_directory(status)) return failure{"this is a directory, not a file"};
  if (!std::filesystem::is_regular_file(status)) return failure{"this is not a regular file"};
  byte_file file;
  file.size_ = std::filesystem::file_size(path, code);
  if (code) return failure{"its size cannot be read: " + code.message()};
  file.stream_.open(path, std::ios::binary);
  if (!file.stream_) return failure{"it cannot be opened for reading"};
  return file;
}

bool byte_file::read(std::uint64_t offset, std::span<std::byte> into) {
  if (offset > size_ || into.size() > size_ - offset) return false;
  if (memory_.data() != nullptr) {
    auto const from = memory_.subspan(static_cast<std::size_t>(offset), into.size());
    std::copy(from.begin(), from.end(), into.begin());
    return true;
  }
  stream_.clear();
  stream_.seekg(static_cast<std::streamoff>(offset));
  stream_.read(reinterpret_cast<char*>(into.data()), static_cast<std::streamsize>(into.size()));
  return stream_.good() && static_cast<std::uint64_t>(stream_.gcount()) == into.size();
}

}  // namespace kvcrumb_compare
