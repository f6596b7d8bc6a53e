// SPDX-License-Identifier: Apache-2.0
//! @file One group through a codec, and inputs that do not depend on a library's distributions.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/reference/storage.hpp"

namespace kvcrumb::test {

struct encoded_group {
  group_params params;
  std::vector<int> codes;
  std::vector<float> decoded;
};

template <class Codec>
encoded_group encode_group(Codec const& codec, std::vector<float> const& x) {
  int const n = static_cast<int>(x.size());
  encoded_group result{codec.fit(collect(codec, x.data(), n), n), {}, {}};
  for (float const value : x) {
    unsigned const code = codec.encode(value, result.params);
    result.codes.push_back(static_cast<int>(code));
    result.decoded.push_back(decode(codec, code, result.params));
  }
  return result;
}

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

//! Deterministic numbers on every machine: integers, scaled by powers of two.
class number_source {
 public:
  explicit number_source(std::uint64_t seed) : state_{seed * 0x9E3779B97F4A7C15u + 1} {}

  std::uint32_t bits() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  //! About normal with standard deviation 1.15: the sum of four uniform numbers, a multiple of 2^-15.
  float bell() {
    std::uint32_t const a = bits(), b = bits();
    int const sum = static_cast<int>((a & 0xFFFFu) + (a >> 16) + (b & 0xFFFFu) + (b >> 16)) - 131070;
    return static_cast<float>(sum) * 0x1p-15f;
  }
  std::vector<float> bells(std::size_t n, float scale = 1.0f, float offset = 0.0f) {
    std::vector<float> x(n);
    for (float& value : x)
      value = bell() * scale + offset;
    return x;
  }

 private:
  std::uint64_t state_;
};

//! Rounded to fp16, as a float.
inline std::vector<float> halves(std::vector<float> x) {
  for (float& value : x)
    value = static_cast<float>(reference::to_fp16(static_cast<double>(value)));
  return x;
}

inline std::vector<double> doubles(std::vector<float> const& x) { return {x.begin(), x.end()}; }

}  // namespace kvcrumb::test
