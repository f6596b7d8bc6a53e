// SPDX-License-Identifier: Apache-2.0
//! @file byte_file: a regular file (or memory) read by offset, never past its end, and little-endian integers
//! out of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <vector>

#include "result.hpp"

namespace kvcrumb_compare {

class byte_file {
 public:
  byte_file() = default;

  //! Bytes in memory that outlive the file made of them; they are not copied.
  explicit byte_file(std::span<std::byte const> memory) noexcept : memory_(memory), size_(memory.size()) {}

  //! Opens a regular file (a directory, pipe or device is refused).
  static result<byte_file> open(std::filesystem::path const& path);

  std::uint64_t size() const noexcept { return size_; }

  //! Fills `into` from `offset`. False if the file has not that many bytes there.
  bool read(std::uint64_t offset, std::span<std::byte> into);

 private:
  std::ifstream stream_;
  std::span<std::byte const> memory_;  // empty for a file on disk
  std::uint64_t size_ = 0;
};

//! Unsigned little-endian integer of `Bytes` bytes at bytes[offset]; the caller has checked the size.
template <std::size_t Bytes>
std::uint64_t little_endian(std::span<std::byte const> bytes, std::size_t offset) {
  static_assert(Bytes >= 1 && Bytes <= 8, "kvcrumb_compare::little_endian: Bytes must be in [1, 8]");
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < Bytes; ++i) {
    value |= std::to_integer<std::uint64_t>(bytes[offset + i]) << (8 * i);
  }
  return value;
}

}  // namespace kvcrumb_compare
