// SPDX-License-Identifier: Apache-2.0
//! @file Lloyd-Max tables have one to four bits.
// expect: kvcrumb::lloyd_max_table: Bits must be in \[1, 4\]
#include "kvcrumb/codec/codebook.hpp"

using namespace kvcrumb;

lloyd_max<5> c;
