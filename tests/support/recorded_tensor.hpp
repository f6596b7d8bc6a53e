// SPDX-License-Identifier: Apache-2.0
//! @file recorded_tensor: one fp16 tensor out of a .safetensors file, for tests that do not link
//! kvcrumb-compare.
#pragma once

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "support/cache_fixture.hpp"

namespace kvcrumb::test {

//! One fp16 tensor of a .safetensors file as floats, in the order of the file.
inline std::vector<float> recorded_tensor(std::string const& path, std::string const& name) {
  std::ifstream file(path, std::ios::binary);
  std::uint64_t length = 0;
  file.read(reinterpret_cast<char*>(&length), 8);
  std::string header(static_cast<std::size_t>(length), ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  std::size_t at = header.find("\"" + name + "\"");
  REQUIRE(at != std::string::npos);
  at = header.find('[', header.find("data_offsets", at)) + 1;
  std::size_t used = 0;
  std::int64_t const begin = std::stoll(header.substr(at), &used);
  std::int64_t const end = std::stoll(header.substr(header.find(',', at) + 1));
  std::vector<std::uint16_t> bits(size((end - begin) / 2));
  file.seekg(static_cast<std::streamoff>(8 + static_cast<std::int64_t>(length) + begin));
  file.read(reinterpret_cast<char*>(bits.data()), static_cast<std::streamsize>(end - begin));
  std::vector<float> x(bits.size());
  std::transform(bits.begin(), bits.end(), x.begin(), [](std::uint16_t b) { return to_float(float16{b}); });
  return x;
}

}  // namespace kvcrumb::test
