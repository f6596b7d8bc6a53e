// SPDX-License-Identifier: Apache-2.0
//! @file embedded_samples: the recordings inside the program, so that it runs without a file.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>

namespace kvcrumb_compare {

//! One .safetensors file as it lies next to make_sample.py, which tells what it is and makes it.
struct embedded_sample {
  std::string_view name;  //!< "sample" or "sample_gpt2"
  std::span<std::byte const> bytes;
};

//! Both samples; the first is the default input.
std::span<embedded_sample const> embedded_samples();

//! The sample of that name; nothing if there is none.
std::optional<embedded_sample> find_sample(std::string_view name);

}  // namespace kvcrumb_compare
