// SPDX-License-Identifier: Apache-2.0
//! @file What the tests of the emulator share.
#pragma once

#include "support/simt/simt.hpp"
// after the emulator
#include <cstdint>
#include <string>
#include <vector>

#include "kvcrumb/ptx.cuh"
#if defined(SIMT_MSAN)
#include "support/simt/plain/checks.hpp"
#else
#include "support/catch.hpp"
#endif

namespace kvcrumb::test {

inline bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

#if defined(__SANITIZE_THREAD__)
inline constexpr bool under_tsan = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif
#else
inline constexpr bool under_tsan = false;
#endif

//! What went wrong in a launch of this kernel, for every kind of schedule: empty if nothing ever did.
template <class... P>
std::string first_failure(dim3 grid, dim3 block, std::size_t shared, void (*kernel)(P...),
                          std::type_identity_t<P>... args) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    std::string const text = simt::expect_error([&] {
      simt::options const how{.seed = seed,
                              .order = static_cast<simt::order>(seed % 2),
                              .copies = static_cast<simt::copies>(seed % 3)};
      simt::launch<P...>(grid, block, shared, how, kernel, args...);
    });
    if (!text.empty()) {
      return text;
    }
  }
  return {};
}

//! 16-byte aligned words with recognizable values.
struct source_words {
  std::vector<std::uint32_t> storage;
  std::uint32_t* words;

  explicit source_words(std::size_t n) : storage(n + 3), words(storage.data()) {
    while (reinterpret_cast<std::uintptr_t>(words) % 16 != 0) {
      ++words;
    }
    for (std::size_t i = 0; i < n; ++i) {
      words[i] = static_cast<std::uint32_t>(i) * 2654435761u + 1u;
    }
  }
};

}  // namespace kvcrumb::test
