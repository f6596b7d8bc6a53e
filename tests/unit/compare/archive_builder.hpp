// SPDX-License-Identifier: Apache-2.0
//! @file archive_builder: .safetensors and .npz files made byte by byte, well-formed or not, for the reader's
//! tests.
#pragma once

#include <zlib.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <unistd.h>

#include "tensor_file.hpp"

namespace kvcrumb_compare::test {

//! The lowest `size` bytes of a number, little-endian.
inline std::string little_endian_bytes(std::uint64_t value, std::size_t size) {
  std::string out;
  for (std::size_t i = 0; i < size; ++i)
    out += static_cast<char>((value >> (8 * i)) & 255U);
  return out;
}

inline std::string f16_bytes(std::vector<std::uint16_t> const& bits) {
  std::string out;
  for (std::uint16_t const b : bits)
    out += little_endian_bytes(b, 2);
  return out;
}

inline std::string f32_bytes(std::vector<float> const& values) {
  std::string out;
  for (float const x : values)
    out += little_endian_bytes(std::bit_cast<std::uint32_t>(x), 4);
  return out;
}

inline std::string f64_bytes(std::vector<double> const& values) {
  std::string out;
  for (double const x : values)
    out += little_endian_bytes(std::bit_cast<std::uint64_t>(x), 8);
  return out;
}

//! 0, 1, 2, ... as floats, plus `start`.
inline std::vector<float> ramp(std::size_t count, float start = 0) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = start + static_cast<float>(i);
  return values;
}

//! A .safetensors file: header text and data as given, right or wrong.
inline std::string safetensors_file(std::string const& header, std::string const& data) {
  return little_endian_bytes(header.size(), 8) + header + data;
}

//! A header entry: "name":{...}
inline std::string entry(std::string const& name, std::string const& type, std::string const& shape,
                         std::size_t begin, std::size_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

//! A .npy array, version 1.0. `shape` such as "(1, 2, 3)".
inline std::string npy_array(std::string const& descr, std::string const& shape, std::string const& data,
                             bool fortran_order = false) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': " + (fortran_order ? "True" : "False") +
                       ", 'shape': " + shape + ", }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + little_endian_bytes(header.size(), 2) + header + data;
}

struct zip_member {
  std::string name;
  std::string content;
  bool deflated = false;
  bool zip64 = false;             //!< sizes in the zip64 extra fields, as numpy.savez may write them
  std::uint32_t crc_error = 0;    //!< added to the right CRC
  std::uint64_t size_error = 0;   //!< added to the right uncompressed size
  std::uint64_t place_error = 0;  //!< added to the right offset
  std::uint16_t flags = 0;
  std::uint16_t method = 0;  //!< 0: as `deflated` says
};

inline std::string deflate_raw(std::string const& content) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, static_cast<uLong>(content.size())), '\0');
  std::string input = content;
  stream.next_in = reinterpret_cast<Bytef*>(input.data());
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

//! A zip archive.
inline std::string zip_file(std::vector<zip_member> const& members) {
  std::string out;
  std::string directory;
  for (zip_member const& m : members) {
    std::string const stored = m.deflated ? deflate_raw(m.content) : m.content;
    std::uint64_t const crc =
        crc32(0, reinterpret_cast<Bytef const*>(m.content.data()), static_cast<uInt>(m.content.size())) +
        m.crc_error;
    std::uint64_t const size = m.content.size() + m.size_error;
    std::uint64_t const place = out.size() + m.place_error;
    std::uint64_t const method = m.method != 0 ? m.method : m.deflated ? 8U : 0U;
    std::uint64_t const wide = 0xFFFFFFFF;
    std::string const sizes = little_endian_bytes(m.zip64 ? wide : stored.size(), 4) +
                              little_endian_bytes(m.zip64 ? wide : size, 4);
    std::string const common = little_endian_bytes(45, 2) + little_endian_bytes(m.flags, 2) +
                               little_endian_bytes(method, 2) + little_endian_bytes(0, 4) +
                               little_endian_bytes(crc, 4) + sizes + little_endian_bytes(m.name.size(), 2);
    std::string extra;
    if (m.zip64) {
      extra = little_endian_bytes(1, 2) + little_endian_bytes(24, 2) + little_endian_bytes(size, 8) +
              little_endian_bytes(stored.size(), 8) + little_endian_bytes(place, 8);
    }
    directory += "PK\x01\x02" + little_endian_bytes(45, 2) + common + little_endian_bytes(extra.size(), 2) +
                 little_endian_bytes(0, 2) + little_endian_bytes(0, 2) + little_endian_bytes(0, 2) +
                 little_endian_bytes(0, 4) + little_endian_bytes(m.zip64 ? wide : place, 4) + m.name + extra;
    out += "PK\x03\x04" + common + little_endian_bytes(extra.size(), 2) + m.name + extra + stored;
  }
  std::size_t const start = out.size();
  return out + directory + "PK\x05\x06" + little_endian_bytes(0, 4) + little_endian_bytes(members.size(), 2) +
         little_endian_bytes(members.size(), 2) + little_endian_bytes(directory.size(), 4) +
         little_endian_bytes(start, 4) + little_endian_bytes(0, 2);
}

//! A file in the folder for temporary files that disappears with the object.
class scratch_file {
 public:
  explicit scratch_file(std::string const& content, std::string const& ending = ".safetensors") {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("kvcrumb_compare_" + std::to_string(getpid()) + "_" + std::to_string(count++) + ending);
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~scratch_file() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  scratch_file(scratch_file const&) = delete;
  scratch_file& operator=(scratch_file const&) = delete;
  std::filesystem::path const& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

//! Reads the bytes of a file as if they came from a file named "input".
inline result<recorded_layers> load_bytes(std::string const& content, load_options const& options = {}) {
  return load_tensor_bytes(std::as_bytes(std::span(content.data(), content.size())), "input", options);
}

//! Whether the reader refused the bytes with a text that contains `reason`.
inline bool refused(result<recorded_layers> const& loaded, std::string_view reason) {
  return !loaded && loaded.error.find(reason) != std::string::npos;
}

}  // namespace kvcrumb_compare::test
