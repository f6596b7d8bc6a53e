// SPDX-License-Identifier: Apache-2.0
//! @file main() of the tests that are built with MemorySanitizer.
#include "support/simt/plain/checks.hpp"

int main(int count, char** arguments) { return simt::plain::run_all(count, arguments); }
