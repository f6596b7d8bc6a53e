// SPDX-License-Identifier: Apache-2.0
//! @file embedded_samples: see sample.hpp. KVCRUMB_SAMPLE_DIR is the folder of the files, set by the build.
#include "sample.hpp"

#include <array>

#define KVCRUMB_EMBED(symbol, file)                                         \
  __asm__(".pushsection .rodata\n"                                          \
          ".balign 64\n"                                                    \
          ".globl " #symbol "_begin\n"                                      \
          ".globl " #symbol "_end\n" #symbol "_begin:\n"                    \
          ".incbin \"" KVCRUMB_SAMPLE_DIR "/" file "\"\n" #symbol "_end:\n" \
          ".byte 0\n"                                                       \
          ".popsection\n");                                                 \
  extern "C" std::byte const symbol##_begin[];                              \
  extern "C" std::byte const symbol##_end[]

KVCRUMB_EMBED(kvcrumb_sample, "sample.safetensors");
KVCRUMB_EMBED(kvcrumb_sample_gpt2, "sample_gpt2.safetensors");

namespace kvcrumb_compare {

std::span<embedded_sample const> embedded_samples() {
  static std::array<embedded_sample, 2> const samples{{
      {"sample", {kvcrumb_sample_begin, kvcrumb_sample_end}},
      {"sample_gpt2", {kvcrumb_sample_gpt2_begin, kvcrumb_sample_gpt2_end}},
  }};
  return samples;
}

std::optional<embedded_sample> find_sample(std::string_view name) {
  for (embedded_sample const& sample : embedded_samples()) {
    if (sample.name == name) return sample;
  }
  return std::nullopt;
}

}  // namespace kvcrumb_compare
