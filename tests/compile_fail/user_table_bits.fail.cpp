// SPDX-License-Identifier: Apache-2.0
//! @file User tables have one to eight bits.
// expect: kvcrumb::user_table: Bits must be in \[1, 8\]
#include "kvcrumb/codec/codebook.hpp"

using namespace kvcrumb;

user_table<9> t;
