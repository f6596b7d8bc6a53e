// SPDX-License-Identifier: Apache-2.0
//! @file Groups have at most 4096 values.
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

composed<affine<2>, per_token<4096>> s;
