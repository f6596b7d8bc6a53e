// SPDX-License-Identifier: Apache-2.0
//! @file Symmetric codes have two to eight bits.
#include "kvcrumb/codec/symmetric.hpp"

using namespace kvcrumb;

symmetric<8> c;
