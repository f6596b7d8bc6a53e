// SPDX-License-Identifier: Apache-2.0
//! @file The only way in which tests include Catch2: takes version 3 and version 2.13.
//! Use only what both have; a skip message starts with "skipped: " so that CTest can report the test as skipped.
#pragma once

#if defined(SIMT_MSAN)  // emulated kernels under MemorySanitizer, which cannot see into Catch2
#include "support/simt/plain/checks.hpp"
#elif __has_include(<catch2/catch_test_macros.hpp>)  // Catch2 3
#include <catch2/catch_approx.hpp>
#include <catch2/catch_template_test_macros.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
namespace kvcrumb::test {
using Catch::Approx;
}
#define KVCRUMB_TEST_SKIP(message) SKIP(message)
#elif __has_include(<catch2/catch.hpp>)  // Catch2 2.13: TEMPLATE_*, GENERATE, take, random, range exist; SKIP does not
#include <catch2/catch.hpp>
namespace kvcrumb::test {
using Catch::Detail::Approx;
}
#define KVCRUMB_TEST_SKIP(message) \
  do {                             \
    WARN(message);                 \
    return;                        \
  } while (false)
#else
#error "kvcrumb tests need Catch2 2.13 or 3"
#endif
