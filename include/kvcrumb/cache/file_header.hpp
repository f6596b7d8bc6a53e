// SPDX-License-Identifier: Apache-2.0
//! @file The self-describing header of a saved cache (docs/format.md, "Saved caches").
#pragma once

#include <cstring>
#include <span>

#include "kvcrumb/cache/crc32.hpp"
#include "kvcrumb/description.hpp"
#include "kvcrumb/status.hpp"
#include "kvcrumb/version.hpp"

namespace kvcrumb::inline v0 {

//! Header of a saved cache, little-endian, 640 bytes; every field at its natural alignment, no padding.
struct file_header {
  static constexpr char expected_magic[8] = {'K', 'V', 'C', 'R', 'U', 'M', 'B', '\n'};

  char magic[8] = {};
  std::uint32_t version = 0;       //!< format_version
  std::uint32_t header_bytes = 0;  //!< sizeof(file_header)
  std::uint64_t total_bytes = 0;   //!< header and payload
  std::uint32_t header_crc = 0;    //!< CRC-32 of the header with this field zero
  std::uint32_t payload_crc = 0;   //!< CRC-32 of everything after the header
  char scheme_name[32] = {};       //!< zero-terminated
  char key_text[128] = {};         //!< description of the key scheme, zero-terminated
  char value_text[128] = {};       //!< likewise for values
  char isolation_text[32] = {};
  std::uint64_t key_state = 0;  //!< state_id of the key scheme
  std::uint64_t value_state = 0;
  std::int32_t head_dim = 0;
  std::int32_t tile_tokens = 0;
  std::int32_t kv_heads = 0;
  std::int32_t row_bytes = 0;  //!< bytes of one element of a full-precision row
  char row_type[8] = {};       //!< "f16", "bf16", "f32"
  std::int32_t recent = 0;     //!< window
  std::int32_t block = 0;
  std::int32_t sink_capacity = 0;
  std::int32_t pool_capacity = 0;
  std::int32_t aux_capacity = 0;
  std::int32_t scope = 0;       //!< pool_scope
  std::int64_t blob_bytes = 0;  //!< bytes of one blob as saved, without padding
  std::int64_t sink_count = 0;
  std::int64_t tile_slots = 0;
  std::int64_t tail_count = 0;
  std::int64_t listed_count = 0;
  std::uint64_t isolation_state = 0;  //!< id of the isolation policy, where it has one
  char reserved[176] = {};            //!< zero
};
static_assert(sizeof(file_header) == 640);
static_assert(std::is_trivially_copyable_v<file_header>);

//! CRC of a header as it is stored.
inline std::uint32_t header_checksum(file_header header) noexcept {
  header.header_crc = 0;
  std::byte bytes[sizeof(file_header)];
  std::memcpy(bytes, &header, sizeof header);
  return crc32(bytes);
}

//! Reads and checks the header at the beginning of `file`: magic, version, sizes, header checksum, texts,
//! zero padding. The payload is not looked at. `header` is untouched unless ok.
inline status read_header(std::span<std::byte const> file, file_header& header) noexcept {
  if (file.size() < sizeof(file_header::magic)) return status::truncated;
  if (std::memcmp(file.data(), file_header::expected_magic, sizeof(file_header::magic)) != 0) {
    return status::bad_magic;
  }
  if (file.size() < sizeof(file_header)) return status::truncated;
  file_header h;
  std::memcpy(&h, file.data(), sizeof h);
  if (h.version != static_cast<std::uint32_t>(format_version)) return status::bad_version;
  if (h.header_bytes != sizeof(file_header) || h.total_bytes < sizeof(file_header)) return status::bad_header;
  if (header_checksum(h) != h.header_crc) return status::bad_checksum;
  auto const terminated = [](auto const& text) { return text[sizeof(text) - 1] == '\0'; };
  if (!terminated(h.scheme_name) || !terminated(h.key_text) || !terminated(h.value_text) ||
      !terminated(h.isolation_text) || !terminated(h.row_type)) {
    return status::bad_header;
  }
  if (std::memcmp(h.reserved, file_header{}.reserved, sizeof h.reserved) != 0) return status::bad_header;
  header = h;
  return status::ok;
}

}  // namespace kvcrumb::inline v0
