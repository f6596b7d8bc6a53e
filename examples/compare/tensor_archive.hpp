// SPDX-License-Identifier: Apache-2.0
//! @file tensor_archive: what .safetensors and .npz have in common: named arrays and, perhaps, metadata.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "byte_file.hpp"
#include "result.hpp"

namespace kvcrumb_compare {

enum class element_type : std::uint8_t { f16, bf16, f32, f64, i8, i32, i64, other };

//! Bytes of one element; 0 for `other`.
constexpr std::uint64_t size_of(element_type type) noexcept {
  switch (type) {
    case element_type::i8: return 1;
    case element_type::f16:
    case element_type::bf16: return 2;
    case element_type::f32:
    case element_type::i32: return 4;
    case element_type::f64:
    case element_type::i64: return 8;
    case element_type::other: return 0;
  }
  return 0;
}

//! One array as the file describes it.
struct tensor_entry {
  std::string name;
  element_type type = element_type::other;
  std::string type_name;             //!< as written in the file, for error texts
  std::vector<std::uint64_t> shape;  //!< slowest axis first; the product is `elements`, checked for overflow
  std::uint64_t elements = 0;
  std::string unusable;  //!< why its elements cannot be read; empty: they can
};

//! An open file of named arrays. Every size in it has been checked against the size of the file.
class tensor_archive {
 public:
  tensor_archive() = default;
  tensor_archive(tensor_archive const&) = delete;
  tensor_archive& operator=(tensor_archive const&) = delete;
  virtual ~tensor_archive() = default;

  std::vector<tensor_entry> const& entries() const noexcept { return entries_; }
  std::map<std::string, std::string> const& metadata() const noexcept { return metadata_; }

  //! The bytes of elements [first, first + count) of entries()[index], which has a known type and is usable;
  //! little-endian, slowest axis first. Precondition: first + count <= elements.
  virtual result<std::vector<std::byte>> read(std::size_t index, std::uint64_t first,
                                              std::uint64_t count) = 0;

 protected:
  std::vector<tensor_entry> entries_;
  std::map<std::string, std::string> metadata_;
};

//! Limits beyond which a file is refused before anything is allocated for it.
inline constexpr std::uint64_t max_header_bytes = std::uint64_t{16} << 20;
inline constexpr std::uint64_t max_member_bytes = std::uint64_t{1} << 33;
inline constexpr std::size_t max_rank = 8;

//! product = product * factor unless that leaves 63 bits; false then.
constexpr bool multiply_into(std::uint64_t& product, std::uint64_t factor) noexcept {
  constexpr std::uint64_t limit = std::uint64_t{1} << 63;
  if (factor != 0 && product >= limit / factor) return false;
  product *= factor;
  return true;
}

//! A .safetensors file: 8 bytes little-endian header size, JSON header, data
//! (https://github.com/huggingface/safetensors, "Format"). Refused: a header above max_header_bytes, a name
//! given twice, offsets that overlap, leave a hole, lie past the end or do not match type and shape.
result<std::unique_ptr<tensor_archive>> open_safetensors(byte_file file);

//! A .npz file: a zip archive (stored or deflated members, zip64 too) of .npy arrays, format 1.0 to 3.0
//! (numpy.lib.format). Refused: encryption, other compressions, sizes that contradict each other, a wrong
//! CRC.
result<std::unique_ptr<tensor_archive>> open_npz(byte_file file);

}  // namespace kvcrumb_compare
