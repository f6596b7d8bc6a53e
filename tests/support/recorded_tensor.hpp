// SPDX-License-Identifier: Apache-2.0
//! @file Input for tests of schemes: fp16 tensors out of a .safetensors file (without linking
//! kvcrumb-compare), numbers that NumPy scripts make too, and a relative error.
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

//! Layer `layer` of a tensor whose slowest axis is the layer; a layer has `count` numbers.
inline std::vector<float> recorded_tensor(std::string const& path, std::string const& name,
                                          std::int64_t layer, std::int64_t count) {
  std::vector<float> const all = recorded_tensor(path, name);
  REQUIRE((layer + 1) * count <= static_cast<std::int64_t>(all.size()));
  return {all.begin() + layer * count, all.begin() + (layer + 1) * count};
}

//! |approximate - exact| / |exact|.
inline double relative_error(std::vector<float> const& exact, std::vector<float> const& approximate) {
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    double const x = static_cast<double>(exact[i]), e = static_cast<double>(approximate[i]) - x;
    error += e * e;
    norm += x * x;
  }
  return std::sqrt(error / norm);
}

//! The generator that tests share with their NumPy counterparts in tests/literature: `count` numbers in
//! [-1, 1), multiples of 2^-14.
inline std::vector<float> shared_numbers(unsigned seed, int count) {
  std::vector<float> values;
  for (int i = 0; i < count; ++i) {
    seed = (seed * 1103515245u + 12345u) % (1u << 31);
    values.push_back(static_cast<float>(seed >> 16 & 0x7FFFu) / 16384.0f - 1.0f);
  }
  return values;
}

}  // namespace kvcrumb::test
