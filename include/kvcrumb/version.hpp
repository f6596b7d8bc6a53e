// SPDX-License-Identifier: Apache-2.0
//! @file The version: three numbers that CMake reads, and the version of the byte format.
#pragma once

#define KVCRUMB_VERSION_MAJOR 0
#define KVCRUMB_VERSION_MINOR 1
#define KVCRUMB_VERSION_PATCH 0

namespace kvcrumb::inline v0 {

//! Version of the byte contract in docs/format.md; golden files and saved caches carry it.
inline constexpr int format_version = 1;

}  // namespace kvcrumb::inline v0
