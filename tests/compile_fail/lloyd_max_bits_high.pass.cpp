// SPDX-License-Identifier: Apache-2.0
//! @file Lloyd-Max tables have one to four bits.
#include "kvcrumb/codec/codebook.hpp"

using namespace kvcrumb;

lloyd_max<4> c;
