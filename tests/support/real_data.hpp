// SPDX-License-Identifier: Apache-2.0
//! @file real_data: path of a recorded KV-cache file that is too large for the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace kvcrumb::test {

//! Path of `file` in the folder $KVCRUMB_DATA_DIR, or else in the folder found when the build was configured; nothing
//! if the file is in neither. A test that gets nothing calls KVCRUMB_TEST_SKIP("skipped: no recorded data, ...").
inline std::optional<std::string> real_data(std::string_view file) {
  char const* const folder = std::getenv("KVCRUMB_DATA_DIR");
  for (std::string_view const candidate : {std::string_view{folder != nullptr ? folder : ""},
                                           std::string_view{KVCRUMB_REAL_DATA_DIR}}) {
    if (candidate.empty()) {
      continue;
    }
    std::filesystem::path const path = std::filesystem::path{candidate} / file;
    if (std::filesystem::exists(path)) {
      return path.string();
    }
  }
  return std::nullopt;
}

}  // namespace kvcrumb::test
