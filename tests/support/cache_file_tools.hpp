// SPDX-License-Identifier: Apache-2.0
//! @file Forging saved caches: fields changed and both checksums made right again.
#pragma once

#include <cstring>
#include <vector>

#include "kvcrumb/kvcrumb.hpp"

namespace kvcrumb::test {

inline file_header header_in(std::vector<std::byte> const& file) {
  file_header h;
  std::memcpy(&h, file.data(), sizeof h);
  return h;
}

//! Writes sizes and checksums that fit the file's content. Does nothing to a file without a whole header.
inline void seal(std::vector<std::byte>& file) {
  if (file.size() < sizeof(file_header)) return;
  file_header h = header_in(file);
  h.total_bytes = file.size();
  h.payload_crc = crc32(std::span<std::byte const>{file}.subspan(sizeof h));
  h.header_crc = header_checksum(h);
  std::memcpy(file.data(), &h, sizeof h);
}

//! A copy with a changed header, sealed.
template <class F>
std::vector<std::byte> forged_header(std::vector<std::byte> file, F&& change) {
  file_header h = header_in(file);
  change(h);
  std::memcpy(file.data(), &h, sizeof h);
  seal(file);
  return file;
}

//! A copy with a number of the payload changed, sealed. `offset` counts from the end of the header.
template <class T>
std::vector<std::byte> forged_payload(std::vector<std::byte> file, std::size_t offset, T value) {
  std::memcpy(file.data() + sizeof(file_header) + offset, &value, sizeof value);
  seal(file);
  return file;
}

}  // namespace kvcrumb::test
