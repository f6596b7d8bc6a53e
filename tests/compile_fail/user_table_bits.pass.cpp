// SPDX-License-Identifier: Apache-2.0
//! @file User tables have one to eight bits.
#include "kvcrumb/codec/codebook.hpp"

using namespace kvcrumb;

user_table<8> t;
