// SPDX-License-Identifier: Apache-2.0
//! @file Groups have at most 4096 values.
// expect: kvcrumb::composed: groups of more than 4096 values are not supported
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

composed<affine<2>, per_token<4097>> s;
