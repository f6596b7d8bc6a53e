// SPDX-License-Identifier: Apache-2.0
//! @file main() of the tests where the installed Catch2 2.13 brings no library that contains one.
#define CATCH_CONFIG_MAIN
#include "support/catch.hpp"
